"""The statistics against scipy, exact enumeration, other derivations, and worked examples of the literature."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from srp_exp.studies.statistics import DRAWS, holm, mcnemar, paired, pooled, sign_flip_p, summarize

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


@pytest.mark.parametrize("n", [2, 3, 10, 57])
def test_summary_is_scipys(n: int) -> None:
    values = random_values(n, seed=n)
    summary = summarize(values)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (summary.mean, summary.n) == (pytest.approx(np.mean(values)), n)
    assert summary.sd == pytest.approx(math.sqrt(stats.tvar(values)))
    assert (summary.low, summary.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_one_value_has_no_spread() -> None:
    summary = summarize([0.983])
    assert (summary.mean, summary.sd, summary.n, summary.low, summary.high) == (0.983, None, 1, None, None)


def test_equal_values_have_an_interval_of_no_width() -> None:
    summary = summarize([7.0, 7.0, 7.0])
    assert (summary.sd, summary.low, summary.high) == (0.0, 7.0, 7.0)


def test_paired_gives_students_sleep_example() -> None:
    result = paired(DRUG_2, DRUG_1)
    assert result.n == 10
    assert result.difference == pytest.approx(1.58)
    assert result.sd == pytest.approx(1.2300, abs=5e-5)
    assert (result.low, result.high) == (pytest.approx(0.7001142), pytest.approx(2.4598858))


def test_paired_is_directed() -> None:
    forth, back = paired(DRUG_2, DRUG_1), paired(DRUG_1, DRUG_2)
    assert (back.difference, back.low, back.p) == (-forth.difference, -forth.high, forth.p)  # type: ignore[operator]


def test_paired_at_one_pair_has_a_difference_alone() -> None:
    result = paired([0.98], [0.97])
    assert (result.n, result.sd, result.low, result.high, result.p) == (1, None, None, None, 1.0)
    assert result.difference == pytest.approx(0.01)


def test_sign_flips_give_fishers_count_for_darwins_maize() -> None:
    # Fisher, section 21: 863 of the 32,768 sums are as large as the observed 314, and as many as small as -314.
    assert sign_flip_p(MAIZE) == 2 * 863 / 32768
    assert summarize(MAIZE).mean == pytest.approx(20.933, abs=5e-4)


@pytest.mark.parametrize("n", [2, 3, 6, 9, 13])
def test_sign_flips_are_scipys(n: int) -> None:
    values = np.array(random_values(n, seed=n))
    reference = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(values) == pytest.approx(reference.pvalue)


@pytest.mark.parametrize("seed", range(20))
def test_ties_are_ties_in_floating_point(seed: int) -> None:
    # Thousandths, as accuracies on 1,000 samples: their sums tie often, and hardly one of them is exact in binary.
    source = np.random.default_rng(seed)
    thousandths = source.integers(-4, 5, 8).tolist()
    baseline = source.integers(900, 990, 8)
    values = [(b + d) / 1000 for b, d in zip(baseline, thousandths, strict=True)]
    assert paired(values, [b / 1000 for b in baseline]).p == float(exact_sign_flip_p(thousandths))


def test_a_sum_of_zero_is_no_evidence() -> None:
    assert sum([0.1, 0.2, -0.3]) != 0
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0


@pytest.mark.parametrize("n", [1, 2, 6, 20])
def test_the_smallest_p_is_that_of_equal_signs(n: int) -> None:
    assert sign_flip_p([0.01] * n) == 2 / 2**n


@pytest.mark.parametrize("differences", [[3] * 15 + [-2] * 10, list(range(-6, 20)), [1] * 40])
def test_drawn_sign_flips_are_near_the_exact_ones(differences: list[int]) -> None:
    exact = float(exact_sign_flip_p(differences))
    within = 5 * math.sqrt(exact * (1 - exact) / DRAWS) + 2 / DRAWS
    drawn = sign_flip_p(differences)
    assert drawn == pytest.approx(exact, abs=within)
    assert drawn == sign_flip_p(differences) > 0  # seeded; never 0


def test_one_cell_is_the_paired_test() -> None:
    alone, pair = pooled([np.subtract(DRUG_2, DRUG_1).tolist()]), paired(DRUG_2, DRUG_1)
    assert (alone.difference, alone.sd, alone.p) == (pytest.approx(pair.difference), pytest.approx(pair.sd), pair.p)
    assert (alone.low, alone.high) == (pytest.approx(pair.low), pytest.approx(pair.high))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_two_cells_are_welchs_test(alpha: float) -> None:
    # mean(a) + mean(b) is the difference of the means of a and -b, which Welch's test is about.
    a, b = random_values(4, seed=1), random_values(9, seed=2, scale=3)
    welch = stats.ttest_ind(a, [-x for x in b], equal_var=False).confidence_interval(1 - alpha)
    total = pooled([a, b], alpha=alpha)
    assert total.difference == pytest.approx((np.mean(a) + np.mean(b)) / 2)
    assert (total.low, total.high) == (pytest.approx(welch.low / 2), pytest.approx(welch.high / 2))
    assert (total.cells, total.pairs) == (2, 13)


def test_a_cell_weighs_the_same_whatever_its_pairs() -> None:
    total = pooled([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0]])
    assert (total.difference, total.low, total.high) == (2.0, 2.0, 2.0)


def test_sd_is_that_of_all_differences() -> None:
    cells = [random_values(5, seed=6), random_values(5, seed=7), [x + 2 for x in random_values(5, seed=8)]]
    assert pooled(cells).sd == pytest.approx(np.std(np.concatenate(cells), ddof=1))


def test_pooled_p_enumerates_weighted_flips() -> None:
    cells = [[3.0, -1.0, 2.0], [4.0, 1.0]]
    for about in (0.0, 0.75):
        sums = [
            abs(sum(s * (x - about) for s, x in zip(signs[:3], cells[0], strict=True)) / 6
                + sum(s * (x - about) for s, x in zip(signs[3:], cells[1], strict=True)) / 4)
            for signs in itertools.product((1, -1), repeat=5)
        ]  # fmt: skip
        assert pooled(cells, about=about).p == np.mean([s >= sums[0] - 1e-12 for s in sums])


def test_a_cell_with_one_pair_takes_the_variance_of_the_other() -> None:
    a = random_values(6, seed=3)
    total = pooled([a, [0.2]])
    half = stats.t.ppf(0.975, 5) * math.sqrt(stats.tvar(a) * (1 / 6 + 1)) / 2
    assert total.high == pytest.approx(total.difference + half)


def test_a_cell_with_one_pair_takes_the_common_variance_of_several() -> None:
    a, b = random_values(6, seed=3), random_values(3, seed=4, scale=2)
    total = pooled([a, b, [0.2]])
    common = (5 * stats.tvar(a) + 2 * stats.tvar(b)) / 7
    variance = (stats.tvar(a) / 6 + stats.tvar(b) / 3 + common) / 9
    of_a, of_b = (stats.tvar(a) * (1 / 6 + 5 / 7) / 9, stats.tvar(b) * (1 / 3 + 2 / 7) / 9)
    half = stats.t.ppf(0.975, variance**2 / (of_a**2 / 5 + of_b**2 / 2)) * math.sqrt(variance)
    assert total.high == pytest.approx(total.difference + half)


def test_the_interval_with_single_pairs_covers() -> None:
    source = np.random.default_rng(5)
    rounds = 2000
    covered = 0
    for _ in range(rounds):
        total = pooled([source.standard_normal(n).tolist() for n in (4, 3, 1, 1)])
        assert total.low is not None and total.high is not None
        covered += total.low <= 0 <= total.high
    # The degrees of freedom are an approximation, which gives a point either way besides the spread of the count.
    assert covered / rounds == pytest.approx(0.95, abs=0.01 + 4 * math.sqrt(0.95 * 0.05 / rounds))


def test_single_pairs_alone_have_no_interval() -> None:
    total = pooled([[0.01], [0.02], [0.03]])
    assert (total.sd, total.low, total.high, total.p) == (None, None, None, 2 / 8)


def test_rounding_puts_no_difference_beside_its_threshold() -> None:
    noisy = [0.98 - 0.97] * 8
    assert noisy[0] != 0.01
    assert pooled([noisy], about=0.01).p == 1.0


def test_holm_gives_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()
    assert holm([0.7, 0.8]) == (1.0, 1.0)


@pytest.mark.parametrize("seed", range(10))
def test_holm_is_the_closure_of_bonferroni(seed: int) -> None:
    # Marcus, Peritz and Gabriel 1976: reject a hypothesis if every set with it is rejected, here by Bonferroni.
    p = (np.random.default_rng(seed).random(5) ** 3).round(2).tolist()
    sets = [s for size in range(1, 6) for s in itertools.combinations(range(5), size)]
    closed = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in sets if i in s) for i in range(5)]
    assert holm(p) == pytest.approx(closed)


def test_mcnemar_gives_agrestis_example() -> None:
    # Approval of the prime minister in two surveys of 1,600 (Agresti, "Categorical Data Analysis", table 10.1).
    first = [True] * 794 + [True] * 150 + [False] * 86 + [False] * 570
    second = [True] * 794 + [False] * 150 + [True] * 86 + [False] * 570
    result = mcnemar(first, second)
    assert (result.only_a, result.only_b) == (150, 86)
    assert result.p == pytest.approx(3.716e-05, abs=5e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (0, 5), (7, 7), (3, 12)])
def test_mcnemar_is_the_sum_of_binomials(only_a: int, only_b: int) -> None:
    n, smaller = only_a + only_b, min(only_a, only_b)
    tail = Fraction(sum(math.comb(n, i) for i in range(smaller + 1)), 2**n)
    a = [True] * only_a + [False] * only_b + [True, False]
    b = [False] * only_a + [True] * only_b + [True, False]
    assert mcnemar(a, b).p == pytest.approx(float(min(Fraction(1), 2 * tail)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summarize([]), "at least one number"),
        (lambda: summarize([0.1, math.nan]), "number 1 is nan"),
        (lambda: paired([0.1, 0.2], [0.1]), "2 values and 1 of the baseline"),
        (lambda: paired([0.1], [math.inf]), "baseline: number 0 is inf"),
        (lambda: sign_flip_p([math.nan]), "number 0 is nan"),
        (lambda: pooled([]), "no cell to pool"),
        (lambda: pooled([[0.1], []]), "at least one number"),
        (lambda: holm([0.5, 1.5]), "1.5 is not a p-value"),
        (lambda: holm([math.nan]), "nan is not a p-value"),
        (lambda: mcnemar([True], [True, False]), r"shapes \(1,\) and \(2,\)"),
    ],
)
def test_wrong_input_is_one_line(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
