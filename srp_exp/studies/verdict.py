"""What the runs of a study say about its claim, statement by statement and joined.

docs/statistics.md gives the rules, why they are so, and how often they err.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from srp_exp.config.study import Expectation
from srp_exp.studies.measured import POWER, Measured, describe, evidence, needed
from srp_exp.studies.pairs import ALPHA, Statement
from srp_exp.studies.statistics import Mean


class Outcome(IntEnum):
    """In an order in which "and" is the least of several, and "or" the greatest."""

    contradicted = 0
    no_relevant_difference = 1
    undecided = 2
    supported = 3

    @property
    def label(self) -> str:
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Verdict:
    """An outcome, the reason in one line, and how many seeds per cell would decide (None: decided, or no number would).

    preliminary: planned runs are missing, so the verdict may change when they are there.
    """

    outcome: Outcome
    reason: str
    seeds: int | None = None
    preliminary: bool = False


def decide(measured: Measured, guard: bool = True) -> npt.NDArray[np.int64]:
    """The outcome, as a number of Outcome, of every study in the leading dimensions of the differences.

    With D the mean gain (method - baseline, turned round where lower is better), e the smallest effect of interest:

        better     supported: D > 0     contradicted: D < 0               no relevant difference: -e < D < e
        not_worse  supported: D > -e    contradicted: D < -e
        equal      supported: -e < D < e    contradicted: D < -e or D > e

    D lies on one side of a value if the tests of Mean.p say so, for support at one of `levels`, to refute at the other.
    Where a relevant difference is excluded D > 0 and D < 0 don't count. With `guard` a cell that alone, over several
    seeds, comes out on the other side (95 % t-interval) leaves the statement undecided: the mean doesn't speak for all.
    """
    statement, level, mean = measured.statement, measured.levels, measured.mean
    if mean is None:
        return np.array(Outcome.undecided)
    sign, e = (1 if statement.higher_is_better else -1), statement.smallest
    gain, p_low, p_high = sign * mean.value, mean.p(-sign * e), mean.p(sign * e)

    def within(alpha: float) -> Any:
        return (gain > -e) & (p_low <= alpha) & (gain < e) & (p_high <= alpha)

    own = [
        tuple(sign * bound for bound in Mean([group]).interval()[::sign])
        for group in measured.groups
        if guard and group.shape[-1] > 1
    ]
    outside = [(low > e) | (high < -e) for low, high in own]
    above, below = [low > 0 for low, _ in own], [high < 0 for _, high in own]
    match statement.expect:
        case Expectation.better:
            p, relevant = mean.p(), ~within(ALPHA)
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
    return np.select([alike, supported, contradicted], chosen, Outcome.undecided)


def _any(tests: list[Any]) -> Any:
    return np.any(tests, axis=0) if tests else np.False_


def join(statements: Sequence[Statement], outcomes: Sequence[npt.ArrayLike]) -> Any:
    """The outcome of the claim: every statement must hold, of those with the same `either` and place one."""
    together: dict[Any, list[Any]] = {}
    for statement, outcome in zip(statements, outcomes, strict=True):
        key = (statement.where, statement.either) if statement.either else id(statement)
        together.setdefault(key, []).append(outcome)
    return np.min([np.max(of, axis=0) for of in together.values()], axis=0)


def judge(measured: Measured) -> Verdict:
    """The verdict on one statement of a claim."""
    question = describe(measured)
    preliminary = measured.unfinished > 0
    if measured.mean is None:
        return Verdict(Outcome.undecided, f"{question}: no seed has finished for both.", None, preliminary)
    if measured.statement.structural:
        return _structure(measured)
    said = f"{question}: {evidence(measured)}."
    if measured.mean.error is None:
        reason = f"{said} One seed compares two trainings, not two methods."
        return Verdict(Outcome.undecided, reason, None, preliminary)
    outcome = Outcome(int(decide(measured)))
    if outcome != Outcome.undecided:
        return Verdict(outcome, said, None, preliminary)
    if decide(measured, guard=False) != outcome:
        reason = f"{said} A cell comes out otherwise, significantly, so the mean doesn't speak for all."
        return Verdict(outcome, reason, None, preliminary)
    seeds = needed(measured)
    return Verdict(outcome, f"{said} {_how_many(seeds)}", seeds, preliminary)


def _structure(measured: Measured) -> Verdict:
    """Of a metric that no seed changes every pair must come out as expected."""
    differences = np.concatenate(list(measured.cells.values()))
    gains = differences if measured.statement.higher_is_better else -differences
    holds = {Expectation.better: gains > 0, Expectation.not_worse: gains >= 0, Expectation.equal: gains == 0}
    low, high = (f"{bound:+,.0f}" for bound in (differences.min(), differences.max()))
    reason = f"{describe(measured)}: {low if low == high else f'{low} to {high}'}, whatever the seed."
    outcome = Outcome.supported if holds[measured.statement.expect].all() else Outcome.contradicted
    return Verdict(outcome, reason, None, measured.unfinished > 0)


def conclude(measured: Sequence[Measured], verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on the claim that the statements make together, with those that it hangs on."""
    if not verdicts:
        return Verdict(Outcome.undecided, "The study compares nothing, so its claim is not tested.")
    outcome = Outcome(int(join([m.statement for m in measured], [verdict.outcome for verdict in verdicts])))
    preliminary = any(verdict.preliminary for verdict in verdicts)
    if len(verdicts) == 1:
        return verdicts[0]
    decisive = [verdict for verdict in verdicts if verdict.outcome == outcome]
    seeds = [verdict.seeds for verdict in decisive]
    count = f"{len(decisive)} of {len(verdicts)} statements {outcome.label}"
    # Of those that leave a claim open the one that needs most seeds gives the reason; else the first.
    reason = max(decisive, key=lambda verdict: verdict.seeds or 0).reason
    most = None if None in seeds else max(seed for seed in seeds if seed is not None)
    return Verdict(outcome, f"{count}. {reason}", most, preliminary)


def _how_many(seeds: int | None) -> str:
    if seeds is None:
        return "No number of seeds that can be trained would decide: the smallest effect is too small for this spread."
    return f"About {seeds:,} seeds per cell decide (power {POWER:.0%} at no difference and at the smallest effect)."
