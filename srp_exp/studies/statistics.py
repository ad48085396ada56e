"""The statistics of a study: means and intervals, paired tests on seeds, McNemar's test.

Everything here takes numbers and gives numbers. Intervals are two-sided with coverage 1 - alpha, p-values two-sided.
docs/statistics.md says why these tests.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from srp_exp.errors import UserError

ALPHA = 0.05
"""Level of every interval and test."""

EXACT_PAIRS = 20
"""Up to so many pairs the permutation test enumerates all 2^n sign flips."""

DRAWS = 99_999
"""Sign flips drawn where there are more pairs."""

TIE = 1e-9
"""Two sums of differences are equal if they differ by less than this part of the sum of the absolute differences."""

Array: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """n values: their mean, their standard deviation (over n - 1) and the 95 % interval of the mean; None at n = 1."""

    mean: float
    sd: float | None
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Paired:
    """n pairs: the mean of method - baseline, the standard deviation of the differences, the 95 % interval of their
    mean (None at n = 1), and the p-value of the sign-flip test that the mean is 0."""

    n: int
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    p: float


@dataclass(frozen=True)
class Pooled:
    """`pairs` pairs in `cells` cells, every cell with the same weight: the mean of the cells' mean differences, the
    standard deviation of a difference, the interval of the mean, and p. sd and interval: None without a cell of
    several pairs."""

    cells: int
    pairs: int
    difference: float
    sd: float | None
    low: float | None
    high: float | None
    p: float


@dataclass(frozen=True)
class McNemar:
    """Samples that only a has right, samples that only b has right, and the exact p-value that both are as likely."""

    only_a: int
    only_b: int
    p: float


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation s and Student's interval: mean -+ t(0.975, n - 1) * s / sqrt(n).

    Source: Student, "The probable error of a mean", Biometrika 1908. The interval supposes that the values of other
    seeds would spread like a normal distribution. Raises ValueError for no value and for one that isn't finite.
    """
    x = _finite(values, "values")
    mean = float(x.mean())
    if len(x) == 1:
        return Summary(mean, None, 1, None, None)
    sd = float(x.std(ddof=1))
    half = float(stats.t.ppf(1 - ALPHA / 2, len(x) - 1)) * sd / math.sqrt(len(x))
    return Summary(mean, sd, len(x), mean - half, mean + half)


def paired(values: Sequence[float], baseline: Sequence[float]) -> Paired:
    """The differences values - baseline, pair by pair: Student's interval of their mean, and the sign-flip test.

    Raises ValueError for sequences of unequal length, for no pair and for a value that isn't finite.
    """
    a, b = _finite(values, "values"), _finite(baseline, "baseline")
    if len(a) != len(b):
        raise UserError(f"{len(a)} values and {len(b)} of the baseline don't form pairs")
    s = summarize((a - b).tolist())
    return Paired(s.n, s.mean, s.sd, s.low, s.high, sign_flip_p(a - b))


def sign_flip_p(differences: Sequence[float] | Array) -> float:
    """Part of the 2^n sign flips of n differences whose sum is at least as far from 0 as theirs; in [2 / 2^n, 1].

    The paired permutation test: were method and baseline the same, each difference could as well have had the other
    sign. Exact up to EXACT_PAIRS differences; with more, (hits + 1) / (DRAWS + 1) of seeded draws.
    Source: Fisher, "The Design of Experiments", 1935, section 21; Pitman, JRSS Supplement 1937; for drawn flips
    Phipson and Smyth, SAGMB 2010.
    """
    x = _finite(differences, "differences")
    reached = abs(x.sum()) - TIE * np.abs(x).sum()
    if len(x) <= EXACT_PAIRS:
        sums = np.zeros(1)
        for difference in x:
            sums = np.concatenate([sums + difference, sums - difference])
        return float(np.mean(np.abs(sums) >= reached))
    signs = np.random.default_rng(0)
    sums = np.zeros(DRAWS)
    for difference in x:
        sums += difference * signs.choice((-1.0, 1.0), DRAWS)
    return float(np.sum(np.abs(sums) >= reached) + 1) / (DRAWS + 1)


def pooled(cells: Sequence[Sequence[float]], about: float = 0.0, alpha: float = ALPHA) -> Pooled:
    """The mean over k cells of their mean differences, D; `cells` holds the differences of each cell.

    Interval: D -+ t * sqrt(V), V = 1/k^2 * sum of s_i^2 / n_i, with the degrees of freedom of Welch and Satterthwaite,
    V^2 / sum of V_i^2 / (n_i - 1), where V_i is the part of V that s_i^2 makes. A cell with one pair has no s_i: it
    takes the common variance of the other cells, sum of (n_j - 1) s_j^2 over sum of (n_j - 1). sd is about D, so it
    counts what the cells differ too, which the interval does not. p: the sign-flip test over all pairs that they lie
    evenly `about` this value, a pair of cell i weighing 1 / (k n_i); where cells differ it is conservative. The cells
    must be independent: no run in two of them.
    Source: Welch, Biometrika 1947; Satterthwaite, Biometrics Bulletin 1946.

    Raises ValueError for no cell, a cell without a pair, and a difference that isn't finite.
    """
    if not len(cells):
        raise UserError("no cell to pool; a comparison needs at least one pair")
    parts = [_finite(cell, "differences") for cell in cells]
    difference = float(np.mean([part.mean() for part in parts]))
    # A difference that is `about` but for rounding must not count as lying on one side of it.
    moved = [np.where(np.isclose(part, about, rtol=TIE, atol=0), 0, part - about) for part in parts]
    weighted = [part / (len(parts) * len(part)) for part in moved]
    p = sign_flip_p(np.concatenate(weighted))
    pairs = sum(len(part) for part in parts)
    error = _standard_error(parts)
    if error is None:
        return Pooled(len(parts), pairs, difference, None, None, None, p)
    squares = np.mean([np.mean((part - difference) ** 2) for part in parts])
    sd = math.sqrt(squares * pairs / (pairs - 1))
    half = float(stats.t.ppf(1 - alpha / 2, error.freedom)) * error.value
    return Pooled(len(parts), pairs, difference, sd, difference - half, difference + half, p)


