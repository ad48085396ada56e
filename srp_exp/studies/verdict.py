"""What the runs of a study say about its claim: supported, contradicted, or not decided by these data.

docs/statistics.md gives the rules and why they are so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from srp_exp.config.study import Expectation
from srp_exp.studies.comparisons import CellResult, ComparisonResult
from srp_exp.studies.results import ACCURACIES, interval, unit_of
from srp_exp.studies.statistics import ALPHA, POWER, fewest_seeds, pooled, seeds_needed

STRUCTURAL = frozenset({"parameters", "cost.parameters", "cost.macs"})
"""Metrics that the network's structure alone sets: no seed changes them, so that one run of each method decides."""


class Outcome(Enum):
    supported = "supported"
    contradicted = "contradicted"
    undecided = "undecided"


@dataclass(frozen=True)
class Verdict:
    """An outcome, the reason in one line, and how many seeds per cell would decide (None: decided, or no number would).

    preliminary: planned runs are missing, so the verdict may change when they are there.
    """

    outcome: Outcome
    reason: str
    seeds: int | None = None
    preliminary: bool = False


def conclude(results: Sequence[ComparisonResult]) -> Verdict:
    """The verdict on a claim, which is that all its comparisons come out as expected.

    Supported if all comparisons are, contradicted if any is, else undecided. Its seeds are the most that an undecided
    comparison needs.
    """
    verdicts = [judge(result, len(results)) for result in results]
    if not verdicts:
        return Verdict(Outcome.undecided, "The study names no comparison, so its claim is not tested.")
    if len(verdicts) == 1:
        return verdicts[0]
    preliminary = any(verdict.preliminary for verdict in verdicts)
    outcomes = [verdict.outcome for verdict in verdicts]
    if set(outcomes) == {Outcome.supported}:
        return Verdict(Outcome.supported, f"All {len(verdicts)} comparisons are supported.", preliminary=preliminary)
    outcome = Outcome.contradicted if Outcome.contradicted in outcomes else Outcome.undecided
    # The comparison that keeps a claim open longest gives the reason; of contradicted ones, the first.
    hardest = max(
        (verdict for verdict in verdicts if verdict.outcome == outcome),
        key=lambda verdict: math.inf if verdict.seeds is None else verdict.seeds,
    )
    reason = f"{outcomes.count(outcome)} of {len(verdicts)} comparisons {outcome.value}. {hardest.reason}"
    return Verdict(outcome, reason, hardest.seeds, preliminary)


def judge(result: ComparisonResult, comparisons: int = 1) -> Verdict:
    """The verdict on one of the `comparisons` of a claim.

    With D the mean gain over the cells (method - baseline, turned round where lower is better) and m the margin:

        better     supported: D > m               contradicted: D < m
        not_worse  supported: D > -m              contradicted: D < -m
        equal      supported: D > -m and D < m    contradicted: D < -m or D > m

    D counts as above a threshold if its 95 % interval lies above it *and* the sign-flip test about it has p <= 0.05;
    below alike. A contradiction must hold at the level 0.05 / comparisons, since any one refutes the claim. Of several
    cells, one whose difference is other than expected with a Holm-adjusted p <= 0.05 prevents support. With one seed
    in each cell nothing is decided. STRUCTURAL metrics are compared as they are.
    """
    verdict = _judge(result, comparisons)
    if not result.unfinished:
        return verdict
    return replace(verdict, reason=f"{verdict.reason} {note_unfinished(result.unfinished)}", preliminary=True)


def _judge(result: ComparisonResult, comparisons: int) -> Verdict:
    gains = result.gains
    if result.pooled is None:
        reason = f"{question(result)}: no seed has finished for both."
        return Verdict(Outcome.undecided, reason, fewest_seeds(max(1, len(result.cells))))
    if result.metric in STRUCTURAL and all(len(set(of_cell)) == 1 for of_cell in gains):
        return Verdict(_compare_structure(result), of_structure(result))
    if result.pooled.low is None:
        fewest = fewest_seeds(len(gains))
        return Verdict(Outcome.undecided, of_one_seed(result, fewest), fewest)
    if _fails(gains, result.expect, result.margin, ALPHA / comparisons):
        return Verdict(Outcome.contradicted, evidence(result))
    opposed = [cell for cell in result.cells if len(gains) > 1 and _opposes(cell, result)]
    if opposed:
        return Verdict(Outcome.undecided, of_opposition(result, opposed))
    if _holds(gains, result.expect, result.margin):
        return Verdict(Outcome.supported, evidence(result))
    seeds = _seeds(result, comparisons)
    return Verdict(Outcome.undecided, of_indecision(result, seeds), seeds)


def _holds(gains: Sequence[Sequence[float]], expect: Expectation, margin: float) -> bool:
    if expect == Expectation.equal:
        return _side(gains, -margin, ALPHA) > 0 and _side(gains, margin, ALPHA) < 0
    return _side(gains, _threshold(expect, margin), ALPHA) > 0


def _fails(gains: Sequence[Sequence[float]], expect: Expectation, margin: float, alpha: float) -> bool:
    if expect == Expectation.equal:
        return _side(gains, -margin, alpha) < 0 or _side(gains, margin, alpha) > 0
    return _side(gains, _threshold(expect, margin), alpha) < 0


