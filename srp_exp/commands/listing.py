"""What is shown on the terminal: runs, tables, the report of a study."""

import sys
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from srp_exp.runs.store import Run, State
from srp_exp.studies.grid import Grid
from srp_exp.training.logs import Terminal

if TYPE_CHECKING:
    from srp_exp.studies.report import Contents
    from srp_exp.studies.tables import Table as StudyTable

OUTCOMES = {"supported": "green", "contradicted": "red"}

STYLES = {
    State.finished: "green",
    State.running: "cyan",
    State.queued: "cyan",
    State.interrupted: "yellow",
    State.failed: "red",
    State.new: "default",
}


def terminal() -> Console:
    """Where to print: a file has no width, and [gates] is an override, no markup."""
    return Terminal(width=None if sys.stdout.isatty() else 160, markup=False)


def grid_table(grid: Grid) -> Table:
    """A line for each run of a grid: what tells it from the others, its state, what came out of it."""
    axes = list(dict.fromkeys(axis for planned in grid.runs for axis, _ in planned.cell))
    methods = any(planned.method for planned in grid.runs)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in [*(["method"] if methods else []), *axes, "seed", "state"]:
        table.add_column(heading)
    for heading in ("top-1", "seconds"):
        table.add_column(heading, justify="right")
    table.add_column("run", no_wrap=True)
    for planned in grid.runs:
        cell, run = dict(planned.cell), planned.run
        named = [planned.method] if methods else []
        state = Text(run.state.value, STYLES[run.state])
        names = [*named, *(cell[axis] for axis in axes), str(planned.seed)]
        table.add_row(*names, state, *outcome(run), run.folder.name)
    return table


def runs_table(runs: Iterable[Run]) -> Table:
    """A line for each run: its folder, state, seed, commit, what came out of it, or why it failed."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("run", "state", "seed", "commit"):
        table.add_column(heading, no_wrap=True)
    for heading in ("top-1", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("failure")
    for run in runs:
        commit = run.provenance["commit"] if (run.folder / "provenance.json").exists() else None
        names = run.folder.name, Text(run.state.value, STYLES[run.state]), run.settings.get("seed", "")
        table.add_row(*names, (commit or "")[:10], *outcome(run), run.failure)
    return table


def outcome(run: Run) -> tuple[str, str]:
    """Top-1 in percent and seconds of training of a finished run; else empty."""
    if not run.is_finished:
        return "", ""
    top1 = run.results["test"].get("top1")
    return ("" if top1 is None else f"{top1:.2%}"), f"{run.results['training_seconds']:,.0f}"


def count_states(runs: Iterable[Run]) -> str:
    """ "9 runs: 3 finished, 6 new" """
    folders = {run.folder: run.state for run in runs}
    counts = Counter(folders.values())
    states = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    return f"{len(folders)} run{'s' if len(folders) != 1 else ''}: {states or 'none'}"


def print_grid(grid: Grid, console: Console) -> None:
    """The table, the number of runs by state, and a line for each failure."""
    console.print(grid_table(grid))
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
