"""The simulation of verdicts, in short: wrong ones are rare. Its long form fills docs/statistics.md."""

import math

import pytest

from scripts.operating_characteristics import CONTRADICTED, NONE, SUPPORTED, part, simulated, wrong
from srp_exp.studies.verdict import Outcome

COUNT = 400


@pytest.mark.parametrize("name", ["demo", "low_data_small_vs_large"])
def test_verdicts_are_seldom_wrong(name: str) -> None:
    assert wrong(name, COUNT) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / COUNT)


def test_looks_decide_where_one_would_not() -> None:
    null, effect = (simulated("low_data", gain, 2.0, 0.8, COUNT) for gain in (0.0, 1.0))
    assert part(null, NONE) > 0.85
    assert part(effect, SUPPORTED) > 0.9
    assert null.trained < 0.8 and effect.trained < 0.8
    assert math.isclose(sum(null.verdicts.values()), 1)


def test_a_missing_precondition_contradicts_nothing() -> None:
    """mixup costs accuracy here: not testable in nearly every study, and contradicted in none."""
    found = simulated("low_data_mixup", -2.0, -2.0, 1.25, COUNT)
    assert part(found, Outcome.not_testable) > 0.95
    assert part(found, CONTRADICTED, SUPPORTED) <= 0.05


def test_a_simulation_says_the_same_each_time() -> None:
    assert simulated("demo", 0.0, 2.0, 1.0, 50) == simulated("demo", 0.0, 2.0, 1.0, 50)
