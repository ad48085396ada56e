"""How many seeds a study needs to decide."""

import math
from bisect import bisect_left

from scipy import stats

from srp_exp.studies.statistics import ALPHA

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
        raise ValueError(f"difference={difference} and sd={sd} must be finite, sd not below 0")
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
