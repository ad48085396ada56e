"""The comparisons of a study in numbers: method against baseline in every cell of the grid, and over the cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srp_exp.config.study import Expectation
from srp_exp.errors import UserError
from srp_exp.studies.grid import Cell
from srp_exp.studies.results import Entry, StudyResults
from srp_exp.studies.statistics import McNemar, Paired, Pooled, holm, mcnemar, paired, pooled
from srp_exp.studies.store import State


@dataclass(frozen=True)
class CellResult:
    """Method against baseline in one cell of the grid.

    seeds: those with which both have finished. differences: method - baseline, as measured, one per seed. paired:
    None without a common seed. mcnemar: only where one seed is common, the metric is top1 and both wrote their
    predictions; its `only_a` is the method's. adjusted: `p`, Holm-corrected over all cells and comparisons of the
    study. unfinished: how many of the planned runs of the cell have no value yet.
    """

    cell: Cell
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    paired: Paired | None
    mcnemar: McNemar | None
    unfinished: int
    adjusted: float | None = None

    @property
    def p(self) -> float | None:
        """McNemar's where there is one, else that of the sign flips; None without a common seed."""
        if self.mcnemar is not None:
            return self.mcnemar.p
        return None if self.paired is None else self.paired.p


@dataclass(frozen=True)
class ComparisonResult:
    """A comparison of the study, cell by cell and over the cells.

    margin and differences are in the unit of the metric (accuracies in [0, 1]). pooled: over the cells with a common
    seed; None where there is none.
    """

    method: str
    baseline: str
    expect: Expectation
    margin: float
    metric: str
    higher_is_better: bool
    cells: tuple[CellResult, ...]
    pooled: Pooled | None

    @property
    def gains(self) -> list[list[float]]:
        """The differences of each cell with a common seed, turned round where lower is better: a gain is above 0."""
        sign = 1 if self.higher_is_better else -1
        return [[sign * difference for difference in cell.differences] for cell in self.cells if cell.differences]

    @property
    def unfinished(self) -> int:
        """How many of its planned runs have no value yet."""
        return sum(cell.unfinished for cell in self.cells)


def compare(results: StudyResults) -> tuple[ComparisonResult, ...]:
    """What is measured about each comparison of the study, in their order.

    A pair is two finished runs with the same seed in the same cell; a seed that only one of them has is left out.
    Raises ValueError for a method that the study doesn't have, for a metric that isn't finite, and for predictions
    of different samples.
    """
    return adjust([_comparison(results, comparison) for comparison in results.study["comparisons"]])


def adjust(comparisons: Sequence[ComparisonResult]) -> tuple[ComparisonResult, ...]:
    """Fill in `adjusted`: Holm's correction over every cell of every comparison that has a test."""
    tests = [cell.p for comparison in comparisons for cell in comparison.cells if cell.p is not None]
    left = iter(holm(tests))

    def adjusted(cell: CellResult) -> CellResult:
        return cell if cell.p is None else replace(cell, adjusted=next(left))

    return tuple(replace(c, cells=tuple(adjusted(cell) for cell in c.cells)) for c in comparisons)


def _comparison(results: StudyResults, comparison: Mapping[str, Any]) -> ComparisonResult:
    entries = {(entry.method, entry.cell): entry for entry in results.entries}
    names = list(dict.fromkeys(entry.method for entry in results.entries))
    method, baseline = comparison["method"], comparison["baseline"]
    for name in (method, baseline):
        if name not in names:
            raise UserError(f"study={results.name}: comparisons name {name}; its methods are {', '.join(names)}")
    own, general = comparison["metric"], results.study["metric"]
    direction = comparison["higher_is_better"]
    cells = [
        _cell(entries[method, cell], entries[baseline, cell], general if own is None else own, own is not None)
        for cell in results.cells
        if (method, cell) in entries and (baseline, cell) in entries
    ]
    measured = [cell.differences for cell in cells if cell.differences]
    return ComparisonResult(
        method=method,
        baseline=baseline,
        expect=Expectation(comparison["expect"]),
        margin=comparison["margin"],
        metric=general if own is None else own,
        higher_is_better=results.study["higher_is_better"] if direction is None else direction,
        cells=tuple(cells),
        pooled=pooled(measured) if measured else None,
    )


def _cell(method: Entry, baseline: Entry, metric: str, own_metric: bool) -> CellResult:
    of_method, of_baseline = (_values(entry, metric, own_metric) for entry in (method, baseline))
    seeds = tuple(seed for seed in of_method if seed in of_baseline)
    a, b = [of_method[seed] for seed in seeds], [of_baseline[seed] for seed in seeds]
    return CellResult(
        cell=method.cell,
        seeds=seeds,
        differences=tuple(x - y for x, y in zip(a, b, strict=True)),
        paired=paired(a, b) if seeds else None,
        mcnemar=_mcnemar(method, baseline, seeds[0]) if len(seeds) == 1 and metric == "top1" else None,
        unfinished=len(method.runs) - len(of_method) + len(baseline.runs) - len(of_baseline),
    )


def _values(entry: Entry, metric: str, own_metric: bool) -> dict[int, float]:
    """The metric of the finished runs of `entry`, by seed; Entry.values has the study's, `own_metric` is read here."""
    if own_metric:
        finished = {seed: run for seed, run in entry.runs.items() if run.state == State.finished}
        measured = {seed: run.value(metric) for seed, run in finished.items()}
    else:
        measured = dict(entry.values)
    values = {seed: value for seed, value in measured.items() if value is not None}
    for seed, value in values.items():
        if not math.isfinite(value):
            where = entry.runs[seed].folder
            raise UserError(f"{metric}={value} in {where} can't be compared; look into the run, rerun=true repeats it")
    return values


def _mcnemar(method: Entry, baseline: Entry, seed: int) -> McNemar | None:
    """McNemar's test on the predictions of one seed; None where a run has written none."""
    return compare_predictions(method.runs[seed].folder, baseline.runs[seed].folder)


def compare_predictions(first: Path, second: Path) -> McNemar | None:
    """McNemar's test on the test predictions of two run folders; None where one has none.

    Raises ValueError where they predict other samples.
    """
    files = [folder / "evaluation" / "test" / "predictions.parquet" for folder in (first, second)]
    if not all(file.is_file() for file in files):
        return None
    a, b = (_predictions(file) for file in files)
    if not np.array_equal(a[:, :2], b[:, :2]):
        raise UserError(f"{files[0]} and {files[1]} predict other samples or labels; evaluate both runs on one split")
    return mcnemar(a[:, 2] == a[:, 1], b[:, 2] == b[:, 1])


def _predictions(file: Path) -> npt.NDArray[np.int64]:
    """(samples, 3): index, label and prediction, in the order of the index."""
    import pyarrow.parquet as pq

    table = pq.read_table(file, columns=["index", "label", "prediction"])
    rows = np.stack([column.to_numpy() for column in table.columns], axis=1)
    return rows[np.argsort(rows[:, 0], kind="stable")]
