"""What the runs of a study say about its claim, statement by statement and joined.

docs/statistics.md gives the rules, why they are so, and how often they err.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from srp_exp.config.schemas.study import Expectation, Role
from srp_exp.studies.levels import ALPHA
from srp_exp.studies.measured import Measured, describe, evidence
from srp_exp.studies.pairs import FEWEST_PAIRS, Statement
from srp_exp.studies.statistics import Mean


class Outcome(IntEnum):
    """In an order in which "and" is the least of several, and "or" the greatest; the last is of a claim only."""

    contradicted = 0
    no_relevant_difference = 1
    undecided = 2
    supported = 3
    not_testable = 4

    @property
    def label(self) -> str:
        """Of a claim."""
        return "not testable here" if self == Outcome.not_testable else self.name.replace("_", " ")

    @property
    def of_statement(self) -> str:
        """In a row, which is one statement and no claim."""
        return {Outcome.supported: "shown", Outcome.contradicted: "refuted"}.get(self, self.label)


UNDECIDED = Outcome.undecided

SECOND_LOOK = (
    "More seeds are a second look, which errs more often than 5 %: a new study with study.looks plans it (dry=true "
    "says how often it decides)."
)


@dataclass(frozen=True)
class Verdict:
    """An outcome, and the reason in one line.

    preliminary: runs are missing, so the verdict may change. level: of the interval that is shown.
    why: nothing was decided, where the interval doesn't tell.
    """

    outcome: Outcome
    reason: str
    preliminary: bool = False
    level: float = ALPHA
    why: str = ""


@dataclass(frozen=True)
class Walk:
    """What comes out, look after look, until the claim is decided: arrays over simulated studies, or numbers.

    outcomes, looks: of each statement, and the look (from 0) that decided it, or the last. claim, look: likewise.
    """

    outcomes: list[Any]
    looks: list[Any]
    claim: Any
    look: Any


def walk_looks(of_looks: Sequence[Sequence[Measured]], planned: int, lacking: bool = False) -> Walk:
    """Decide at every look what isn't decided yet, as long as the claim is open.

    planned: how many looks there are. lacking: the grid lacks a part of the claim, which stays undecided.
    """
    count = len(of_looks[0])
    outcomes, looks = [np.array(UNDECIDED)] * count, [np.array(0)] * count
    claim, look = np.array(UNDECIDED), np.array(0)
    for number, measured in enumerate(of_looks):
        going = claim == UNDECIDED
        for place, statement in enumerate(measured):
            is_open = going & (outcomes[place] == UNDECIDED)
            looks[place] = np.where(is_open, number, looks[place])
            if np.any(is_open) and not (planned > 1 and statement.waiting):
                outcomes[place] = np.where(is_open, decide(statement), outcomes[place])
        waits = any(m.waiting and np.any(of == UNDECIDED) for m, of in zip(measured, outcomes, strict=True))
        final = number == planned - 1 and not waits
        look = look if waits else np.where(going, number, look)
        claim = np.where(going, join([m.statement for m in measured], outcomes, final, lacking), claim)
    return Walk(outcomes, looks, claim, look)


def decide(measured: Measured, guard: bool = True) -> npt.NDArray[np.int64]:
    """The outcome, as a number of Outcome, of every study in the leading dimensions of the differences.

    With D the mean gain (method - baseline, turned round where lower is better), e the smallest effect of interest:

        better     supported: D > 0     contradicted: D < 0               no relevant difference: -e < D < e
        not_worse  supported: D > -e    contradicted: D < -e
        equal      supported: -e < D < e    contradicted: D < -e or D > e

    D lies on one side of a value if the t-test says so, for support at one of `levels`, to refute at the other. Where a
    relevant difference is excluded D > 0 and D < 0 don't count. With `guard` a cell that alone, over several seeds,
    lies on the other side (95 % t-interval) leaves the statement undecided: the mean doesn't speak for all.
    """
    statement, level, mean = measured.statement, measured.levels, measured.mean
    if mean is None:
        return np.array(UNDECIDED)
    sign, e = (1 if statement.higher_is_better else -1), statement.smallest
    if statement.structural:  # no seed changes it: every pair must come out as expected
        gains = sign * np.concatenate(list(measured.cells.values()), axis=-1)
        holds = {Expectation.better: gains > 0, Expectation.not_worse: gains >= 0, Expectation.equal: gains == 0}
        return np.where(holds[statement.expect].all(-1), Outcome.supported, Outcome.contradicted)
    gain, p_low, p_high = sign * mean.value, mean.p(-sign * e), mean.p(sign * e)
    if mean.n < FEWEST_PAIRS:
        return np.full_like(gain, UNDECIDED, dtype=np.int64)

    def within(alpha: float) -> Any:
        return (gain > -e) & (p_low <= alpha) & (gain < e) & (p_high <= alpha)

    own = [
        tuple(sign * bound for bound in Mean([group]).interval()[::sign])
        for group in measured.groups
        if guard and len(measured.groups) > 1 and group.shape[-1] > 1
    ]
    outside = [(low > e) | (high < -e) for low, high in own]
    above, below = [low > 0 for low, _ in own], [high < 0 for _, high in own]
    match statement.expect:
        case Expectation.better:
            p, relevant = mean.p(), ~within(level.refute)
            supported = (gain > 0) & (p <= level.support) & relevant & ~_any(below)
            contradicted = (gain < 0) & (p <= level.refute) & relevant & ~_any(above)
            alike = within(level.refute) & ~_any(outside)
        case Expectation.not_worse:
            supported = (gain > -e) & (p_low <= level.support) & ~_any([high < -e for _, high in own])
            contradicted = (gain < -e) & (p_low <= level.refute) & ~_any([low > -e for low, _ in own])
            alike = np.zeros_like(supported)
        case Expectation.equal:
            supported = within(level.support) & ~_any(outside)
            contradicted = ((gain < -e) & (p_low <= level.refute)) | ((gain > e) & (p_high <= level.refute))
            alike = np.zeros_like(supported)
    chosen = [Outcome.no_relevant_difference, Outcome.supported, Outcome.contradicted]
    return np.select([alike, supported, contradicted], chosen, UNDECIDED)


def _any(tests: list[Any]) -> Any:
    return np.any(tests, axis=0) if tests else np.False_


def join(
    statements: Sequence[Statement], outcomes: Sequence[npt.ArrayLike], final: bool = True, lacking: bool = False
) -> Any:
    """The outcome of the claim: every statement of it must hold, of those with the same `either` and place one.

    If a precondition or a control is refuted, or is not shown by the `final` look, the claim can't be tested.
    """
    together: dict[Any, list[Any]] = {}
    for statement, outcome in zip(statements, outcomes, strict=True):
        role = statement.role == Role.claim
        key = (role, statement.where, statement.either) if statement.either else (role, id(statement), "")
        together.setdefault(key, []).append(outcome)
    joined = [(key[0], np.max(of, axis=0)) for key, of in together.items()]
    claim = np.min(np.broadcast_arrays(*[of for is_claim, of in joined if is_claim], *[UNDECIDED] * lacking), axis=0)
    needed = [of for is_claim, of in joined if not is_claim]
    if not needed:
        return claim
    shown = np.min(np.broadcast_arrays(*needed), axis=0)
    return np.select(
        [shown == Outcome.supported, (shown < UNDECIDED) | final], [claim, Outcome.not_testable], UNDECIDED
    )


def judge(measured: Measured, outcome: Outcome, look: str = "") -> Verdict:
    """The verdict on one statement that came out so. look: "look 2 of 5", where there are several."""
    question, preliminary = describe(measured), measured.unfinished > 0
    if measured.mean is None:
        return Verdict(outcome, f"{question}: no seed has finished for both.", preliminary)
    if measured.statement.structural:
        differences = np.concatenate(list(measured.cells.values()))
        low, high = (f"{bound:+,.0f}" for bound in (differences.min(), differences.max()))
        reason = f"{question}: {low if low == high else f'{low} to {high}'}, whatever the seed."
        return Verdict(outcome, reason, preliminary)
    level = measured.levels.support if outcome == Outcome.supported else measured.levels.refute
    if outcome == UNDECIDED:  # then the interval at either level has a threshold in it, if that at the lower has
        level = min(measured.levels.support, level)
    said = f"{question}: {evidence(measured, level)}{f', {look}' if look else ''}."
    if outcome != UNDECIDED:
        return Verdict(outcome, said, preliminary, level)
    more, why = "Run the same command for the next look, if one is planned." if look else SECOND_LOOK, ""
    if measured.mean.error is None:
        more, why = "One seed compares two trainings, not two methods.", "one seed"
    elif look and measured.waiting:
        more, why = "Nothing is decided before all runs of a look have finished.", "the look isn't complete"
    elif measured.mean.n < FEWEST_PAIRS:
        why = f"fewer than {FEWEST_PAIRS} pairs"
        more = f"{why.capitalize()} decide nothing. {more}"
    elif decide(measured, guard=False) != UNDECIDED:
        more, why = "A cell comes out otherwise, significantly, so the mean doesn't speak for all.", "a cell differs"
    return Verdict(outcome, f"{said} {more}", preliminary, level, why)


def conclude(
    measured: Sequence[Measured], verdicts: Sequence[Verdict], outcome: Outcome | None = None, lacking: str = ""
) -> Verdict:
    """The verdict on the claim that the statements make together, which came out so, with those that it hangs on.

    lacking: what the claim names and the grid doesn't have.
    """
    if not verdicts:
        return Verdict(UNDECIDED, "The study compares nothing, so its claim is not tested.")
    if outcome is None:
        outcome = Outcome(
            int(join([m.statement for m in measured], [v.outcome for v in verdicts], True, bool(lacking)))
        )
    preliminary = any(verdict.preliminary for verdict in verdicts)
    if lacking and outcome == UNDECIDED:
        shown = sum(verdict.outcome == Outcome.supported for verdict in verdicts)
        reason = f"The claim names {lacking}, which this grid lacks; {shown} of {len(verdicts)} statements shown."
        return Verdict(outcome, reason, preliminary)
    of_claim = [m.statement.role == Role.claim for m in measured]
    needs = [place for place, own in enumerate(of_claim) if not own and verdicts[place].outcome != Outcome.supported]
    if outcome == Outcome.not_testable or (outcome == UNDECIDED and needs):
        lowest = min((verdicts[place] for place in needs), key=lambda verdict: verdict.outcome)
        return Verdict(outcome, f"Not shown: {lowest.reason}", preliminary, lowest.level)
    if len(verdicts) == 1:
        return verdicts[0]
    places = [p for p, verdict in enumerate(verdicts) if of_claim[p] and verdict.outcome == outcome]
    decisive = [verdicts[place] for place in places]
    count = f"{len(decisive)} of {sum(of_claim)} statements {outcome.of_statement}"
    # Of those that support a claim, or leave it open, the weakest gives the reason; one refutes it as well as another.
    weakest = max(places, key=lambda place: (measured[place].p or 0) * (outcome >= UNDECIDED))
    return Verdict(outcome, f"{count}. {verdicts[weakest].reason}", preliminary)
