"""The table of a study's comparisons: each method against its baseline, in every cell and over the cells."""

from collections.abc import Sequence

from srp_exp.studies.comparisons import CellResult, ComparisonResult
from srp_exp.studies.results import StudyResults
from srp_exp.studies.tables import NOTHING, Table, TableCell, axes
from srp_exp.studies.units import ACCURACIES, Unit, interval, unit_of
from srp_exp.studies.verdict import Verdict

CAPTION = (
    "Method - baseline, over pairs of runs with the same seed (accuracies in percentage points): mean difference, "
    "95 % t-interval, p-value of the sign-flip test, and the same Holm-corrected over all cells and comparisons. "
    "With one pair p is McNemar's and compares two trained networks, not two methods."
)


def comparison_table(
    results: StudyResults, comparisons: Sequence[ComparisonResult], verdicts: Sequence[Verdict]
) -> Table | None:
    """A row for every cell of a comparison and, with several cells, one for all of them together.

    `verdicts` are those of the comparisons, in their order. None where the study compares nothing.
    """
    names = axes(results)
    header = ("comparison", *names, "pairs", "difference", "95 % interval", "p", "p (Holm)", "verdict")
    rows = []
    for compared, verdict in zip(comparisons, verdicts, strict=True):
        unit = unit_of(compared.metric, (d for cell in compared.cells for d in cell.differences))
        label = TableCell(describe(compared, unit, results.study["metric"]))
        outcome = TableCell(verdict.outcome.value, "(preliminary)" if verdict.preliminary else "", bold=True)
        alone = len(compared.cells) == 1
        for cell in compared.cells:
            places = (TableCell(value) for _, value in cell.cell)
            rows.append((label, *places, *_of_cell(cell, unit), outcome if alone else TableCell("")))
        if not alone:
            rows.append((label, *(TableCell("all") for _ in names), *_over_cells(compared, unit), outcome))
    return Table("Comparisons", CAPTION, (header,), 1 + len(names), tuple(rows)) if rows else None


def describe(compared: ComparisonResult, unit: Unit, metric_of_study: str) -> str:
    """A comparison and what it expects, such as "SRP against GAP: worse by less than 0.50 points"."""
    margin = unit.show(compared.margin) + (" points" if compared.metric in ACCURACIES else "")
    expected = {
        "better": f"better by more than {margin}" if compared.margin else "better",
        "not_worse": f"worse by less than {margin}" if compared.margin else "not worse",
        "equal": f"equal within {margin}" if compared.margin else "equal",
    }[compared.expect.value]
    metric = "" if compared.metric == metric_of_study else f" in {compared.metric}"
    return f"{compared.method} against {compared.baseline}: {expected}{metric}"


def _of_cell(cell: CellResult, unit: Unit) -> list[TableCell]:
    difference = NOTHING if cell.paired is None else unit.show(cell.paired.difference, signed=True)
    test = cell.mcnemar
    note = "" if test is None else f"(McNemar: {test.only_a} and {test.only_b} samples right in one alone)"
    pairs = TableCell(str(len(cell.seeds)), f"({cell.unfinished} missing)" if cell.unfinished else "")
    texts = [difference, interval(cell.paired, unit, signed=True)]
    return [pairs, *map(TableCell, texts), TableCell(_p(cell.p), note), TableCell(_p(cell.adjusted))]


def _over_cells(compared: ComparisonResult, unit: Unit) -> list[TableCell]:
    pooled = compared.pooled
    if pooled is None:
        return [TableCell(text) for text in ("0", NOTHING, "", "", "")]
    difference = unit.show(pooled.difference, signed=True)
    return [
        TableCell(text)
        for text in (str(pooled.pairs), difference, interval(pooled, unit, signed=True), _p(pooled.p), "")
    ]


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "<0.001" if value < 0.0005 else f"{value:.3f}"
