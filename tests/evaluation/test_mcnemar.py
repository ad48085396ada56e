"""McNemar's exact test against a worked example and the binomial distribution."""

import math
from fractions import Fraction

import pytest

from srp_exp.evaluation.mcnemar import mcnemar


def test_mcnemar_gives_agrestis_example() -> None:
    # Approval of the prime minister in two surveys of 1,600 (Agresti, "Categorical Data Analysis", table 10.1).
    first = [True] * 794 + [True] * 150 + [False] * 86 + [False] * 570
    second = [True] * 794 + [False] * 150 + [True] * 86 + [False] * 570
    result = mcnemar(first, second)
    assert (result.only_a, result.only_b) == (150, 86)
    assert result.p == pytest.approx(3.716e-05, abs=5e-9)


RIGHT_ALONE = [(0, 0), (1, 0), (0, 5), (7, 7), (3, 12)]


def test_mcnemar_is_the_sum_of_binomials() -> None:
    for only_a, only_b in RIGHT_ALONE:
        n, smaller = only_a + only_b, min(only_a, only_b)
        tail = Fraction(sum(math.comb(n, i) for i in range(smaller + 1)), 2**n)
        a = [True] * only_a + [False] * only_b + [True, False]
        b = [False] * only_a + [True] * only_b + [True, False]
        assert mcnemar(a, b).p == pytest.approx(float(min(Fraction(1), 2 * tail)))


def test_answers_about_other_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(2,\)"):
        mcnemar([True], [True, False])
