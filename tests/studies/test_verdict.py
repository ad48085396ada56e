"""Verdicts on constructed data: every outcome of every expectation, how statements join, and how often they err."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from srp_exp.config.schemas.study import Expectation, Role
from srp_exp.runs.folder.store import State
from srp_exp.studies.measured import Measured, describe, measure_statements
from srp_exp.studies.pairs import Statement
from srp_exp.studies.verdict import Outcome, Verdict, conclude, decide, join, judge, walk_looks

BETTER, NOT_WORSE, EQUAL = Expectation.better, Expectation.not_worse, Expectation.equal
SUPPORTED, CONTRADICTED, UNDECIDED = Outcome.supported, Outcome.contradicted, Outcome.undecided
NONE, NOT_TESTABLE = Outcome.no_relevant_difference, Outcome.not_testable

SPREAD = (-0.004, 0.003, -0.001, 0.004, -0.003, 0.001, 0.002, -0.002)
"""Eight deviations of mean 0: their standard deviation is 0.0029, the half-width of the interval 0.0025."""


def around(mean: float, n: int = 8, scale: float = 1.0) -> tuple[float, ...]:
    return tuple(mean + scale * deviation for deviation in SPREAD[:n])


def run(value: Any, name: str) -> Any:
    state = State.new if value is None else State.finished
    return SimpleNamespace(folder=Path(name), is_finished=value is not None, state=state, value=lambda metric: value)


def statement(
    *cells: Sequence[Any],
    expect: Expectation = BETTER,
    smallest: float = 0.005,
    metric: str = "top1",
    higher_is_better: bool = True,
    where: str = "",
    either: str = "",
    role: str = "claim",
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
    return Statement(
        "srp", "gap", (), expect, Role(role), either, smallest, "why", metric, higher_is_better, at, pairs
    )  # fmt: skip


def measured(*cells: Sequence[Any], **options: Any) -> Measured:
    (found,) = measured_all(statement(*cells, **options))
    return found


def measured_all(*statements: Statement) -> list[Measured]:
    (at_the_only_look,) = measure_statements(statements)
    return at_the_only_look


def verdict(*cells: Sequence[Any], **options: Any) -> Verdict:
    return judged(measured(*cells, **options))


def judged(found: Measured) -> Verdict:
    return judge(found, Outcome(int(decide(found))))


OUTCOMES = [
    (BETTER, 0.005, 0.01, SUPPORTED),
    (BETTER, 0.005, -0.01, CONTRADICTED),
    (BETTER, 0.005, 0.002, NONE),
    (BETTER, 0.002, 0.001, UNDECIDED),
    (BETTER, 0.005, 0.003, SUPPORTED),  # above 0, and 0.5 points not excluded
    (BETTER, 0.01, 0.004, NONE),  # above 0, but not by what matters
    (BETTER, 0.01, -0.004, NONE),
    (NOT_WORSE, 0.005, 0.0, SUPPORTED),
    (NOT_WORSE, 0.005, -0.01, CONTRADICTED),
    (NOT_WORSE, 0.005, -0.004, UNDECIDED),
    (EQUAL, 0.005, 0.0, SUPPORTED),
    (EQUAL, 0.005, 0.01, CONTRADICTED),
    (EQUAL, 0.005, -0.01, CONTRADICTED),
    (EQUAL, 0.005, -0.006, UNDECIDED),
]


def test_every_outcome_of_every_expectation() -> None:
    for expect, smallest, mean, outcome in OUTCOMES:
        assert verdict(around(mean), expect=expect, smallest=smallest).outcome == outcome
        lower = {"expect": expect, "smallest": smallest, "metric": "loss", "higher_is_better": False}
        mirrored = verdict(around(-mean, scale=-1), **lower)
        assert mirrored.outcome == outcome


def test_two_hundred_pairs_about_zero_are_no_relevant_difference() -> None:
    source = np.random.default_rng(0)
    differences = source.standard_normal(200) * 0.002
    differences -= differences.mean()
    assert np.abs(differences.std() * 1.96 / math.sqrt(200)) < 0.0003
    assert verdict(differences.tolist(), smallest=0.002).outcome == NONE


def test_more_seeds_are_a_second_look_and_with_looks_the_next_one() -> None:
    found = measured((0.02, -0.02, 0.001, -0.001, 0.01, -0.01), smallest=0.005)
    assert "More seeds are a second look, which errs more often than 5 %" in judge(found, UNDECIDED).reason
    assert "look 1 of 2. Run the same command for the next look" in judge(found, UNDECIDED, "look 1 of 2").reason


def test_the_reason_has_the_numbers() -> None:
    # sd 0.0029277 in both cells; 14 degrees of freedom: 2.14479 * 0.0029277 / 4 = 0.00157, t = 20.5; 2 / 2^16
    assert verdict(around(0.01), around(0.02)).reason == (
        "srp against gap: better in top1: +1.50 points, 95 % interval [+1.34, +1.66], p = 7.7e-12 "
        "(sign flips 3.1e-05), 16 pairs over 2 cells, cells from +1.00 to +2.00."
    )


def test_p_is_about_the_hypothesis_of_the_row() -> None:
    behind = measured(around(-0.001), expect=NOT_WORSE, smallest=0.01)
    assert behind.p == pytest.approx(stats.ttest_1samp(around(-0.001), -0.01).pvalue)  # not of "no difference"
    assert behind.p_flips == 2 / 2**8
    assert judged(behind).outcome == SUPPORTED
    level = measured(around(0.002), expect=EQUAL, smallest=0.01)
    assert level.p == pytest.approx(stats.ttest_1samp(around(0.002), 0.01).pvalue)  # the larger of two


def test_t_decides_and_three_pairs_decide_nothing() -> None:
    """One failed run of seven leaves a study decidable: six pairs of equal sign have p = 0.031 of the flips alone."""
    assert verdict(around(0.05, n=3)).outcome == UNDECIDED
    four = verdict(around(0.05, n=4))
    assert four.outcome == SUPPORTED
    assert "(sign flips 0.12)" in four.reason  # which would need six
    assert verdict(around(0.05, n=2), around(0.05, n=2)).outcome == SUPPORTED


@pytest.mark.parametrize(("sign", "outcome"), [(1, SUPPORTED), (-1, CONTRADICTED)])
def test_a_cell_that_comes_out_otherwise_stops_a_verdict(sign: int, outcome: Outcome) -> None:
    good, bad = [around(sign * 0.05) for _ in range(3)], around(sign * -0.01)
    stopped = verdict(*good, bad)
    assert stopped.outcome == UNDECIDED
    assert "A cell comes out otherwise" in stopped.reason
    assert verdict(*good, around(sign * -0.001)).outcome == outcome


def test_a_loss_in_one_data_set_is_no_support_for_both() -> None:
    """Row 1: CIFAR-10 lost in all 15 pairs, CIFAR-100 gained a point."""
    lost = statement(*[around(-0.01, n=5)] * 3, where="cifar10")
    gained = statement(*[around(0.01, n=5)] * 3, where="cifar100")
    found = measured_all(lost, gained)
    verdicts = [judged(of) for of in found]
    assert [v.outcome for v in verdicts] == [CONTRADICTED, SUPPORTED]
    claim = conclude(found, verdicts)
    assert claim.outcome == CONTRADICTED
    assert claim.reason.startswith("1 of 2 statements refuted. srp against gap at dataset=cifar10: better")


JOINED = [
    ([SUPPORTED, SUPPORTED], SUPPORTED, SUPPORTED),
    ([SUPPORTED, UNDECIDED], UNDECIDED, SUPPORTED),
    ([SUPPORTED, NONE], NONE, SUPPORTED),
    ([UNDECIDED, NONE], NONE, UNDECIDED),  # whatever the first turns out to be, the second doesn't hold
    ([CONTRADICTED, NONE], CONTRADICTED, NONE),
    ([CONTRADICTED, UNDECIDED], CONTRADICTED, UNDECIDED),
    ([CONTRADICTED, SUPPORTED], CONTRADICTED, SUPPORTED),
    ([CONTRADICTED, CONTRADICTED], CONTRADICTED, CONTRADICTED),
]
"""The outcomes of two statements, and what they come to where both are claimed and where either is."""


def test_and_takes_the_least_and_or_the_greatest() -> None:
    for outcomes, both, one in JOINED:
        for either, expected in (("", both), ("wider", one)):
            statements = [statement(around(0.0), either=either) for _ in outcomes]
            assert join(statements, outcomes) == expected, outcomes
            assert join(statements[::-1], outcomes[::-1]) == expected, outcomes
        places = [statement(around(0.0), either="wider", where=str(number)) for number, _ in enumerate(outcomes)]
        assert join(places, outcomes) == both  # an alternative is one of the same place


def test_the_levels_count_statements_and_alternatives() -> None:
    doubtful = around(-0.0027, n=8)  # p = 0.034
    assert verdict(doubtful, smallest=0.002).outcome == CONTRADICTED
    two = measured_all(statement(doubtful, smallest=0.002), statement(around(0.01)))
    assert judged(two[0]).outcome == UNDECIDED  # refuting one of two takes 0.025
    up = around(0.0027, n=8)
    assert judged(measured_all(statement(up, smallest=0.002), statement(around(0.01)))[0]).outcome == SUPPORTED
    either = measured_all(statement(up, smallest=0.002, either="e"), statement(around(0.01), either="e"))
    assert judged(either[0]).outcome == UNDECIDED  # one of two alternatives takes 0.025
    assert either[0].levels.refute == 0.05


def test_one_seed_decides_nothing() -> None:
    one = verdict((0.05,))
    assert one.outcome == UNDECIDED
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


WITHOUT_CHANCE = [
        (EQUAL, 0.0, SUPPORTED), (NOT_WORSE, -72.0, SUPPORTED), (NOT_WORSE, 72.0, CONTRADICTED),
        (BETTER, 0.0, CONTRADICTED),
    ]  # fmt: skip


def test_one_run_decides_about_what_no_seed_changes() -> None:
    for expect, difference, outcome in WITHOUT_CHANCE:
        options = {"expect": expect, "metric": "cost.macs", "higher_is_better": False, "smallest": 0.0}
        found = verdict((difference,), (difference,), **options)
        assert found.outcome == outcome
        assert f" {difference:+,.0f}, whatever the seed." in found.reason
        assert verdict((0.0,), (72.0,), **{**options, "expect": EQUAL}).outcome == CONTRADICTED


def test_structure_takes_no_part_in_the_levels() -> None:
    found = measured_all(statement((0.0,), metric="parameters", expect=EQUAL), statement(around(0.0)))
    assert found[1].levels.refute == 0.05


def test_a_claim_is_preliminary_if_a_statement_is() -> None:
    found = measured_all(
        statement(around(0.001), smallest=0.002), statement((*around(0.001, scale=2), None), smallest=0.002)
    )
    verdicts = [judged(of) for of in found]
    claim = conclude(found, verdicts)
    assert (claim.outcome, claim.preliminary) == (UNDECIDED, True)
    assert conclude([], []).outcome == UNDECIDED


WORDS = [
    (
        {"expect": NOT_WORSE, "where": "cars"},
        "srp against gap at dataset=cars: worse by less than 0.50 points in top1",
    ),
    ({"expect": EQUAL, "metric": "parameters", "smallest": 0.0}, "srp against gap: equal in parameters"),
]


def test_statements_in_words() -> None:
    for options, words in WORDS:
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


NEEDED = [
        (SUPPORTED, SUPPORTED, False, SUPPORTED), (SUPPORTED, CONTRADICTED, False, CONTRADICTED),
        (SUPPORTED, NONE, False, NONE), (SUPPORTED, UNDECIDED, True, UNDECIDED),
        (CONTRADICTED, CONTRADICTED, False, NOT_TESTABLE), (NONE, CONTRADICTED, False, NOT_TESTABLE),
        (CONTRADICTED, SUPPORTED, False, NOT_TESTABLE), (NONE, UNDECIDED, False, NOT_TESTABLE),
        (UNDECIDED, CONTRADICTED, False, UNDECIDED), (UNDECIDED, SUPPORTED, False, UNDECIDED),
        (UNDECIDED, CONTRADICTED, True, NOT_TESTABLE), (UNDECIDED, SUPPORTED, True, NOT_TESTABLE),
]  # fmt: skip
"""The outcomes of a precondition and of the claim, whether this is the last look, and what they come to."""


@pytest.mark.parametrize("role", ["precondition", "control"])
def test_without_its_precondition_a_claim_is_not_testable_whatever_it_says(role: str) -> None:
    """mixup costs 3.3 points; the larger network is worse; falling against rising."""
    statements = [statement(around(0.0), role=role), statement(around(0.0))]
    for needed, claim, final, outcome in NEEDED:
        assert join(statements, [needed, claim], final) == outcome, (needed, claim)
        assert join(statements[::-1], [claim, needed], final) == outcome, (needed, claim)


def test_the_missing_precondition_is_the_reason() -> None:
    found = measured_all(statement(around(-0.03), role="precondition"), statement(around(0.02)))
    verdicts = [judged(of) for of in found]
    claim = conclude(found, verdicts)
    assert (claim.outcome, claim.outcome.label) == (NOT_TESTABLE, "not testable here")
    assert claim.reason.startswith("Not shown: precondition: srp against gap: better in top1: -3.00 points")
    assert [v.outcome.of_statement for v in verdicts] == ["refuted", "shown"]


def test_a_part_of_the_claim_that_is_lacking_leaves_it_unsaid_but_may_be_refuted_without_it() -> None:
    shown, refuted = measured_all(statement(around(0.05)), statement(around(-0.05)))
    assert conclude([shown], [judged(shown)], None, "attention=eca").outcome == UNDECIDED
    assert "attention=eca" in conclude([shown], [judged(shown)], None, "attention=eca").reason
    assert conclude([refuted], [judged(refuted)], None, "attention=eca").outcome == CONTRADICTED


def test_the_reason_of_support_is_the_weakest_statement() -> None:
    found = measured_all(statement(around(0.05)), statement(around(0.004)), statement(around(0.03)))
    claim = conclude(found, [judged(of) for of in found])
    assert claim.reason.startswith("3 of 3 statements shown. srp against gap: better in top1: +0.40 points")


def test_the_interval_is_at_the_level_that_decides() -> None:
    """Of three statements each is refuted at 0.05 / 3: where 0 is in that interval nothing is refuted."""
    doubtful = around(-0.0027)  # the 95 % interval leaves 0 out
    found = measured_all(statement(doubtful, smallest=0.002), statement(around(0.01)), statement(around(0.01)))
    row = judged(found[0])
    assert (row.outcome, row.level) == (UNDECIDED, pytest.approx(0.05 / 3))
    low, high = found[0].mean.bounds(row.level)  # type: ignore[union-attr]
    reference = stats.ttest_1samp(doubtful, 0).confidence_interval(1 - 0.05 / 3)
    assert (low, high) == (pytest.approx(reference.low), pytest.approx(reference.high))
    assert low < 0 < high
    assert "98.33 % interval" in row.reason


@pytest.mark.parametrize(("expect", "statements"), [(BETTER, 3), (NOT_WORSE, 1), (EQUAL, 3)])
def test_an_interval_agrees_with_its_verdict(expect: Expectation, statements: int) -> None:
    source = np.random.default_rng(statements)
    for mean in np.linspace(-0.012, 0.012, 49):
        cells = mean + 0.004 * source.standard_normal(8)
        found = measured_all(statement(cells, expect=expect), *[statement(around(0.01))] * (statements - 1))[0]
        row = judged(found)
        low, high = found.mean.bounds(row.level)  # type: ignore[union-attr]
        crossed = [
            bound for bound in ({0.0, -0.005, 0.005} if expect == BETTER else {-0.005, 0.005}) if low <= bound <= high
        ]
        match expect, row.outcome:
            case Expectation.better, Outcome.undecided:
                assert 0.0 in crossed and len(crossed) > 1
            case Expectation.better, Outcome.no_relevant_difference:
                assert crossed in ([], [0.0])
            case Expectation.better, _:
                assert 0.0 not in crossed
            case Expectation.not_worse, outcome:
                assert (-0.005 in crossed) == (outcome == UNDECIDED)
            case _, outcome:
                assert (outcome == UNDECIDED) == bool(crossed)


LOOKS = [4, 6, 8]


def test_a_study_looks_at_the_seeds_that_it_planned_and_stops_where_it_is_decided() -> None:
    early, late = statement(around(0.05)), statement(around(0.0028, scale=0.8), smallest=0.002)
    of_looks = measure_statements([early, late], LOOKS)
    assert [[group.shape[-1] for group in of.groups] for look in of_looks for of in look] == [
        [n] for n in LOOKS for _ in "ab"
    ]
    walked = walk_looks(of_looks, len(LOOKS))
    assert [int(look) for look in walked.looks] == [0, 2]
    assert (walked.claim, walked.look) == (SUPPORTED, 2)


def test_a_look_waits_for_its_runs_and_not_for_one_that_failed() -> None:
    def broken(state: State) -> Statement:
        made = statement((*around(0.05, n=3), None, *around(0.05)[4:6]))
        failed = next(iter(made.cells.values()))[3][0]
        failed.state = state
        return made

    waiting, failed = (measure_statements([broken(state)], [6, 8]) for state in (State.running, State.failed))
    assert walk_looks(waiting, 2).claim == UNDECIDED
    assert walk_looks(failed, 2).claim == SUPPORTED
    assert failed[0][0].unfinished == 1
    (unbegun,) = measure_statements([statement(around(0.05, n=5))], [6, 8])  # of the first look a seed is missing
    assert walk_looks([unbegun], 2).claim == UNDECIDED


def test_an_excluded_run_leaves_its_seed_in_its_look() -> None:
    made = statement(around(0.05))
    (pairs,) = made.cells.values()
    pairs[1] = ()  # type: ignore[index]
    first, second = measure_statements([made], [6, 8])
    assert [of.groups[0].shape[-1] for of in (*first, *second)] == [5, 7]
    assert not first[0].waiting and first[0].unfinished == 0


def test_later_runs_do_not_change_what_was_decided() -> None:
    turned = statement((*around(0.05, n=4), *[-0.2] * 4))
    walked = walk_looks(measure_statements([turned], LOOKS), len(LOOKS))
    assert (walked.claim, walked.look) == (SUPPORTED, 0)


@pytest.mark.parametrize("count", [1, 3])
def test_looks_err_in_five_percent_of_claims_at_most(count: int) -> None:
    """Of `count` statements without a difference: t-tests of four pairs at the levels of a known variance, too."""
    rounds, looks = 4000, [4, 6, 10, 16]
    source = np.random.default_rng(count)
    statements = [statement([0.0] * 16) for _ in range(count)]
    draws = [0.006 * source.standard_normal((rounds, 16)) for _ in statements]
    of_looks = [
        [replace(of, groups=[d[:, :n]], cells={}) for of, d in zip(at, draws, strict=True)]
        for n, at in zip(looks, measure_statements(statements, looks), strict=True)
    ]
    claim = walk_looks(of_looks, len(looks)).claim
    wrong = float(np.isin(claim, [SUPPORTED, CONTRADICTED]).mean())
    assert wrong <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / rounds)
    assert float((claim == NONE).mean()) > 0.2
