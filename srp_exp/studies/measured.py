"""The statements of a study in numbers, and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from srp_exp.config.schemas.study import Expectation, Role
from srp_exp.runs.folder.store import State
from srp_exp.studies.grid import Cell
from srp_exp.studies.levels import Levels, levels
from srp_exp.studies.pairs import Statement
from srp_exp.studies.results import Unit, unit_of, value_of
from srp_exp.studies.statistics import Array, Mean

SIGNS = (1, -1, -1, 1)
"""Of the runs of a pair: method - baseline, less A - B."""


@dataclass(frozen=True)
class Measured:
    """A statement at a look: its differences (..., n), of each cell and of each group of cells that share runs.

    unfinished: how many of its runs have no value. waiting: whether some may still get one (a failed run doesn't), or
    it hasn't the seeds of this look yet.
    """

    statement: Statement
    levels: Levels
    cells: dict[Cell, Array]
    groups: list[Array]
    unfinished: int
    waiting: bool

    @cached_property
    def mean(self) -> Mean | None:
        """Over the groups that have a pair; None where none has."""
        groups = [group for group in self.groups if group.shape[-1]]
        return Mean(groups) if groups else None

    @cached_property
    def parts(self) -> dict[Cell, Mean | None]:
        """The mean of each cell, None where it has no pair; {} where there is one cell, which is all."""
        cells = self.cells if len(self.cells) > 1 else {}
        return {cell: Mean([of]) if of.shape[-1] else None for cell, of in cells.items()}

    @cached_property
    def unit(self) -> Unit:
        differences = [float(d) for of in self.cells.values() for d in of.flat]
        return unit_of(self.statement.metric, differences if any(differences) else [self.statement.smallest])

    @property
    def thresholds(self) -> list[float]:
        """The differences at which the statement is false by the least."""
        against = -self.statement.smallest if self.statement.higher_is_better else self.statement.smallest
        by_expectation = {Expectation.not_worse: [against], Expectation.equal: [against, -against]}
        return by_expectation.get(self.statement.expect, [0.0])

    @cached_property
    def p(self) -> float | None:
        """Of the t-test at the threshold; the larger where there are two."""
        mean = self.mean
        return None if mean is None or mean.error is None else float(max(mean.p(at) for at in self.thresholds))

    @cached_property
    def p_flips(self) -> float | None:
        """Of the sign flips, likewise; shown beside p, which decides."""
        return None if self.mean is None or self.p is None else float(max(map(self.mean.p_flips, self.thresholds)))


def measure_statements(found: Sequence[Statement], looks: Sequence[int] = ()) -> list[list[Measured]]:
    """Every statement at each look that has begun. Raises ValueError for a metric that isn't finite."""
    most = max((len(pairs) for s in found for pairs in s.cells.values()), default=0)
    at = [seeds for seeds, before in zip(looks, (0, *looks), strict=False) if before < most] or [max(1, most)]
    return [
        [_measure(s.first(seeds), of, seeds if looks else 0) for s, of in zip(found, of_look, strict=True)]
        for seeds, of_look in zip(at, levels(found, looks or at), strict=False)
    ]


def _measure(statement: Statement, level: Levels, seeds: int) -> Measured:
    runs = {run.folder: run for pairs in statement.cells.values() for of_seed in pairs.values() for run in of_seed}
    values = {folder: value_of(run, statement.metric) for folder, run in runs.items()}

    def differences(cell: Cell) -> dict[int, Any]:
        found = {}
        for seed, of_seed in statement.cells[cell].items():
            measured = [values[run.folder] for run in of_seed]
            if measured and not any(value is None for value in measured):
                found[seed] = sum(s * v for s, v in zip(SIGNS, measured, strict=False))
        return found

    cells = {cell: differences(cell) for cell in statement.cells}
    groups = []
    for group in statement.groups:
        first, *others = (cells[cell] for cell in group)
        common = [seed for seed in first if all(seed in other for other in others)]
        groups.append(_row([np.mean([cells[cell][seed] for cell in group], axis=0) for seed in common]))
    unfinished = sum(value is None for value in values.values())
    waiting = any(values[folder] is None and runs[folder].state != State.failed for folder in values)
    waiting |= any(len(pairs) < seeds for pairs in statement.cells.values())
    rows = {cell: _row(list(of.values())) for cell, of in cells.items()}
    return Measured(statement, level, rows, groups, unfinished, waiting)


def _row(values: list[Any]) -> Array:
    return np.stack([np.asarray(value, np.float64) for value in values], axis=-1) if values else np.zeros(0)


def describe(measured: Measured) -> str:
    """A statement in words, such as "SRP against GAP at dataset=cifar10: worse by less than 0.20 points"."""
    statement, unit = measured.statement, measured.unit
    smallest = unit.show(statement.smallest) + unit.of_difference
    expected = {
        Expectation.better: "better" if statement.higher_is_better else "better (lower)",
        Expectation.not_worse: f"worse by less than {smallest}" if statement.smallest else "not worse",
        Expectation.equal: f"equal within {smallest}" if statement.smallest else "equal",
    }[statement.expect]
    what = f"{statement.method} against {statement.baseline}"
    if statement.beyond:
        what = f"({what}) beyond ({statement.beyond[0]} against {statement.beyond[1]})"
    where = ", ".join(f"{axis}={value}" for axis, value in statement.where)
    role = "" if statement.role == Role.claim else f"{statement.role.value}: "
    return f"{role}{what}{f' at {where}' if where else ''}: {expected}{f' in {statement.metric}'}"


def percent(level: float) -> str:
    """The coverage of an interval at `level`: "95 %"."""
    return f"{100 * (1 - level):.4g} %"


def evidence(measured: Measured, level: float) -> str:
    """The mean difference with its interval, p-values, number of pairs, and range of the cells."""
    mean, unit = measured.mean, measured.unit
    assert mean is not None
    parts = [f"{unit.show(float(mean.value), signed=True)}{unit.of_difference}"]
    if measured.p is not None:
        parts += [
            f"{percent(level)} interval {unit.interval(mean.bounds(level), signed=True)}",
            f"p = {measured.p:.2g}",
        ]
        parts[-1] += f" (sign flips {measured.p_flips:.2g})"
    parts.append(f"{mean.n} pair{'s' * (mean.n != 1)}{f' over {len(mean.cells)} cells' if len(mean.cells) > 1 else ''}")
    if len(mean.cells) > 1:
        means = [float(cell.mean(-1)) for cell in mean.cells]
        parts.append(f"cells from {unit.show(min(means), signed=True)} to {unit.show(max(means), signed=True)}")
    return ", ".join(parts)
