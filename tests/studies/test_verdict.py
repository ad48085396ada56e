"""Verdicts on constructed data: every outcome of every expectation, how statements join, and how often they err."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from srp_exp.config.study import Expectation
from srp_exp.studies.measured import Measured, describe, measure, needed
from srp_exp.studies.pairs import Statement
from srp_exp.studies.statistics import seeds_needed
from srp_exp.studies.verdict import Outcome, Verdict, conclude, decide, join, judge

BETTER, NOT_WORSE, EQUAL = Expectation.better, Expectation.not_worse, Expectation.equal
SUPPORTED, CONTRADICTED, UNDECIDED = Outcome.supported, Outcome.contradicted, Outcome.undecided
NONE = Outcome.no_relevant_difference

SPREAD = (-0.004, 0.003, -0.001, 0.004, -0.003, 0.001, 0.002, -0.002)
"""Eight deviations of mean 0: their standard deviation is 0.0029, the half-width of the interval 0.0025."""


def around(mean: float, n: int = 8, scale: float = 1.0) -> tuple[float, ...]:
    return tuple(mean + scale * deviation for deviation in SPREAD[:n])


def run(value: Any, name: str) -> Any:
    return SimpleNamespace(folder=Path(name), is_finished=value is not None, value=lambda metric: value)


def statement(
    *cells: Sequence[Any],
    expect: Expectation = BETTER,
    smallest: float = 0.005,
    metric: str = "top1",
    higher_is_better: bool = True,
    where: str = "",
    either: str = "",
) -> Statement:
    """That srp compares so with gap, which has 0 everywhere; None is a run that isn't finished."""
    pairs = {
        (("place", str(place)),): {
            seed: (run(value, f"srp{where}{place}-{seed}"), run(0.0, f"gap{where}{place}-{seed}"))
            for seed, value in enumerate(of_cell)
        }
        for place, of_cell in enumerate(cells)
    }
    at = (("dataset", where),) if where else ()
    return Statement("srp", "gap", (), expect, either, smallest, "why", metric, higher_is_better, at, pairs)


def measured(*cells: Sequence[Any], **options: Any) -> Measured:
    (found,) = measure([statement(*cells, **options)])
    return found


def verdict(*cells: Sequence[Any], **options: Any) -> Verdict:
    return judge(measured(*cells, **options))


@pytest.mark.parametrize(
    ("expect", "smallest", "mean", "outcome"),
    [
        (BETTER, 0.005, 0.01, SUPPORTED),
        (BETTER, 0.005, -0.01, CONTRADICTED),
        (BETTER, 0.005, 0.0, NONE),
        (BETTER, 0.005, 0.002, NONE),
        (BETTER, 0.005, -0.002, NONE),
        (BETTER, 0.002, 0.001, UNDECIDED),
        (BETTER, 0.005, 0.003, SUPPORTED),  # above 0, and 0.5 points not excluded
        (BETTER, 0.01, 0.004, NONE),  # above 0, but not by what matters
        (BETTER, 0.01, -0.004, NONE),
        (NOT_WORSE, 0.005, 0.0, SUPPORTED),
        (NOT_WORSE, 0.005, 0.02, SUPPORTED),
        (NOT_WORSE, 0.005, -0.01, CONTRADICTED),
        (NOT_WORSE, 0.005, -0.004, UNDECIDED),
        (EQUAL, 0.005, 0.0, SUPPORTED),
        (EQUAL, 0.005, 0.01, CONTRADICTED),
        (EQUAL, 0.005, -0.01, CONTRADICTED),
        (EQUAL, 0.005, 0.004, UNDECIDED),
        (EQUAL, 0.005, -0.006, UNDECIDED),
    ],
)
def test_every_outcome_of_every_expectation(
    expect: Expectation, smallest: float, mean: float, outcome: Outcome
) -> None:
    assert verdict(around(mean), expect=expect, smallest=smallest).outcome == outcome
    lower = {"expect": expect, "smallest": smallest, "metric": "loss", "higher_is_better": False}
    mirrored = verdict(around(-mean, scale=-1), **lower)
    assert mirrored.outcome == outcome
    assert (mirrored.seeds is None) == (outcome != UNDECIDED)


def test_two_hundred_pairs_about_zero_are_no_relevant_difference() -> None:
    source = np.random.default_rng(0)
    differences = source.standard_normal(200) * 0.002
    differences -= differences.mean()
    assert np.abs(differences.std() * 1.96 / math.sqrt(200)) < 0.0003
    assert verdict(differences.tolist(), smallest=0.002).outcome == NONE


def test_a_wide_interval_about_zero_names_the_seeds_that_decide() -> None:
    found = measured((0.02, -0.02, 0.001, -0.001, 0.01, -0.01), smallest=0.005)
    wide = judge(found)
    assert wide.outcome == UNDECIDED
    assert wide.seeds == seeds_needed(0.005, float(np.std(found.groups[0], ddof=1)), 1, 0.05, 0.9)
    assert f"About {wide.seeds} seeds per cell decide" in wide.reason


