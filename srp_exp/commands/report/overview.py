"""srp-report runs: the runs that exist, chosen by their settings, and how they differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from srp_exp.commands.listing import count_states, outcomes, print_lines
from srp_exp.config.failures.explain import nearest
from srp_exp.config.failures.faults import describe_error
from srp_exp.config.schemas.run import Config
from srp_exp.errors import UserError
from srp_exp.files import write_atomically
from srp_exp.runs.folder.store import Run, State, all_runs
from srp_exp.studies.grid import SEED
from srp_exp.studies.reports.csv_rows import csv

OPTIONS = ("output_dir", "sort", "by", "csv", "latex")
"""What stands among the filters and is none."""


@dataclass(frozen=True)
class Found:
    """The runs that fit the filters, what tells them apart, and what can't be read of the others."""

    runs: list[Run]
    options: Mapping[str, str]
    damaged: list[Exception]

    def end(self, console: Console) -> None:
        """Raise what the damaged runs raise, after what can be told of the others."""
        for other in self.damaged[1:]:
            console.print(f"not listed: {describe_error(other)}", style="red", soft_wrap=True)
        if self.damaged:
            raise self.damaged[0]


def find(arguments: Sequence[str]) -> Found:
    """The runs of output_dir=outputs that fit all filters: setting=value as it is or was typed, or state=finished."""
    given = dict(_pair(argument) for argument in arguments)
    options = {name: given.pop(name) for name in OPTIONS if name in given}
    parent = Path(options.get("output_dir", "outputs")).expanduser() / "runs"
    runs = all_runs(parent)
    if not runs:
        raise UserError(f"{parent}: no runs found; set output_dir=FOLDER if they are elsewhere")
    known: dict[Path, dict[str, str]] = {}
    damaged: list[Exception] = []
    for run in runs:
        try:
            _ = outcomes([run]), run.starts, run.commit  # which read all that a list shows
            known[run.folder] = {**run.settings, "state": run.state.value}
        except (UserError, OSError) as error:
            damaged.append(error)
    names = {name for values in known.values() for name in values}
    for name in given:
        if name not in names and known:
            raise UserError(f"{name}: no run has such a setting{nearest(name, names)}")
    states = [state.value for state in State]
    if given.get("state", states[0]) not in states:
        raise UserError(f"state={given['state']}: there is no such state{nearest(given['state'], states)}")
    whole = [run for run in runs if run.folder in known]
    chosen = [r for r in whole if all(_is(r, known[r.folder].get(name), name, given[name]) for name in given)]
    return Found(chosen, options, damaged)


def list_runs(arguments: Sequence[str], console: Console) -> None:
    """Print a line for each run: the settings in which they differ, its state, and what came out of it.

    sort=NAME puts them in the order of a column, sort=-NAME in the reverse one; csv=FILE writes them too.
    """
    found = find(arguments)
    names, runs = differing(found.runs), found.runs
    lines = [
        {**{name: run.settings.get(name, "") for name in names}, "state": run.state.value, **of, "run": run.folder.name}
        for run, of in zip(runs, outcomes(runs), strict=True)
    ]
    if (order := found.options.get("sort")) and lines:
        lines = _sorted(lines, order)
    print_lines(lines, names, console)
    console.print(count_states(runs), highlight=False)
    for run in runs:
        if run.failure:
            console.print(f"{run.folder.name} failed: {run.failure}", style="red", soft_wrap=True, highlight=False)
    if file := found.options.get("csv"):
        more = {
            run.folder.name: {"commit": run.commit, "failure": run.failure, "folder": str(run.folder)} for run in runs
        }
        write_asked(file, csv([{**line, **more[str(line["run"])]} for line in lines]), console)
    found.end(console)


def differing(runs: Iterable[Run]) -> list[str]:
    """The settings that tell runs apart: choices first, the seed last.

    Left out are those that can't change a result, those that the choice of their group tells, and those that follow
    another, as optimizer.lr does recipe.lr.
    """
    settings = [run.settings for run in runs]
    ignored = {field.name for field in fields(Config) if not field.metadata.get("identity", True)}
    columns = {name: [of.get(name, "") for of in settings] for name in dict.fromkeys(n for of in settings for n in of)}
    kept: dict[str, list[str]] = {}
    for name in sorted(columns, key=lambda name: (name != SEED, "." in name, not name.startswith("recipe."))):
        column, group, key = columns[name], name.partition(".")[0], name.rpartition(".")[2]
        if len(set(column)) < 2 or group in ignored or key == "name" or key.startswith("_"):
            continue
        told = group != name and len({*zip(columns[group], column, strict=True)}) == len({*columns[group]})
        follows = any(column == of and key.endswith(other.rpartition(".")[2]) for other, of in kept.items())
        if not told and not follows:
            kept[name] = column
    return sorted(kept, key=lambda name: name == SEED)


def _sorted(lines: list[dict[str, Any]], order: str) -> list[dict[str, Any]]:
    name = {"val": "val top-1", "test": "test top-1"}.get(order.lstrip("-"), order.lstrip("-"))
    if name not in lines[0]:
        raise UserError(f"sort={order}: no such column{nearest(name, lines[0])}")

    empty = [line for line in lines if line[name] in (None, "")]
    known = sorted((x for x in lines if x not in empty), key=lambda x: in_order(x[name]), reverse=order[0] == "-")
    return [*known, *empty]


def in_order(value: Any) -> tuple[bool, float, str]:
    """Numbers first, by size."""
    try:
        return False, float(value), ""
    except (TypeError, ValueError):
        return True, 0.0, str(value)


def write_asked(file: str, text: str, console: Console) -> None:
    """Write what csv=FILE or latex=FILE asks for."""
    path = Path(file).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    console.print(f"wrote {path}", highlight=False, soft_wrap=True)


def _is(run: Run, value: str | None, name: str, wanted: str) -> bool:
    """Whether a setting has the wanted value, however it is written, 0.10 or 0.1, or was typed so: dataset=folder."""
    read, meant = OmegaConf.from_dotlist([f"value={value}"]), OmegaConf.from_dotlist([f"value={wanted}"])
    if value is not None and (value == wanted or read == meant):
        return True
    return f"{name}={wanted}" in (run.provenance.get("command", ()) if run.starts else ())


def _pair(argument: str) -> tuple[str, str]:
    name, equals, value = argument.partition("=")
    if not equals:
        raise UserError(f"{argument} is not a filter: give setting=value, as dataset=cifar10")
    return name, value