def _side(gains: Sequence[Sequence[float]], threshold: float, alpha: float) -> int:
    """On which side of `threshold` the mean gain lies, -1 or 1; 0 where interval and sign flips don't both say so."""
    total = pooled(gains, about=threshold, alpha=alpha)
    if total.low is None or total.high is None or total.p > alpha:
        return 0
    return int(total.low > threshold) - int(total.high < threshold)


def _threshold(expect: Expectation, margin: float) -> float:
    return margin if expect == Expectation.better else -margin


def _opposes(cell: CellResult, result: ComparisonResult) -> bool:
    """Whether this cell alone, over several seeds, comes out significantly against the comparison."""
    if cell.paired is None or cell.paired.n == 1 or cell.adjusted is None or cell.adjusted > ALPHA:
        return False
    if result.expect == Expectation.equal:
        return abs(cell.paired.difference) > result.margin
    gain = cell.paired.difference if result.higher_is_better else -cell.paired.difference
    return gain < min(0.0, _threshold(result.expect, result.margin))


def _compare_structure(result: ComparisonResult) -> Outcome:
    """Of a metric without spread every cell must come out as expected; not_worse and equal include the margin."""
    gains = [of_cell[0] for of_cell in result.gains]
    holds = {
        Expectation.better: min(gains) > result.margin,
        Expectation.not_worse: min(gains) >= -result.margin,
        Expectation.equal: max(map(abs, gains)) <= result.margin,
    }[result.expect]
    return Outcome.supported if holds else Outcome.contradicted


def _seeds(result: ComparisonResult, comparisons: int) -> int | None:
    """Seeds per cell that decide with the probability POWER if difference and spread are as measured; more than now."""
    assert result.pooled is not None and result.pooled.sd is not None
    gain = result.pooled.difference if result.higher_is_better else -result.pooled.difference
    power = POWER
    if result.expect == Expectation.equal:
        hopeful, distance = abs(gain) < result.margin, abs(abs(gain) - result.margin)
        if hopeful:  # both bounds must hold: either may fail with half the probability
            power = 1 - (1 - POWER) / 2
    else:
        distance = gain - _threshold(result.expect, result.margin)
        hopeful = distance > 0
    cells = result.pooled.cells
    needed = seeds_needed(distance, result.pooled.sd, cells, 1 if hopeful else comparisons, power=power)
    now = min(len(of_cell) for of_cell in result.gains)
    return None if needed is None else max(needed, now + 1)


EXPECTED = {
    Expectation.better: "expected better than",
    Expectation.not_worse: "expected not worse than",
    Expectation.equal: "expected equal to",
}


def question(result: ComparisonResult) -> str:
    """What is compared, and what is expected of it."""
    return f"{result.method}, {EXPECTED[result.expect]} {result.baseline} in {result.metric}"


def evidence(result: ComparisonResult) -> str:
    """The mean difference with its interval, p-value (of no difference, so without a margin), and number of pairs."""
    total = result.pooled
    assert total is not None
    bounds = [bound for bound in (total.difference, total.low, total.high) if bound is not None]
    unit = unit_of(result.metric, bounds)
    points = " points" if result.metric in ACCURACIES else ""
    parts = [f"{question(result)}: {unit.show(total.difference, signed=True)}{points}"]
    if total.low is not None:
        parts.append(f"95 % interval {interval(total, unit, signed=True)}")
    if result.margin:
        parts.append(f"margin {unit.show(result.margin)}{points}")
    elif total.low is not None:
        parts.append(f"p = {total.p:.2g}")
    over = f" over {total.cells} cells" if total.cells > 1 else ""
    parts.append(f"{total.pairs} {'pair' if total.pairs == 1 else 'pairs'}{over}")
    return f"{', '.join(parts)}."


def of_structure(result: ComparisonResult) -> str:
    """The differences of a metric that no seed changes."""
    differences = [difference for cell in result.cells for difference in cell.differences]
    low, high = (f"{bound:+,.0f}" for bound in (min(differences), max(differences)))
    return f"{question(result)}: {low if low == high else f'{low} to {high}'}, whatever the seed."


def of_one_seed(result: ComparisonResult, seeds: int) -> str:
    """Why one seed per cell decides nothing; `seeds` would be the fewest."""
    tests = [cell.mcnemar for cell in result.cells if cell.mcnemar is not None]
    mcnemar = f" (McNemar on their predictions: p = {tests[0].p:.2g})" if len(tests) == 1 else ""
    return (
        f"{evidence(result)} One seed compares two trained networks{mcnemar}, not the methods; "
        f"at least {seeds} seeds per cell are needed."
    )


def of_opposition(result: ComparisonResult, cells: Sequence[CellResult]) -> str:
    """In which cells it isn't as expected."""
    names = "; ".join(" ".join(f"{axis}={value}" for axis, value in cell.cell) for cell in cells)
    return f"{evidence(result)} It comes out otherwise in {names} (Holm-adjusted p <= {ALPHA})."


def of_indecision(result: ComparisonResult, seeds: int | None) -> str:
    """How many seeds per cell would decide."""
    if seeds is None:
        return f"{evidence(result)} It lies so near the threshold that no feasible number of seeds would decide."
    return f"{evidence(result)} About {seeds:,} seeds per cell would decide (power {POWER * 100:.0f} %)."


def note_unfinished(count: int) -> str:
    return f"Preliminary: {count} planned {'run has' if count == 1 else 'runs have'} no value yet."
