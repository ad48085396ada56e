"""The simulation of verdicts, in short: wrong ones are rare. Its long form fills docs/statistics.md."""

import math

import pytest

from scripts.operating_characteristics import simulate
from srp_exp.studies.verdict import Outcome

COUNT = 400
BOUND = 0.05 + 4 * math.sqrt(0.05 * 0.95 / COUNT)


@pytest.mark.parametrize("name", ["demo", "small_vs_large_quick", "diversity_quick"])
def test_verdicts_are_seldom_wrong(name: str) -> None:
    null, effect = (simulate(name, scenario, COUNT) for scenario in ("null", "effect"))
    assert null[Outcome.supported] + null[Outcome.contradicted] <= BOUND
    assert effect[Outcome.contradicted] + effect[Outcome.no_relevant_difference] <= BOUND
    assert effect[Outcome.supported] > null[Outcome.supported]
    assert null[Outcome.no_relevant_difference] > 0
    assert math.isclose(sum(null.values()), 1)


def test_a_simulation_says_the_same_each_time() -> None:
    assert simulate("demo", "null", 50) == simulate("demo", "null", 50)
