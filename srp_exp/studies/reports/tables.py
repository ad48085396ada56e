"""The tables of a study, in one form that every format renders: its results and comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srp_exp.config.schemas.study import METHOD
from srp_exp.runs.folder.store import State
from srp_exp.studies.grid import Cell
from srp_exp.studies.levels import ALPHA, Levels
from srp_exp.studies.measured import Measured, describe, percent
from srp_exp.studies.results import Entry, StudyResults, Unit, unit_of_study
from srp_exp.studies.statistics import Mean
from srp_exp.studies.verdict import Verdict

NOTHING = "-"
"""Stands where no run has finished yet."""


@dataclass(frozen=True)
class TableCell:
    """What stands in one place of a table: a text, whether it is a verdict, and a note shown smaller beside it."""

    text: str
    note: str = ""
    bold: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first `labels` columns name the row, with footnotes.

    header: one row or more, each as wide as the table; in all but the last, equal neighbours are one heading.
    """

    title: str
    caption: str
    header: tuple[tuple[str, ...], ...]
    labels: int
    rows: tuple[tuple[TableCell, ...], ...]
    notes: tuple[str, ...] = ()


def axes(results: StudyResults) -> tuple[str, ...]:
    """The axes of the grid, in its order, without the method."""
    return tuple(dict.fromkeys(axis for entry in results.entries for axis, _ in entry.cell))


def summary(entry: Entry) -> Mean | None:
    """The mean of an entry's values, and how they spread; None where no run has finished."""
    return Mean([list(entry.values.values())]) if entry.values else None


def published(results: StudyResults, entry: Entry) -> list[Mapping[str, Any]]:
    """The published numbers that stand beside an entry."""
    place = dict(entry.cell)
    return [
        number
        for number in results.study["published"]
        if number["method"] == entry.method and all(place.get(axis) == str(v) for axis, v in number["cell"].items())
    ]


def results_table(results: StudyResults) -> Table:
    """Mean and standard deviation of every entry, laid out by study.rows and study.columns.

    An axis in neither becomes one of the rows; with one value only it is said in the caption instead.
    """
    unit = unit_of_study(results)
    rows, columns, constant = _layout(results)
    entries = {(_key(entry, rows), _key(entry, columns)): entry for entry in results.entries}
    row_keys, column_keys = (list(dict.fromkeys(keys)) for keys in zip(*entries, strict=True))
    header = [("",) * len(rows) + tuple(key[level] for key in column_keys) for level in range(len(columns))]
    header = header or [(*rows, unit.name)]
    header[-1] = (*rows, *header[-1][len(rows) :])
    notes: list[str] = []
    body = []
    for row in row_keys:
        cells = [TableCell(label) for label in row]
        for column in column_keys:
            entry = entries.get((row, column))
            if entry is None:
                cells.append(TableCell(""))
                continue
            marks = [_footnote(notes, unit, number) for number in published(results, entry)]
            cells.append(_value_cell(entry, unit, marks))
        body.append(tuple(cells))
    for number in results.study["published"]:  # also those of entries that this grid leaves out
        _footnote(notes, unit, number)
    return Table("Results", _caption(results, unit, constant), tuple(header), len(rows), tuple(body), tuple(notes))


def parameters(entry: Entry) -> str:
    """Number of parameters of an entry's networks; empty where no run has finished."""
    counts = {run.results.get("parameters") for run in entry.finished}
    return ", ".join(f"{count:,}" for count in sorted(count for count in counts if count is not None))


def _layout(results: StudyResults) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """Names of the rows, of the columns, and what has one value and is named in neither."""
    names = (METHOD, *axes(results))
    columns = tuple(name for name in results.study["columns"] if name in names)
    named = tuple(name for name in results.study["rows"] if name in names and name not in columns)
    others = tuple(name for name in names if name not in (*named, *columns))
    values = {name: {_key(entry, (name,))[0] for entry in results.entries} for name in others}
    constant = {name: next(iter(found)) for name, found in values.items() if len(found) == 1}
    return (*named, *(name for name in others if name not in constant)), columns, constant


