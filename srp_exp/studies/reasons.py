"""The words of a verdict: what was measured, in one line."""

from collections.abc import Sequence

from srp_exp.config.study import Expectation
from srp_exp.studies.comparisons import CellResult, ComparisonResult
from srp_exp.studies.power import POWER
from srp_exp.studies.statistics import ALPHA
from srp_exp.studies.units import ACCURACIES, interval, unit_of

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
