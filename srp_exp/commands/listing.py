"""What is shown on the terminal: runs, tables, the report of a study."""

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srp_exp.runs.folder.store import Run, State
from srp_exp.studies.grid import Grid
from srp_exp.training.reporting.logs import Terminal

if TYPE_CHECKING:
    from srp_exp.studies.reports.report import Contents
    from srp_exp.studies.reports.tables import Table as StudyTable

OUTCOMES = {"supported": "green", "contradicted": "red"}

STYLES = {"finished": "green", "running": "cyan", "queued": "cyan", "interrupted": "yellow", "failed": "red"}

_NUMBERS = ("trial", "epochs", "val top-1", "test top-1", "seconds")
_OUTCOMES = (*_NUMBERS, "state", "run")


def terminal() -> Console:
    """Where to print: a file has no width, and [gates] is an override, no markup."""
    return Terminal(width=None if sys.stdout.isatty() else 160, markup=False)


def grid_lines(grid: Grid) -> tuple[list[dict[str, Any]], list[str]]:
    """A line for each run of a grid: what tells it from the others, its state, what came out of it; and those names."""
    axes = list(dict.fromkeys(axis for planned in grid.runs for axis, _ in planned.cell))
    names = [*(["method"] if any(planned.method for planned in grid.runs) else []), *axes, "seed"]
    lines = []
    for planned, of in zip(grid.runs, outcomes([planned.run for planned in grid.runs]), strict=True):
        told = {"method": planned.method, **dict(planned.cell), "seed": str(planned.seed)}
        run = planned.run
        lines.append({**{n: told.get(n, "") for n in names}, "state": run.state.value, **of, "run": run.folder.name})
    return lines, names


def outcomes(runs: Sequence[Run]) -> list[dict[str, float | None]]:
    """Top-1 and seconds of training of finished runs, None of others.

    The test part is left out where there is a validation part: by what is shown runs are chosen.
    """
    found: list[dict[str, float | None]] = []
    for run in runs:
        done = run.is_finished
        val = run.validated if done else None
        test = run.results["test"].get("top1") if done and val is None else None
        seconds = run.results["training_seconds"] if done else None
        found.append({"val top-1": val, "test top-1": test, "seconds": seconds})
    empty = [name for name in ("val top-1", "test top-1") if all(of[name] is None for of in found)]
    return [{name: value for name, value in of.items() if name not in empty} for of in found]


def print_lines(lines: Sequence[Mapping[str, Any]], names: Sequence[str], console: Console) -> None:
    """Print lines as a table that fits the console: numbers are never cut.

    Where it is too wide a run goes by the hash at the end of its name, then the last of the columns `names` go.
    """
    shown = list(names)
    width = console.width
    table = _table(lines, names, short=False)
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum > width:
        while shown:
            table = _table(lines, shown, short=True)
            if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= width:
                break
            shown.pop(-2 if shown[-1] == "seed" and len(shown) > 1 else -1)
    console.print(table)
    if left_out := [name for name in names if name not in shown]:
        console.print(f"different too, for a wider window: {', '.join(left_out)}", style="dim", highlight=False)


def _table(lines: Sequence[Mapping[str, Any]], names: Sequence[str], short: bool) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    ends = [name for name in (lines[0] if lines else ()) if name in names or name in _OUTCOMES]
    for name in ends:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for line in lines:
        table.add_row(*(_shown(name, line[name], short) for name in ends))
    return table


def _shown(name: str, value: Any, short: bool) -> Text:
    if name == "state":
        return Text(value, STYLES.get(value, "default"))
    if name == "run" and short:
        return Text(value.rpartition("-")[2])
    if value is None:
        return Text("")
    if name.endswith("top-1"):
        return Text(f"{value:.2%}")
    return Text(f"{value:,.0f}" if name in _NUMBERS else f"{value:.4g}" if isinstance(value, float) else str(value))


def count_states(runs: Iterable[Run]) -> str:
    """ "9 runs: 3 finished, 6 new" """
    folders = {run.folder: run.state for run in runs}
    counts = Counter(folders.values())
    states = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    return f"{len(folders)} run{'s' if len(folders) != 1 else ''}: {states or 'none'}"


def print_grid(grid: Grid, console: Console) -> None:
    """The table, the number of runs by state, and a line for each failure."""
    print_lines(*grid_lines(grid), console)
    if grid.fixed:
        console.print(f"all with {' '.join(grid.fixed)}")
    console.print(count_states(planned.run for planned in grid.runs))
    for planned in grid.distinct():
        if planned.run.state == State.failed:
            console.print(f"failed: {planned.label}: {planned.run.failure}", style="red")


def print_table(table: "StudyTable", console: Console) -> None:
    """Print the table, and below it its caption and footnotes."""
    drawn = Table(title=Text(table.title, "bold"), title_justify="left")
    for place, column in enumerate(zip(*table.header, strict=True)):
        justify = "left" if place < table.labels else "right"
        drawn.add_column(Text("\n".join(column).strip()), justify=justify)  # type: ignore[arg-type]
    for row in table.rows:
        drawn.add_row(
            *(Text.assemble((c.text, "bold" if c.bold else ""), (f" {c.note}" if c.note else "", "dim")) for c in row)
        )
    console.print(drawn)
    for line in (table.caption, *(f"[{number}] {note}" for number, note in enumerate(table.notes, 1))):
        console.print(Text(line, "dim"))


def print_report(made: "Contents", console: Console) -> None:
    """Print question, warnings, results, comparisons and verdict."""
    console.print(Text(str(made.results.study["question"]), "bold"))
    for warning in made.results.warnings:
        console.print(Text(f"warning: {warning}", "yellow"))
    for table in made.tables:
        print_table(table, console)
    console.print(Text(f"claim: {made.results.study['claim']}"))
    console.print(Text(f"{made.outcome}: {made.reason}", OUTCOMES.get(made.verdict.outcome.name, "yellow")))