class _Error(NamedTuple):
    value: float
    freedom: float


def _standard_error(parts: Sequence[Array]) -> _Error | None:
    """The root of V and its degrees of freedom, as in `pooled`; None where every cell has one pair."""
    repeated = [part for part in parts if len(part) > 1]
    if not repeated:
        return None
    singles = len(parts) - len(repeated)
    variances = np.array([part.var(ddof=1) for part in repeated])
    freedoms = np.array([len(part) - 1 for part in repeated])
    made = variances * (1 / (freedoms + 1) + singles * freedoms / freedoms.sum()) / len(parts) ** 2
    total = made.sum()
    freedom = total**2 / (made**2 / freedoms).sum() if total > 0 else freedoms.sum()
    return _Error(math.sqrt(total), float(freedom))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """The p-values of m tests, adjusted so that the chance of any false rejection stays below the level.

    In ascending order the i-th (from 0) becomes the largest (m - j) * p_j of j <= i, at most 1.
    Source: Holm, Scandinavian Journal of Statistics 1979. Raises ValueError for a value outside [0, 1].
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise UserError(f"{p} is not a p-value; it must lie in [0, 1]")
    m, largest = len(p_values), 0.0
    adjusted = [0.0] * m
    for rank, position in enumerate(sorted(range(m), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (m - rank) * p_values[position]))
        adjusted[position] = largest
    return tuple(adjusted)


def mcnemar(correct_a: npt.ArrayLike, correct_b: npt.ArrayLike) -> McNemar:
    """Compare two classifiers on the same samples: (N,) booleans, whether each has the sample right.

    Of the samples that one alone has right, each had it with probability 1/2, were the two as good: the two-sided
    binomial test. p = 1 where they never differ. It speaks about these two trained networks, not about other seeds.
    Source: McNemar, Psychometrika 1947, in its exact form. Raises ValueError for arrays of unequal or other shapes.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise UserError(f"answers of shapes {a.shape} and {b.shape} can't be compared; both must be (N,)")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


def _finite(values: Sequence[float] | Array, what: str) -> Array:
    """`values` as an array (n,); raises ValueError where it is empty or holds NaN or infinity."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise UserError(f"{what} of shape {x.shape}: at least one number is needed, in one row")
    if not np.isfinite(x).all():
        place = int(np.argmin(np.isfinite(x)))
        raise UserError(f"{what}: number {place} is {x[place]}; leave out runs that have no finite value")
    return x


POWER = 0.8
"""Probability with which `seeds_needed` promises a decision."""

MOST_SEEDS = 1_000_000
"""More than these nobody trains."""


def seeds_needed(
    difference: float, sd: float, cells: int = 1, comparisons: int = 1, alpha: float = ALPHA, power: float = POWER
) -> int | None:
    """Seeds in each of k cells with which both tests find a true difference of this size, in [2, MOST_SEEDS].

    The fewest n for which the two-sided t-test at the level alpha / comparisons (Holm's first step, the hardest) finds
    the sign with the probability `power`: P(T > t), T of the noncentral t distribution with k (n - 1) degrees of
    freedom and the noncentrality difference / sd * sqrt(k n); and not fewer than `fewest_seeds`. None where difference
    is 0 or n would be beyond MOST_SEEDS. Raises ValueError where difference or sd isn't finite, or sd is below 0.
    Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, chapter 2.
    """
    if not (math.isfinite(difference) and math.isfinite(sd) and sd >= 0):
        raise UserError(f"difference={difference} and sd={sd} must be finite, sd not below 0")
    if difference == 0:
        return None
    fewest = fewest_seeds(cells, comparisons, alpha)

    def decides(n: int) -> bool:
        return _power(abs(difference), sd, cells, n, alpha / comparisons) >= power

    if not decides(MOST_SEEDS):
        return None
    return fewest + bisect_left(range(fewest, MOST_SEEDS), True, key=decides)


def fewest_seeds(cells: int = 1, comparisons: int = 1, alpha: float = ALPHA) -> int:
    """The fewest seeds n >= 2 in each cell that could decide: 2 / 2^(cells * n) <= alpha / comparisons."""
    return max(2, math.ceil(math.log2(2 * comparisons / alpha) / cells))


def _power(difference: float, sd: float, cells: int, n: int, alpha: float) -> float:
    """Probability that the t-test rejects, and on the right side; see `seeds_needed`."""
    if sd == 0:
        return 1.0
    freedom = cells * (n - 1)
    # At a noncentrality of 100 the power is near 1; beyond, scipy's nct loses its digits.
    noncentrality = min(difference / sd * math.sqrt(cells * n), 100.0)
    return float(stats.nct.sf(stats.t.ppf(1 - alpha / 2, freedom), freedom, noncentrality))
