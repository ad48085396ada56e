"""srp-report sweep, and the end of a sweep: means of top-1 over the seeds, by what was swept."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from srp_exp.commands.listing import print_table
from srp_exp.commands.report.overview import differing, find, in_order, write_asked
from srp_exp.config.failures.explain import nearest
from srp_exp.errors import UserError
from srp_exp.runs.folder.store import Run
from srp_exp.studies.grid import SEED, Grid
from srp_exp.studies.reports.csv_rows import csv
from srp_exp.studies.reports.table_formats import latex
from srp_exp.studies.reports.tables import NOTHING, Table, TableCell


def sweep_runs(arguments: Sequence[str], console: Console) -> None:
    """Print mean and standard deviation by the settings by=A,B, or by all that differ but the seed."""
    found = find(arguments)
    others = [name for name in differing(found.runs) if name != SEED]
    by = found.options["by"].split(",") if "by" in found.options else others
    known = {name for run in found.runs for name in run.settings}
    for name in by:
        if name not in known and found.runs:
            raise UserError(f"by={name}: no run has such a setting{nearest(name, known)}")
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in found.runs:
        groups[tuple(run.settings.get(name, "") for name in by)].append(run)
    lines = means(by, dict(sorted(groups.items(), key=lambda group: [in_order(value) for value in group[0]])))
    table = means_table(lines, by)
    print_table(table, console)
    mixed = {name for of in groups.values() for name in differing(of)} - {SEED}
    if mixed:
        console.print(
            f"warning: runs that differ in {', '.join(sorted(mixed))} are taken together; name it in by=, or choose "
            "a value, as setting=value", style="yellow", soft_wrap=True,
        )  # fmt: skip
    for option, text in (("csv", csv(lines)), ("latex", latex(table, "tab:sweep"))):
        if option in found.options:
            write_asked(found.options[option], text, console)
    found.end(console)


def print_means(grid: Grid, console: Console) -> None:
    """Of what a sweep has run over, besides the seed."""
    axes = list(dict.fromkeys(axis for planned in grid.runs for axis, _ in planned.cell))
    groups = {tuple(dict(cell)[axis] for axis in axes): list(runs.values()) for (_, cell), runs in grid.entries.items()}
    print_table(means_table(means(axes, groups), axes), console)


def means(axes: Sequence[str], groups: Mapping[tuple[str, ...], Sequence[Run]]) -> list[dict[str, Any]]:
    """A line for each group of runs: mean and standard deviation of top-1, in [0, 1].

    On the validation part where any of them has one, so that nobody chooses by the test part.
    """
    finished = {names: [run for run in runs if run.is_finished] for names, runs in groups.items()}
    validated = any(run.validated is not None for runs in finished.values() for run in runs)
    lines = []
    for names, runs in finished.items():
        of_runs = [run.validated if validated else run.results["test"].get("top1") for run in runs]
        values = np.array([value for value in of_runs if value is not None])
        mean = float(values.mean()) if len(values) else None
        sd = float(values.std(ddof=1)) if len(values) > 1 else None
        told = {"metric": "val top-1" if validated else "test top-1", "mean": mean, "sd": sd}
        lines.append({**dict(zip(axes, names, strict=True)), **told, "n": len(values), "runs": len(groups[names])})
    return lines


def means_table(lines: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> Table:
    rows = []
    for of in lines:
        spread = "" if of["sd"] is None else f" ± {of['sd']:.2%}".rstrip("%")
        shown = NOTHING if of["mean"] is None else f"{of['mean']:.2%}".rstrip("%") + spread
        count = str(of["n"]) if of["n"] == of["runs"] else f"{of['n']} of {of['runs']}"
        rows.append(tuple(map(TableCell, (*(of[axis] for axis in axes), shown, count))))
    metric = lines[0]["metric"] if lines else "top-1"
    caption = f"Mean ± standard deviation of {metric} over n runs."
    if metric == "test top-1":
        caption += " The test part chooses nothing: dataset.val_fraction=0.1 holds out a part that may."
    return Table("Sweep", caption, ((*axes, f"{metric} (%)", "n"),), len(axes), tuple(rows))
