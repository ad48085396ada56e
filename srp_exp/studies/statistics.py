"""The statistics of a study: means, intervals, and paired tests on seeds.

Everything here takes numbers and gives numbers; intervals and p-values are two-sided. The tests take differences
(..., n) with any leading dimensions, so that a simulation goes through the same code as a study. docs/statistics.md
says why these tests.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from srp_exp.errors import UserError
from srp_exp.studies.levels import ALPHA

RESAMPLES = 99_999
"""The sign-flip test enumerates all 2^n flips where they aren't more, else draws so many."""

TIE = 1e-9
"""Two sums of differences are equal if they differ by less than this part of the sum of the absolute differences."""

Array: TypeAlias = npt.NDArray[np.float64]


class Mean:
    """The mean D over k cells of the means of their n_i values, each cell with the same weight, and its tests.

    Error: sqrt(V), V = 1/k^2 * sum of s_i^2 / n_i, with V^2 / sum of V_i^2 / (n_i - 1) degrees of freedom, where V_i is
    the part of V that s_i^2 makes (Welch, Biometrika 1947; Satterthwaite, Biometrics Bulletin 1946). A cell with one
    value takes the common variance of the others, sum of (n_j - 1) s_j^2 over sum of (n_j - 1). The values must be
    independent and spread like a normal distribution. With one cell all this is Student's (Biometrika 1908).

    Raises ValueError for no cell, a cell without a value, and a value that isn't finite.
    """

    def __init__(self, cells: Sequence[npt.ArrayLike]) -> None:
        self.cells = [_finite(cell) for cell in cells]
        if not self.cells:
            raise UserError("no cell to pool; a comparison needs at least one pair")
        self.n = sum(cell.shape[-1] for cell in self.cells)
        self._repeated = [cell for cell in self.cells if cell.shape[-1] > 1]
        self.value: Array = np.mean([cell.mean(-1) for cell in self.cells], axis=0)

    @property
    def error(self) -> Array | None:
        """The standard error of the mean; None where every cell has one value."""
        return None if self._parts is None else np.sqrt(self._parts[0].sum(0))

    @cached_property
    def sd(self) -> Array | None:
        """The standard deviation of a value about the mean of its cell; None where every cell has one value."""
        if not self._repeated:
            return None
        squares = sum(cell.var(-1, ddof=1) * (cell.shape[-1] - 1) for cell in self._repeated)
        return np.asarray(np.sqrt(squares / sum(cell.shape[-1] - 1 for cell in self._repeated)))

    @cached_property
    def _parts(self) -> tuple[Array, Array] | None:
        """V_i (cells, ...) and n_i - 1 (cells,) of the cells with several values."""
        repeated = self._repeated
        if not repeated:
            return None
        freedoms = np.array([cell.shape[-1] - 1 for cell in repeated], dtype=np.float64)
        weights = 1 / (freedoms + 1) + (len(self.cells) - len(repeated)) * freedoms / freedoms.sum()
        variances = np.stack([cell.var(-1, ddof=1) for cell in repeated])
        return (variances.T * weights).T / len(self.cells) ** 2, freedoms

    @property
    def freedom(self) -> Array:
        assert self._parts is not None
        parts, freedoms = self._parts
        squares = (parts.T**2 / freedoms).T.sum(0)
        known = squares > 0
        freedom: Array = np.where(known, parts.sum(0) ** 2 / np.where(known, squares, 1), freedoms.sum())
        return freedom

    def interval(self, alpha: float = ALPHA) -> tuple[Array, Array]:
        """The t-interval with coverage 1 - alpha; without a standard error all numbers are in it."""
        if self.error is None:
            return np.full_like(self.value, -math.inf), np.full_like(self.value, math.inf)
        half = stats.t.ppf(1 - alpha / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    def bounds(self, alpha: float = ALPHA) -> tuple[float, float] | None:
        """The interval of one mean as numbers; None without a standard error."""
        low, high = self.interval(alpha)
        return None if self.error is None else (float(low), float(high))

    def p(self, about: float = 0.0) -> Array:
        """Of Student's t-test that the mean is `about`; 1 without a standard error."""
        if self.error is None:
            return np.ones_like(self.value)
        away = np.abs(self.value - about)
        away = np.where(away <= TIE * max(abs(about), np.finfo(np.float64).tiny), 0, away)
        spread = self.error > 0
        t = away / np.where(spread, self.error, 1)
        return np.where(spread, 2 * stats.t.sf(t, self.freedom), np.where(away > 0, 0, 1))

    def p_flips(self, about: float = 0.0) -> Array:
        """Of the sign flips that they lie evenly `about` this value, a value of cell i weighing 1 / (k n_i).

        It supposes symmetry only, and can't go below 2 / 2^n. A difference that is `about` but for rounding must not
        count as lying on one side of it. Where cells differ the test is conservative.
        """
        moved = [np.where(np.isclose(cell, about, rtol=TIE, atol=0), 0, cell - about) for cell in self.cells]
        return sign_flip_p(np.concatenate([cell / cell.shape[-1] for cell in moved], axis=-1))


def sign_flip_p(differences: npt.ArrayLike) -> Array:
    """Part of the 2^n sign flips of differences (..., n) whose sum is at least as far from 0: (...), in [2 / 2^n, 1].

    The paired permutation test (Fisher, "The Design of Experiments", 1935, section 21; Pitman, JRSS Supplement 1937).
    Exact where 2^n <= RESAMPLES; else (hits + 1) / (RESAMPLES + 1) of seeded draws (Phipson and Smyth, SAGMB 2010).
    """
    x = _finite(differences)
    if x.shape[-1] == 1:  # which scipy refuses
        return np.ones(x.shape[:-1])
    total = np.abs(x).sum(-1, keepdims=True)
    shares = x / np.where(total > 0, total, 1)
    digits = round(-math.log10(TIE))

    def statistic(flipped: Array, axis: int) -> Array:  # sums that tie but for rounding tie
        return np.asarray(np.round(flipped.sum(axis), digits))

    options: dict[str, Any] = {"permutation_type": "samples", "n_resamples": RESAMPLES, "rng": 0}
    return np.asarray(stats.permutation_test((shares,), statistic, **options, axis=-1).pvalue)


def _finite(values: npt.ArrayLike) -> Array:
    """`values` as an array (..., n); raises ValueError where it is empty or holds NaN or infinity."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim == 0 or not x.shape[-1]:
        raise UserError(f"values of shape {x.shape}: at least one number is needed, in one row")
    if not np.isfinite(x).all():
        place = int(np.argmin(np.isfinite(x)))
        raise UserError(f"number {place} is {x.flat[place]}; leave out runs that have no finite value")
    return x
