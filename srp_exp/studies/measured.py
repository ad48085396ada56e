"""The statements of a study in numbers, and in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from srp_exp.config.study import Expectation
from srp_exp.studies.grid import Cell
from srp_exp.studies.pairs import Levels, Statement, levels
from srp_exp.studies.results import Unit, unit_of, value_of
from srp_exp.studies.statistics import Array, Mean, seeds_needed

POWER = 0.8
"""Probability with which the number of seeds that a verdict names decides."""

SIGNS = (1, -1, -1, 1)
"""Of the runs of a pair: method - baseline, less A - B."""


@dataclass(frozen=True)
class Measured:
    """A statement in numbers: its differences (..., n), of each cell and of each group of cells that share runs.

    unfinished: how many of its planned runs have no value yet. p: of the hypothesis that the statement is false by the
    least: a difference of 0 for `better`, of the smallest effect against it for `not_worse`, of either for `equal`.
    """

    statement: Statement
    levels: Levels
    cells: dict[Cell, Array]
    groups: list[Array]
    unfinished: int

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

    @cached_property
    def p(self) -> float | None:
        mean, smallest = self.mean, self.statement.smallest
        if mean is None or mean.error is None:
            return None
        against = -smallest if self.statement.higher_is_better else smallest
        match self.statement.expect:
            case Expectation.better:
                return float(mean.p())
            case Expectation.not_worse:
                return float(mean.p(against))
            case Expectation.equal:
                return float(max(mean.p(against), mean.p(-against)))


def measure(found: Sequence[Statement]) -> list[Measured]:
    """The differences of every statement. Raises ValueError for a metric that isn't finite."""
    return [_measure(statement, level) for statement, level in zip(found, levels(list(found)), strict=True)]


def _measure(statement: Statement, level: Levels) -> Measured:
    runs = {run.folder: run for pairs in statement.cells.values() for of_seed in pairs.values() for run in of_seed}
    values = {folder: value_of(run, statement.metric) for folder, run in runs.items()}

    def differences(cell: Cell) -> dict[int, Any]:
        found = {}
        for seed, of_seed in statement.cells[cell].items():
            measured = [values[run.folder] for run in of_seed]
            if not any(value is None for value in measured):
                found[seed] = sum(s * v for s, v in zip(SIGNS, measured, strict=False))
        return found

    cells = {cell: differences(cell) for cell in statement.cells}
    groups = []
    for group in statement.groups:
        first, *others = (cells[cell] for cell in group)
        common = [seed for seed in first if all(seed in other for other in others)]
        groups.append(_row([np.mean([cells[cell][seed] for cell in group], axis=0) for seed in common]))
    unfinished = sum(value is None for value in values.values())
    return Measured(statement, level, {c: _row(list(d.values())) for c, d in cells.items()}, groups, unfinished)


def _row(values: list[Any]) -> Array:
    return np.stack([np.asarray(value, np.float64) for value in values], axis=-1) if values else np.zeros(0)


def needed(measured: Measured) -> int | None:
    """Seeds per cell with which every outcome but "undecided" comes with probability POWER, where it is true.

    From the smallest effect and the spread as measured, not from the difference as measured: at a true difference of 0
    or of the smallest effect. More than there are; None where that many can't be trained.
    """
    mean, statement = measured.mean, measured.statement
    assert mean is not None and mean.sd is not None
    # Two bounds must hold for "no relevant difference": either may fail with half the probability.
    power = POWER if statement.expect == Expectation.not_worse else 1 - (1 - POWER) / 2
    alpha = min(measured.levels.support, measured.levels.refute)
    seeds = seeds_needed(statement.smallest, float(mean.sd), len(mean.cells), alpha, power)
    now = min(cell.shape[-1] for cell in mean.cells)
    return None if seeds is None else max(seeds, now + 1)


def describe(measured: Measured) -> str:
    """A statement in words, such as "SRP against GAP at dataset=cifar10: worse by less than 0.20 points"."""
    statement, unit = measured.statement, measured.unit
    smallest = unit.show(statement.smallest) + unit.of_difference
    expected = {
        Expectation.better: "better",
        Expectation.not_worse: f"worse by less than {smallest}" if statement.smallest else "not worse",
        Expectation.equal: f"equal within {smallest}" if statement.smallest else "equal",
    }[statement.expect]
    what = f"{statement.method} against {statement.baseline}"
    if statement.beyond:
        what = f"({what}) beyond ({statement.beyond[0]} against {statement.beyond[1]})"
    where = ", ".join(f"{axis}={value}" for axis, value in statement.where)
    return f"{what}{f' at {where}' if where else ''}: {expected}{f' in {statement.metric}'}"


def evidence(measured: Measured) -> str:
    """The mean difference with its interval, p-value, number of pairs, and whether the cells differ."""
    mean, unit = measured.mean, measured.unit
    assert mean is not None
    parts = [f"{unit.show(float(mean.value), signed=True)}{unit.of_difference}"]
    if measured.p is not None:
        parts += [f"95 % interval {unit.interval(mean.bounds, signed=True)}", f"p = {measured.p:.2g}"]
    parts.append(f"{mean.n} pair{'s' * (mean.n != 1)}{f' over {len(mean.cells)} cells' if len(mean.cells) > 1 else ''}")
    if mean.p_alike is not None:
        means = [float(cell.mean(-1)) for cell in mean.cells]
        spread = f"{unit.show(min(means), signed=True)} to {unit.show(max(means), signed=True)}"
        parts.append(f"cells from {spread} (p = {mean.p_alike:.2g} that they are alike)")
    return ", ".join(parts)
