"""The number of seeds against published tables, an integral, and draws."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from srp_exp.studies.statistics import MOST_SEEDS, fewest_seeds, pooled, seeds_needed


# Sizes of a paired t-test, two-sided 0.05, that G*Power 3 (Faul et al. 2007) gives for Cohen's three effect sizes.
@pytest.mark.parametrize(("effect", "power", "n"), [(0.2, 0.8, 199), (0.5, 0.8, 34), (0.8, 0.8, 15), (0.5, 0.95, 54)])
def test_seeds_are_those_of_the_tables(effect: float, power: float, n: int) -> None:
    assert seeds_needed(effect, 1.0, power=power) == n
    assert seeds_needed(-0.01 * effect, 0.01, power=power) == n


def power_by_integral(effect: float, cells: int, n: int, alpha: float) -> float:
    """P(Z + shift > t * s) over the density of s, the estimated over the true standard deviation."""
    freedom = cells * (n - 1)
    critical, shift = stats.t.ppf(1 - alpha / 2, freedom), effect * math.sqrt(cells * n)
    density = stats.chi(freedom, scale=1 / math.sqrt(freedom)).pdf
    return float(integrate.quad(lambda s: stats.norm.sf(critical * s - shift) * density(s), 0, 8, limit=200)[0])


@pytest.mark.parametrize("cells", [1, 2, 4])
@pytest.mark.parametrize("comparisons", [1, 5])
@pytest.mark.parametrize("effect", [0.3, 0.7])
def test_seeds_are_the_fewest_with_the_power(effect: float, comparisons: int, cells: int) -> None:
    n = seeds_needed(effect, 1.0, cells, comparisons)
    assert n is not None and n > fewest_seeds(cells, comparisons)
    assert power_by_integral(effect, cells, n, 0.05 / comparisons) >= 0.8
    assert power_by_integral(effect, cells, n - 1, 0.05 / comparisons) < 0.8


def test_seeds_decide_as_often_as_promised() -> None:
    n = seeds_needed(0.004, 0.005, cells=2)
    assert n is not None
    source, rounds, found = np.random.default_rng(0), 500, 0
    for _ in range(rounds):
        total = pooled((0.004 + 0.005 * source.standard_normal((2, n))).tolist())
        found += total.low is not None and total.low > 0
    assert found / rounds >= 0.8 - 4 * math.sqrt(0.8 * 0.2 / rounds)


@pytest.mark.parametrize(
    ("cells", "comparisons", "n"), [(1, 1, 6), (1, 2, 7), (1, 5, 8), (2, 1, 3), (3, 4, 3), (9, 1, 2)]
)
def test_no_data_decide_with_fewer(cells: int, comparisons: int, n: int) -> None:
    assert fewest_seeds(cells, comparisons) == n
    assert n == 2 or 2 / 2 ** (cells * (n - 1)) > 0.05 / comparisons
    assert 2 / 2 ** (cells * n) <= 0.05 / comparisons
    assert seeds_needed(1.0, 1e-6, cells, comparisons) == seeds_needed(1.0, 0.0, cells, comparisons) == n


def test_no_number_of_seeds_finds_nothing() -> None:
    assert seeds_needed(0.0, 0.01) is None
    assert seeds_needed(1e-7, 1.0) is None
    largest = seeds_needed(0.003, 1.0)
    assert largest is not None and 800_000 < largest < MOST_SEEDS


@pytest.mark.parametrize(("difference", "sd"), [(math.nan, 1.0), (1.0, math.inf), (1.0, -0.1)])
def test_wrong_input_is_refused(difference: float, sd: float) -> None:
    with pytest.raises(ValueError, match="must be finite, sd not below 0"):
        seeds_needed(difference, sd)
