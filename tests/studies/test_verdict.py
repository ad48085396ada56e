"""Verdicts on constructed data: the three outcomes of each expectation, and when data decide nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest

from srp_exp.config.study import Expectation
from srp_exp.studies.comparisons import CellResult, ComparisonResult, adjust
from srp_exp.studies.statistics import McNemar, paired, pooled, seeds_needed
from srp_exp.studies.verdict import Outcome, conclude, judge

BETTER, NOT_WORSE, EQUAL = Expectation.better, Expectation.not_worse, Expectation.equal
SUPPORTED, CONTRADICTED, UNDECIDED = Outcome.supported, Outcome.contradicted, Outcome.undecided

SPREAD = (-0.004, 0.003, -0.001, 0.004, -0.003, 0.001, 0.002, -0.002)
"""Eight deviations of mean 0: their standard deviation is 0.0029, the half-width of the interval 0.0025."""


def around(mean: float, n: int = 8, scale: float = 1.0) -> tuple[float, ...]:
    return tuple(mean + scale * deviation for deviation in SPREAD[:n])


def result_of(
    *cells: tuple[float, ...],
    expect: Expectation = BETTER,
    margin: float = 0.0,
    metric: str = "top1",
    higher_is_better: bool = True,
    unfinished: int = 0,
) -> ComparisonResult:
    """The comparison of srp with gap that has these differences in its cells."""
    of_cells = [
        CellResult(
            cell=(("place", str(place)),),
            seeds=tuple(range(len(cell))),
            differences=cell,
            paired=paired(cell, [0.0] * len(cell)) if cell else None,
            mcnemar=None,
            unfinished=unfinished,
        )
        for place, cell in enumerate(cells)
    ]
    measured = [cell for cell in cells if cell]
    total = pooled(measured) if measured else None
    result = ComparisonResult("srp", "gap", expect, margin, metric, higher_is_better, tuple(of_cells), total)
    return adjust([result])[0]


@pytest.mark.parametrize(
    ("expect", "margin", "mean", "outcome"),
    [
        (BETTER, 0.0, 0.01, SUPPORTED),
        (BETTER, 0.0, -0.01, CONTRADICTED),
        (BETTER, 0.0, 0.001, UNDECIDED),
        (BETTER, 0.005, 0.01, SUPPORTED),
        (BETTER, 0.01, 0.001, CONTRADICTED),  # not better by a point, though perhaps better
        (BETTER, 0.01, 0.011, UNDECIDED),
        (NOT_WORSE, 0.005, 0.0, SUPPORTED),
        (NOT_WORSE, 0.005, 0.02, SUPPORTED),
        (NOT_WORSE, 0.005, -0.01, CONTRADICTED),
        (NOT_WORSE, 0.005, -0.004, UNDECIDED),
        (NOT_WORSE, 0.0, 0.001, UNDECIDED),
        (EQUAL, 0.005, 0.0, SUPPORTED),
        (EQUAL, 0.005, 0.01, CONTRADICTED),
        (EQUAL, 0.005, -0.01, CONTRADICTED),
        (EQUAL, 0.005, 0.004, UNDECIDED),
        (EQUAL, 0.005, -0.006, UNDECIDED),
        (EQUAL, 0.0, 0.01, CONTRADICTED),
        (EQUAL, 0.0, 0.0001, UNDECIDED),
    ],
)
def test_each_expectation_has_three_outcomes(expect: Expectation, margin: float, mean: float, outcome: Outcome) -> None:
    verdict = judge(result_of(around(mean), expect=expect, margin=margin))
    assert verdict.outcome == outcome
    assert (verdict.seeds is None) == (outcome != UNDECIDED)
    mirrored = result_of(around(-mean, scale=-1), expect=expect, margin=margin, metric="loss", higher_is_better=False)
    assert judge(mirrored).outcome == outcome


def test_the_reason_has_the_numbers() -> None:
    verdict = judge(result_of(around(0.01), around(0.02)))
    # sd 0.0029277 in both cells; 14 degrees of freedom: 2.14479 * 0.0029277 / 4 = 0.00157
    assert verdict.reason == (
        "srp, expected better than gap in top1: +1.50 points, 95 % interval [+1.34, +1.66], p = 3.1e-05, "
        "16 pairs over 2 cells."
    )


def test_an_undecided_reason_names_the_seeds() -> None:
    verdict = judge(result_of(around(0.001)))
    # Effect 0.001 / 0.0029277 = 0.3416: a paired t-test needs 70 (G*Power).
    assert verdict.seeds == 70
    assert verdict.reason.endswith("About 70 seeds per cell would decide (power 80 %).")


def test_five_seeds_cannot_decide_alone() -> None:
    # The t-interval is far above 0, but 5 of 5 heads have p = 2 / 32.
    verdict = judge(result_of(around(0.05, n=5)))
    assert (verdict.outcome, verdict.seeds) == (UNDECIDED, 6)
    assert judge(result_of(around(0.05, n=6))).outcome == SUPPORTED
    assert judge(result_of(around(0.05, n=3), around(0.05, n=3))).outcome == SUPPORTED


def test_seeds_are_more_than_there_are() -> None:
    # The t-test would be sure with six, but in six pairs one small loss leaves the sign flips at 4 / 64.
    verdict = judge(result_of((0.01, 0.01, 0.01, 0.01, 0.01, -0.0001)))
    assert (verdict.outcome, verdict.seeds) == (UNDECIDED, 7)


def test_seeds_against_a_claim_count_its_comparisons() -> None:
    sd = float(np.std(SPREAD, ddof=1))
    against, towards = result_of(around(-0.001)), result_of(around(0.001))
    assert judge(against).seeds == judge(towards, comparisons=5).seeds == 70
    assert judge(against, comparisons=5).seeds == seeds_needed(0.001, sd, comparisons=5)


def test_seeds_for_equality_meet_both_bounds() -> None:
    sd = float(np.std(SPREAD, ddof=1))
    between, beyond = (judge(result_of(around(mean), expect=EQUAL, margin=0.005)) for mean in (0.004, 0.006))
    assert between.seeds == seeds_needed(0.001, sd, power=0.9)
    assert beyond.seeds == 70


@pytest.mark.parametrize("apart", [0.0, 0.003])
def test_the_named_seeds_decide(apart: float) -> None:
    means = np.array([[0.0025 + apart], [0.0025 - apart]])
    verdict = judge(result_of(*(around(mean, n=4) for mean in means[:, 0])))
    assert verdict.outcome == UNDECIDED and verdict.seeds is not None
    source, rounds = np.random.default_rng(1), 100
    sd = np.std(SPREAD[:4], ddof=1)
    draws = means + np.mean(SPREAD[:4]) + sd * source.standard_normal((rounds, 2, verdict.seeds))
    supported = sum(judge(result_of(*map(tuple, draw.tolist()))).outcome == SUPPORTED for draw in draws)
    assert supported / rounds >= 0.8 - 4 * math.sqrt(0.8 * 0.2 / rounds)


def test_no_difference_is_seldom_called_one() -> None:
    source, rounds = np.random.default_rng(2), 300
    outcomes = [judge(result_of(*map(tuple, source.standard_normal((2, 4)).tolist()))).outcome for _ in range(rounds)]
    bound = 0.025 + 4 * math.sqrt(0.025 * 0.975 / rounds)
    assert outcomes.count(SUPPORTED) / rounds <= bound
    assert outcomes.count(CONTRADICTED) / rounds <= bound


def test_a_significantly_opposite_cell_stops_support() -> None:
    good, bad = [around(0.05) for _ in range(3)], around(-0.01)
    verdict = judge(result_of(*good, bad))
    assert (verdict.outcome, verdict.seeds) == (UNDECIDED, None)
    assert "comes out otherwise in place=3 " in verdict.reason
    assert judge(result_of(*good, around(-0.001))).outcome == SUPPORTED
    # The same cell is no objection where the margin allows it.
    assert judge(result_of(*good, bad, expect=NOT_WORSE, margin=0.02)).outcome == SUPPORTED
    assert judge(result_of(*good, bad, expect=NOT_WORSE, margin=0.005)).outcome == UNDECIDED


def test_a_gain_below_the_margin_is_no_objection() -> None:
    assert judge(result_of(*[around(0.05)] * 3, around(0.003), margin=0.005)).outcome == SUPPORTED


def test_one_pair_of_networks_is_no_objection() -> None:
    result = result_of(around(0.05), around(0.05), (-0.01,))
    *cells, single = result.cells
    tested = replace(result, cells=(*cells, replace(single, mcnemar=McNemar(20, 70, 1e-7))))
    (tested,) = adjust([tested])
    assert tested.cells[2].adjusted == pytest.approx(3e-7)
    assert judge(tested).outcome == SUPPORTED


def test_equal_on_the_mean_is_not_equal_where_cells_differ() -> None:
    verdict = judge(result_of(around(0.02), around(-0.02), expect=EQUAL, margin=0.005))
    assert verdict.outcome == UNDECIDED and "otherwise in place=0; place=1 " in verdict.reason
    verdict = judge(result_of(*[around(0.0)] * 4, around(0.012), expect=EQUAL, margin=0.006))
    assert verdict.outcome == UNDECIDED and "otherwise in place=4 " in verdict.reason


def test_equal_differences_decide_no_sooner() -> None:
    # Two seeds with the same difference by chance: an interval without width is no evidence.
    assert judge(result_of((0.001, 0.001))).outcome == UNDECIDED
    assert judge(result_of((0.0, 0.0), expect=EQUAL, margin=0.01)).outcome == UNDECIDED
    assert judge(result_of((0.0,) * 6, expect=EQUAL, margin=0.01)).outcome == SUPPORTED


def test_on_the_threshold_no_number_of_seeds_decides() -> None:
    verdict = judge(result_of((0.0, 0.0, 0.0)))
    assert (verdict.outcome, verdict.seeds) == (UNDECIDED, None)
    assert "no feasible number of seeds" in verdict.reason


@pytest.mark.parametrize(
    ("expect", "margin", "difference", "outcome"),
    [
        (EQUAL, 0, 0, SUPPORTED),
        (EQUAL, 0, 1, CONTRADICTED),
        (EQUAL, 10, -10, SUPPORTED),
        (BETTER, 0, 0, CONTRADICTED),
        (BETTER, 0, 5, SUPPORTED),
        (NOT_WORSE, 3, -3, SUPPORTED),
        (NOT_WORSE, 3, -4, CONTRADICTED),
    ],
)
def test_what_no_seed_changes_needs_no_seeds(
    expect: Expectation, margin: float, difference: int, outcome: Outcome
) -> None:
    for cells in ([(difference,)], [(difference,) * 3, (difference,)]):
        verdict = judge(result_of(*cells, expect=expect, margin=margin, metric="parameters"))
        assert (verdict.outcome, verdict.seeds) == (outcome, None)
        assert f" {difference:+}, whatever the seed." in verdict.reason


def test_every_cell_counts_for_what_no_seed_changes() -> None:
    verdict = judge(result_of((0, 0), (72, 72), expect=EQUAL, metric="cost.macs"))
    assert verdict.outcome == CONTRADICTED and " +0 to +72, " in verdict.reason


def test_parameters_that_seeds_do_change_are_judged_like_the_rest() -> None:
    assert judge(result_of((0.0, 5.0), expect=EQUAL, metric="parameters")).outcome == UNDECIDED


def test_one_seed_decides_nothing() -> None:
    one = result_of((0.05,))
    (cell,) = one.cells
    tested = replace(one, cells=(replace(cell, mcnemar=McNemar(70, 20, 1e-7)),))
    verdict = judge(tested)
    assert (verdict.outcome, verdict.seeds) == (UNDECIDED, 6)
    assert "+5.00 points, 1 pair." in verdict.reason
    assert "two trained networks (McNemar on their predictions: p = 1e-07), not the methods" in verdict.reason
    assert "McNemar" not in judge(one).reason
    many = judge(result_of(*[(0.05,)] * 8))
    assert (many.outcome, many.seeds) == (UNDECIDED, 2)


def test_no_pair_decides_nothing() -> None:
    verdict = judge(result_of((), (), unfinished=3))
    assert (verdict.outcome, verdict.seeds, verdict.preliminary) == (UNDECIDED, 3, True)
    assert "no seed has finished for both" in verdict.reason


def test_missing_runs_make_a_verdict_preliminary() -> None:
    verdict = judge(result_of(around(0.01), unfinished=1))
    assert (verdict.outcome, verdict.preliminary) == (SUPPORTED, True)
    assert verdict.reason.endswith("Preliminary: 1 planned run has no value yet.")
    assert not judge(result_of(around(0.01))).preliminary


def test_a_contradiction_must_hold_among_all_comparisons() -> None:
    # The interval excludes 0 at 95 %, not at 99 %; of five comparisons one such is no surprise.
    doubtful = result_of(around(-0.003))
    assert judge(doubtful).outcome == CONTRADICTED
    assert judge(doubtful, comparisons=5).outcome == UNDECIDED
    assert judge(result_of(around(-0.01, n=6)), comparisons=2).outcome == UNDECIDED  # six flips reach 0.031 > 0.025
    assert judge(result_of(around(-0.01)), comparisons=5).outcome == CONTRADICTED
    assert judge(result_of(around(0.003)), comparisons=5).outcome == SUPPORTED


YES, NO, PERHAPS = result_of(around(0.01)), result_of(around(-0.01)), result_of(around(0.001))


@pytest.mark.parametrize(
    ("results", "outcome", "reason"),
    [
        ([YES, YES], SUPPORTED, "All 2 comparisons are supported."),
        ([YES, NO, PERHAPS], CONTRADICTED, "1 of 3 comparisons contradicted. srp, expected"),
        ([PERHAPS, YES, PERHAPS], UNDECIDED, "2 of 3 comparisons undecided. srp, expected"),
        ([YES], SUPPORTED, "srp, expected better than gap in top1: +1.00 points"),
        ([], UNDECIDED, "The study names no comparison"),
    ],
)
def test_a_claim_is_all_its_comparisons(results: list[ComparisonResult], outcome: Outcome, reason: str) -> None:
    verdict = conclude(results)
    assert verdict.outcome == outcome
    assert verdict.reason.startswith(reason)
    assert "\n" not in verdict.reason


def test_a_claim_needs_the_most_seeds_of_its_comparisons() -> None:
    assert conclude([PERHAPS, YES, result_of(around(0.0024))]).seeds == 70
    on_the_threshold = result_of((0.0, 0.0, 0.0))
    assert conclude([PERHAPS, on_the_threshold]).seeds is None


def test_a_claim_is_preliminary_if_a_comparison_is() -> None:
    assert conclude([YES, result_of(around(0.01), unfinished=2)]).preliminary
    assert not conclude([YES, YES]).preliminary