@pytest.mark.parametrize("truth", [0.0, 0.005])
def test_the_named_seeds_decide(truth: float) -> None:
    found = measured((0.02, -0.02, 0.001, -0.001, 0.01, -0.01), smallest=0.005)
    sd, seeds, rounds = np.std(found.groups[0], ddof=1), needed(found), 500
    assert seeds is not None
    draws = truth + sd * np.random.default_rng(1).standard_normal((rounds, seeds))
    expected = SUPPORTED if truth else NONE
    right = (decide(replace(found, groups=[draws])) == expected).mean()
    assert right >= 0.8 - 4 * math.sqrt(0.8 * 0.2 / rounds)


def test_the_reason_has_the_numbers() -> None:
    # sd 0.0029277 in both cells; 14 degrees of freedom: 2.14479 * 0.0029277 / 4 = 0.00157; 2 / 2^16 sign flips
    assert verdict(around(0.01), around(0.02)).reason == (
        "srp against gap: better in top1: +1.50 points, 95 % interval [+1.34, +1.66], p = 3.1e-05, "
        "16 pairs over 2 cells, cells from +1.00 to +2.00 (p = 8.2e-06 that they are alike)."
    )


def test_p_is_about_the_hypothesis_of_the_row() -> None:
    behind = measured(around(-0.001), expect=NOT_WORSE, smallest=0.01)
    assert behind.p is not None and behind.p == pytest.approx(2 / 2**8)  # of "0.01 behind", not of "no difference"
    assert judge(behind).outcome == SUPPORTED
    level = measured(around(0.0), expect=EQUAL, smallest=0.01)
    assert level.p == pytest.approx(2 / 2**8)


def test_five_seeds_cannot_decide_alone() -> None:
    # The t-interval is far above 0, but 5 of 5 heads have p = 2 / 32.
    assert verdict(around(0.05, n=5)).outcome == UNDECIDED
    assert verdict(around(0.05, n=6)).outcome == SUPPORTED
    assert verdict(around(0.05, n=3), around(0.05, n=3)).outcome == SUPPORTED


@pytest.mark.parametrize(("sign", "outcome"), [(1, SUPPORTED), (-1, CONTRADICTED)])
def test_a_cell_that_comes_out_otherwise_stops_a_verdict(sign: int, outcome: Outcome) -> None:
    good, bad = [around(sign * 0.05) for _ in range(3)], around(sign * -0.01)
    stopped = verdict(*good, bad)
    assert (stopped.outcome, stopped.seeds) == (UNDECIDED, None)
    assert "A cell comes out otherwise" in stopped.reason
    assert verdict(*good, around(sign * -0.001)).outcome == outcome


def test_a_loss_in_one_data_set_is_no_support_for_both() -> None:
    """Row 1: CIFAR-10 lost in all 15 pairs, CIFAR-100 gained a point."""
    lost = statement(*[around(-0.01, n=5)] * 3, where="cifar10")
    gained = statement(*[around(0.01, n=5)] * 3, where="cifar100")
    found = measure([lost, gained])
    verdicts = [judge(of) for of in found]
    assert [v.outcome for v in verdicts] == [CONTRADICTED, SUPPORTED]
    claim = conclude(found, verdicts)
    assert claim.outcome == CONTRADICTED
    assert claim.reason.startswith("1 of 2 statements contradicted. srp against gap at dataset=cifar10: better")


@pytest.mark.parametrize(
    ("outcomes", "all_of_them", "one_of_them"),
    [
        ([SUPPORTED, SUPPORTED], SUPPORTED, SUPPORTED),
        ([SUPPORTED, UNDECIDED], UNDECIDED, SUPPORTED),
        ([SUPPORTED, NONE], NONE, SUPPORTED),
        ([UNDECIDED, NONE], NONE, UNDECIDED),  # whatever the first turns out to be, the second doesn't hold
        ([CONTRADICTED, NONE], CONTRADICTED, NONE),
        ([CONTRADICTED, UNDECIDED], CONTRADICTED, UNDECIDED),
        ([CONTRADICTED, SUPPORTED], CONTRADICTED, SUPPORTED),
        ([CONTRADICTED, CONTRADICTED], CONTRADICTED, CONTRADICTED),
    ],
)
def test_and_takes_the_least_and_or_the_greatest(
    outcomes: list[Outcome], all_of_them: Outcome, one_of_them: Outcome
) -> None:
    for either, expected in (("", all_of_them), ("wider", one_of_them)):
        statements = [statement(around(0.0), either=either) for _ in outcomes]
        assert join(statements, outcomes) == expected
        assert join(statements[::-1], outcomes[::-1]) == expected
    places = [statement(around(0.0), either="wider", where=str(number)) for number, _ in enumerate(outcomes)]
    assert join(places, outcomes) == all_of_them  # an alternative is one of the same place