def _key(entry: Entry, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(entry.place[name] for name in names)


def _value_cell(entry: Entry, unit: Unit, marks: list[str]) -> TableCell:
    values = summary(entry)
    count = f"n={_count(entry)}" if entry.values else _count(entry)
    note = " ".join([f"({count})", *marks])
    if values is None:
        return TableCell(NOTHING, note)
    spread = "" if values.sd is None else f" ± {unit.show(float(values.sd))}"
    return TableCell(f"{unit.show(float(values.value))}{spread}", note)


def _count(entry: Entry) -> str:
    return str(len(entry.values)) if entry.complete else f"{len(entry.values)} of {len(entry.runs)}"


def _footnote(notes: list[str], unit: Unit, number: Mapping[str, Any]) -> str:
    place = "".join(f", {axis} {value}" for axis, value in number["cell"].items())
    note = f"Published, not ours: {number['method']}{place}: {unit.show(number['value'])} ({number['source']})"
    if note not in notes:
        notes.append(note)
    return f"[{notes.index(note) + 1}]"


def _caption(results: StudyResults, unit: Unit, constant: Mapping[str, str]) -> str:
    planned, finished = sum(results.states.values()), results.states.get(State.finished, 0)
    partial = f" Partial: {finished} of {planned} runs have finished." if finished < planned else ""
    places = "".join(f" {name}: {value}." for name, value in constant.items() if value)
    better = "higher" if results.study["higher_is_better"] else "lower"
    return f"Test {unit.name}, {better} is better: mean ± standard deviation over n seeds.{places}{partial}"


CAPTION = (
    "Method - baseline over pairs of runs with the same seed: mean difference (accuracies: in points) with its "
    "t-interval, of 95 % or at the level that decides; p of the t-test that the statement is only just false, the sign "
    "flips beside it. Effect: the smallest that matters. Shown at p <= {support}, refuted at p <= {refute}."
)


def comparison_table(measured: Sequence[Measured], verdicts: Sequence[Verdict]) -> Table | None:
    """A row for every statement, with its verdict, and below it one for every cell that it takes together.

    What all cells share the caption of the results says. None where the study compares nothing.
    """
    if not measured:
        return None
    shared = shared_pairs([cell for of_statement in measured for cell in of_statement.cells])
    reasons = list(dict.fromkeys(m.statement.reason for m in measured if m.statement.reason))
    rows = []
    for of_statement, verdict in zip(measured, verdicts, strict=True):
        smallest = of_statement.unit.show(of_statement.statement.smallest) if of_statement.statement.smallest else ""
        notes = [*(["preliminary"] if verdict.preliminary else []), *filter(None, [verdict.why])]
        note = f"({'; '.join(notes)})" if notes else ""
        reason = of_statement.statement.reason
        mark = f"[{reasons.index(reason) + 1}]" if reason else ""
        outcome = [TableCell(smallest, mark), TableCell(verdict.outcome.of_statement, note, bold=True)]
        known = (*shared, *of_statement.statement.where)
        places = {cell: cell_name(cell, without=known) for cell in of_statement.cells}
        together = TableCell("all" if of_statement.parts else next(iter(places.values())))
        numbers = _numbers(of_statement.mean, of_statement.unit, of_statement.unfinished)
        if verdict.level != ALPHA and of_statement.mean:
            bounds = of_statement.mean.bounds(verdict.level)
            numbers[-1] = TableCell(of_statement.unit.interval(bounds, signed=True), f"({percent(verdict.level)})")
        flips = f"(flips {shown_p(of_statement.p_flips)})" if of_statement.p_flips is not None else ""
        p = TableCell(shown_p(of_statement.p, (of_statement.levels.support, of_statement.levels.refute)), flips)
        rows.append((TableCell(describe(of_statement)), together, *numbers, p, *outcome))
        for cell, alone in of_statement.parts.items():
            numbers = _numbers(alone, of_statement.unit)
            rows.append((TableCell(""), TableCell(places[cell]), *numbers, *[TableCell("")] * 3))
    chance = [m.levels for m in measured if not m.statement.structural] or [Levels(ALPHA, ALPHA)]
    support, refute = (
        " or ".join(f"{level:.3g}" for level in sorted({getattr(of, name) for of in chance}))
        for name in ("support", "refute")
    )
    caption = CAPTION.format(support=support, refute=refute)
    header = ("statement", "cell", "pairs", "difference", "95 % interval", "p", "effect", "verdict")
    first = 1 if any(row[1].text for row in rows) else 2
    body = tuple((row[0], *row[first:]) for row in rows)
    footnotes = tuple(f"Smallest effect: {reason}" for reason in reasons)
    return Table("Comparisons", caption, ((header[0], *header[first:]),), 3 - first, body, footnotes)


def shared_pairs(cells: Sequence[Cell]) -> Cell:
    """What all cells have in common."""
    return tuple(pair for pair in cells[0] if all(pair in cell for cell in cells))


def cell_name(cell: Cell, without: Cell = ()) -> str:
    """ "dataset=cifar10, backbone=wrn16_8" """
    return ", ".join(f"{axis}={value}" for axis, value in cell if (axis, value) not in without)


def shown_p(value: float | None, levels: Sequence[float] = ()) -> str:
    """Three digits, and as many more as it takes not to lie on the other side of one of `levels`."""
    if value is None:
        return ""
    if value < 0.0005:
        return "<0.001"
    shown = (f"{value:.{digits}f}" for digits in range(3, 16))
    alike = (text for text in shown if all((float(text) <= level) == (value <= level) for level in levels))
    return next(alike, repr(value))


def _numbers(mean: Mean | None, unit: Unit, unfinished: int = 0) -> list[TableCell]:
    missing = f"({unfinished} run{'s' if unfinished > 1 else ''} missing)" if unfinished else ""
    pairs = TableCell(str(mean.n if mean else 0), missing)
    if mean is None:
        return [pairs, TableCell(NOTHING), TableCell("")]
    shown = unit.show(float(mean.value), signed=True), unit.interval(mean.bounds(), signed=True)
    return [pairs, *map(TableCell, shown)]
