"""What a study has measured so far: the entries of its table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from srp_exp.studies.store import Run, State

METHOD = "method"
"""The name that the methods of a study have among the axes of its table."""

Cell: TypeAlias = tuple[tuple[str, str], ...]
"""What an entry was run with besides its method and seed: ((axis, value), ...) in the order of the grid."""


@dataclass(frozen=True)
class Entry:
    """A method in a cell, over its seeds. `values` has the study's metric of the finished runs, by seed."""

    method: str
    cell: Cell
    runs: Mapping[int, Run]
    values: Mapping[int, float]

    @property
    def complete(self) -> bool:
        return len(self.values) == len(self.runs)


@dataclass(frozen=True)
class StudyResults:
    """A study and its entries, in the order of the grid.

    `study` is the study's configuration (srp_exp.config.study) as plain values. `fixed` is what the command line
    set for all runs. `warnings` say where entries may not be compared: other commits, packages, devices.
    """

    study: Mapping[str, Any]
    entries: tuple[Entry, ...]
    fixed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return str(self.study["name"])

    def entry(self, method: str, cell: Cell) -> Entry:
        return next(e for e in self.entries if (e.method, e.cell) == (method, cell))

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(dict.fromkeys(entry.cell for entry in self.entries))

    @property
    def states(self) -> dict[State, int]:
        """How many runs are in each state; a run that several entries share counts once."""
        runs = {run.folder: run.state for entry in self.entries for run in entry.runs.values()}
        return {state: list(runs.values()).count(state) for state in State if state in runs.values()}


def counted(values: Counter[str]) -> str:
    """The values with the number of their runs, the most frequent first: "2.15.0 (8 runs), 2.14.1 (1 run)"."""
    return ", ".join(f"{value} ({count} run{'s' if count > 1 else ''})" for value, count in values.most_common())