def test_the_levels_count_statements_and_alternatives() -> None:
    doubtful = around(-0.0027, n=8)  # p = 0.034
    assert verdict(doubtful, smallest=0.002).outcome == CONTRADICTED
    two = measure([statement(doubtful, smallest=0.002), statement(around(0.01))])
    assert judge(two[0]).outcome == UNDECIDED  # refuting one of two takes 0.025
    up = around(0.0027, n=8)
    assert judge(measure([statement(up, smallest=0.002), statement(around(0.01))])[0]).outcome == SUPPORTED
    either = measure([statement(up, smallest=0.002, either="e"), statement(around(0.01), either="e")])
    assert judge(either[0]).outcome == UNDECIDED  # one of two alternatives takes 0.025
    assert either[0].levels.refute == 0.05


def test_one_seed_decides_nothing() -> None:
    one = verdict((0.05,))
    assert (one.outcome, one.seeds) == (UNDECIDED, None)
    assert "+5.00 points, 1 pair. One seed compares two trainings, not two methods." in one.reason
    assert verdict(*[(0.05,)] * 8).outcome == UNDECIDED


def test_no_pair_decides_nothing() -> None:
    none = verdict((None, None), (None,))
    assert (none.outcome, none.preliminary) == (UNDECIDED, True)
    assert "no seed has finished for both" in none.reason


def test_missing_runs_make_a_verdict_preliminary() -> None:
    partial = verdict((*around(0.01), None))
    assert (partial.outcome, partial.preliminary) == (SUPPORTED, True)
    assert not verdict(around(0.01)).preliminary


@pytest.mark.parametrize(
    ("expect", "difference", "outcome"),
    [
        (EQUAL, 0.0, SUPPORTED), (EQUAL, 72.0, CONTRADICTED),
        (NOT_WORSE, 0.0, SUPPORTED), (NOT_WORSE, -72.0, SUPPORTED), (NOT_WORSE, 72.0, CONTRADICTED),
        (BETTER, -72.0, SUPPORTED), (BETTER, 0.0, CONTRADICTED),
    ],
)  # fmt: skip
def test_one_run_decides_about_what_no_seed_changes(expect: Expectation, difference: float, outcome: Outcome) -> None:
    options = {"expect": expect, "metric": "cost.macs", "higher_is_better": False, "smallest": 0.0}
    found = verdict((difference,), (difference,), **options)
    assert (found.outcome, found.seeds) == (outcome, None)
    assert f" {difference:+,.0f}, whatever the seed." in found.reason
    assert verdict((0.0,), (72.0,), **{**options, "expect": EQUAL}).outcome == CONTRADICTED


def test_structure_takes_no_part_in_the_levels() -> None:
    found = measure([statement((0.0,), metric="parameters", expect=EQUAL), statement(around(0.0))])
    assert found[1].levels.refute == 0.05


def test_a_claim_is_preliminary_if_a_statement_is_and_needs_the_most_seeds() -> None:
    found = measure(
        [statement(around(0.001), smallest=0.002), statement((*around(0.001, scale=2), None), smallest=0.002)]
    )
    verdicts = [judge(of) for of in found]
    claim = conclude(found, verdicts)
    assert (claim.outcome, claim.preliminary) == (UNDECIDED, True)
    assert claim.seeds == max(v.seeds or 0 for v in verdicts)
    assert conclude([], []).outcome == UNDECIDED


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "srp against gap: better in top1"),
        ({"expect": NOT_WORSE}, "srp against gap: worse by less than 0.50 points in top1"),
        ({"expect": EQUAL, "metric": "parameters", "smallest": 0.0}, "srp against gap: equal in parameters"),
        ({"where": "cars"}, "srp against gap at dataset=cars: better in top1"),
    ],
)
def test_statements_in_words(options: dict[str, Any], words: str) -> None:
    assert describe(measured((0.01,), **options)) == words


@pytest.mark.parametrize("expect", [BETTER, NOT_WORSE, EQUAL])
def test_verdicts_err_in_five_percent_at_most(expect: Expectation) -> None:
    """At the least favourable truth, on the bound, a statement is seldom shown or refuted."""
    found = measured(around(0.0, n=5), around(0.0, n=5), expect=expect)
    truth, rounds = (0.0 if expect == BETTER else -0.005), 3000
    draws = np.random.default_rng(2).standard_normal((2, rounds, 5)) * 0.004 + truth
    outcomes = decide(replace(found, groups=list(draws)))
    bound = 0.025 + 4 * math.sqrt(0.025 * 0.975 / rounds)
    assert (outcomes == SUPPORTED).mean() <= bound
    assert (outcomes == CONTRADICTED).mean() <= bound
