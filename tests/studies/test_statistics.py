"""The statistics against scipy, exact enumeration, other derivations, and worked examples of the literature."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from srp_exp.studies.statistics import RESAMPLES, Mean, sign_flip_p

# Student's example of 1908: hours of sleep gained with two drugs by the same ten patients (data of Cushny and Peebles).
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]

# Darwin's maize, as in section 17 of Fisher's "The Design of Experiments": crossed less self-fertilised, 1/8 inch.
MAIZE = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def random_values(n: int, seed: int, scale: float = 1.0) -> list[float]:
    return (0.5 + scale * np.random.default_rng(seed).standard_normal(n)).tolist()


def exact_sign_flip_p(differences: list[int]) -> Fraction:
    """By the distribution of the sum in whole numbers, one difference after the other."""
    counts = {0: 1}
    for difference in differences:
        wider: dict[int, int] = {}
        for total, count in counts.items():
            for signed in (total + difference, total - difference):
                wider[signed] = wider.get(signed, 0) + count
        counts = wider
    reached = abs(sum(differences))
    return Fraction(sum(c for total, c in counts.items() if abs(total) >= reached), 2 ** len(differences))


@pytest.mark.parametrize("n", [2, 57])
def test_the_mean_of_values_is_scipys(n: int) -> None:
    values = random_values(n, seed=n)
    mean = Mean([values])
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean.value, mean.n) == (pytest.approx(np.mean(values)), n)
    assert mean.sd == pytest.approx(math.sqrt(stats.tvar(values)))
    assert mean.bounds() == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_one_value_has_no_spread() -> None:
    mean = Mean([[0.983]])
    assert (mean.value, mean.sd, mean.n, mean.bounds()) == (0.983, None, 1, None)


def test_equal_values_have_an_interval_of_no_width() -> None:
    mean = Mean([[7.0, 7.0, 7.0]])
    assert (mean.sd, mean.bounds()) == (0.0, (7.0, 7.0))


def differences(values: list[float], baseline: list[float]) -> list[float]:
    return [a - b for a, b in zip(values, baseline, strict=True)]


def test_the_mean_gives_students_sleep_example() -> None:
    result = Mean([differences(DRUG_2, DRUG_1)])
    assert (result.n, float(result.value)) == (10, pytest.approx(1.58))
    assert result.sd == pytest.approx(1.2300, abs=5e-5)
    assert result.interval() == (pytest.approx(0.7001142), pytest.approx(2.4598858))
    assert float(result.p()) == pytest.approx(stats.ttest_rel(DRUG_2, DRUG_1).pvalue)
    assert float(result.p_flips()) == sign_flip_p(result.cells[0])


def test_one_pair_has_a_difference_alone() -> None:
    result = Mean([[0.01]])
    assert (result.sd, result.error, float(result.p())) == (None, None, 1.0)
    assert result.interval() == (-math.inf, math.inf)


def test_equal_differences_are_sure() -> None:
    assert float(Mean([[0.01] * 3]).p()) == 0.0
    assert float(Mean([[0.01] * 3]).p(0.01)) == 1.0


def test_leading_dimensions_are_studies_of_their_own() -> None:
    cells = [np.random.default_rng(n).standard_normal((2, 4, n)) for n in (5, 3)]
    together = Mean(cells)
    for place in np.ndindex(2, 4):
        alone = Mean([cell[place] for cell in cells])
        for about in (0.0, 0.5):
            assert together.p(about)[place] == pytest.approx(float(alone.p(about)))
        assert [bound[place] for bound in together.interval()] == pytest.approx([float(b) for b in alone.interval()])


def test_sign_flips_give_fishers_count_for_darwins_maize() -> None:
    # Fisher, section 21: 863 of the 32,768 sums are as large as the observed 314, and as many as small as -314.
    assert sign_flip_p(MAIZE) == 2 * 863 / 32768
    assert Mean([MAIZE]).value == pytest.approx(20.933, abs=5e-4)


@pytest.mark.parametrize("n", [3, 13])
def test_sign_flips_are_scipys(n: int) -> None:
    values = np.array(random_values(n, seed=n))
    reference = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(values) == pytest.approx(reference.pvalue)


def test_ties_are_ties_in_floating_point() -> None:
    # Thousandths, as accuracies on 1,000 samples: their sums tie often, and hardly one of them is exact in binary.
    source = np.random.default_rng(0)
    for _ in range(20):
        thousandths = source.integers(-4, 5, 8).tolist()
        baseline = source.integers(900, 990, 8)
        values = [(b + d) / 1000 - b / 1000 for b, d in zip(baseline, thousandths, strict=True)]
        assert sign_flip_p(values) == float(exact_sign_flip_p(thousandths))


def test_a_sum_of_zero_is_no_evidence() -> None:
    assert sum([0.1, 0.2, -0.3]) != 0
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0


@pytest.mark.parametrize("n", [1, 16])
def test_the_smallest_p_is_that_of_equal_signs(n: int) -> None:
    assert sign_flip_p([0.01] * n) == 2 / 2**n


@pytest.mark.parametrize("differences", [[3] * 15 + [-2] * 10, [1] * 40])
def test_drawn_sign_flips_are_near_the_exact_ones(differences: list[int]) -> None:
    exact = float(exact_sign_flip_p(differences))
    within = 10 * math.sqrt(exact / 2 * (1 - exact / 2) / RESAMPLES) + 2 / RESAMPLES  # each tail is drawn
    drawn = sign_flip_p(differences)
    assert drawn == pytest.approx(exact, abs=within)
    assert drawn == sign_flip_p(differences) > 0  # seeded; never 0


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_two_cells_are_welchs_test(alpha: float) -> None:
    # mean(a) + mean(b) is the difference of the means of a and -b, which Welch's test is about.
    a, b = random_values(4, seed=1), random_values(9, seed=2, scale=3)
    welch = stats.ttest_ind(a, [-x for x in b], equal_var=False)
    interval = welch.confidence_interval(1 - alpha)
    total = Mean([a, b])
    assert float(total.value) == pytest.approx((np.mean(a) + np.mean(b)) / 2)
    assert total.interval(alpha) == (pytest.approx(interval.low / 2), pytest.approx(interval.high / 2))
    assert float(total.p()) == pytest.approx(welch.pvalue)


def test_a_cell_weighs_the_same_whatever_its_pairs() -> None:
    total = Mean([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0]])
    assert (float(total.value), *map(float, total.interval())) == (2.0, 2.0, 2.0)


def test_sd_is_that_about_the_means_of_the_cells() -> None:
    cells = [random_values(5, seed=6), random_values(3, seed=7), [x + 2 for x in random_values(5, seed=8)]]
    squares = sum(((np.array(cell) - np.mean(cell)) ** 2).sum() for cell in cells)
    assert Mean(cells).sd == pytest.approx(math.sqrt(squares / (4 + 2 + 4)))


def test_p_enumerates_weighted_flips() -> None:
    cells = [[3.0, -1.0, 2.0], [4.0, 1.0]]
    for about in (0.0, 0.75):
        sums = [
            abs(sum(s * (x - about) for s, x in zip(signs[:3], cells[0], strict=True)) / 6
                + sum(s * (x - about) for s, x in zip(signs[3:], cells[1], strict=True)) / 4)
            for signs in itertools.product((1, -1), repeat=5)
        ]  # fmt: skip
        assert Mean(cells).p_flips(about) == np.mean([s >= sums[0] - 1e-12 for s in sums])


def test_a_cell_with_one_pair_takes_the_common_variance_of_the_others() -> None:
    a, b = random_values(6, seed=3), random_values(3, seed=4, scale=2)
    half = stats.t.ppf(0.975, 5) * math.sqrt(stats.tvar(a) * (1 / 6 + 1)) / 2
    alone = Mean([a, [0.2]])
    assert float(alone.interval()[1] - alone.value) == pytest.approx(half)
    total = Mean([a, b, [0.2]])
    common = (5 * stats.tvar(a) + 2 * stats.tvar(b)) / 7
    variance = (stats.tvar(a) / 6 + stats.tvar(b) / 3 + common) / 9
    of_a, of_b = (stats.tvar(a) * (1 / 6 + 5 / 7) / 9, stats.tvar(b) * (1 / 3 + 2 / 7) / 9)
    half = stats.t.ppf(0.975, variance**2 / (of_a**2 / 5 + of_b**2 / 2)) * math.sqrt(variance)
    assert float(total.interval()[1] - total.value) == pytest.approx(half)


def test_the_interval_with_single_pairs_covers() -> None:
    rounds = 4000
    source = np.random.default_rng(5)
    low, high = Mean([source.standard_normal((rounds, n)) for n in (4, 3, 1, 1)]).interval()
    covered = ((low <= 0) & (high >= 0)).mean()
    # The degrees of freedom are an approximation, which gives a point either way besides the spread of the count.
    assert covered == pytest.approx(0.95, abs=0.01 + 4 * math.sqrt(0.95 * 0.05 / rounds))


def test_rounding_puts_no_difference_beside_its_threshold() -> None:
    noisy = [0.98 - 0.97] * 8
    assert noisy[0] != 0.01
    assert float(Mean([noisy]).p(0.01)) == 1.0


WRONG = [
    (lambda: Mean([[]]), "at least one number"),
    (lambda: Mean([[0.1, math.nan]]), "number 1 is nan"),
    (lambda: sign_flip_p([math.nan]), "number 0 is nan"),
    (lambda: Mean([]), "no cell to pool"),
    (lambda: Mean([[0.1], []]), "at least one number"),
]


def test_wrong_input_is_one_line() -> None:
    for call, message in WRONG:
        with pytest.raises(ValueError, match=message) as error:
            call()  # type: ignore[operator]
        assert "\n" not in str(error.value)
