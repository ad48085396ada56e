"""What a study has measured so far: the entries of its table."""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from srp_exp.config.study import METHOD, StudyConfig
from srp_exp.errors import UserError
from srp_exp.runs.folder import differences
from srp_exp.runs.store import Run, State
from srp_exp.studies.grid import Cell, Grid
from srp_exp.studies.pairs import Runs, plain_study

PACKAGES = ("torch", "timm", "torchvision")
"""Packages whose versions a report names."""

_SAME_DATA = frozenset({"root", "cache_dir", "download", "augmentation", "mean", "std"})
"""Settings of a data set that don't say which data are meant."""


@dataclass(frozen=True)
class Entry:
    """A method in a cell, over its seeds. `values` has the study's metric of the finished runs, by seed."""

    method: str
    cell: Cell
    runs: Mapping[int, Run]
    values: Mapping[int, float]

    @property
    def place(self) -> dict[str, str]:
        return {METHOD: self.method, **dict(self.cell)}

    @property
    def finished(self) -> list[Run]:
        return [run for run in self.runs.values() if run.is_finished]

    @property
    def complete(self) -> bool:
        return len(self.values) == len(self.runs)


@dataclass(frozen=True)
class StudyResults:
    """A study and its entries, in the order of the grid.

    `study` is the study's configuration (srp_exp.config.study) as plain values. `arguments` are those of the command
    line. `warnings` say where entries may not be compared: other commits, packages, devices.
    """

    study: Mapping[str, Any]
    entries: tuple[Entry, ...]
    arguments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        return str(self.study["name"])

    @property
    def runs(self) -> Runs:
        return {(entry.method, entry.cell): entry.runs for entry in self.entries}

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


@dataclass(frozen=True)
class Unit:
    """How the values of a metric are shown: accuracies in percent with two decimals, others with four digits."""

    name: str
    factor: float
    decimals: int
    of_difference: str = ""

    def show(self, value: float, signed: bool = False) -> str:
        return f"{value * self.factor:{'+' if signed else ''}z,.{self.decimals}f}"

    def interval(self, bounds: tuple[float, float] | None, signed: bool = False) -> str:
        """[low, high]; empty where there is none."""
        return f"[{', '.join(self.show(bound, signed) for bound in bounds)}]" if bounds else ""


def unit_of(metric: str, values: Iterable[float]) -> Unit:
    """The unit of `metric`; `values` are those shown together, whose largest decides how many decimals.

    A metric whose name ends in top1 or top5 is an accuracy in [0, 1], shown in percent, its differences in points.
    """
    if metric.endswith(("top1", "top5")):
        return Unit(f"{metric[:-4]}{metric[-4:-1]}-{metric[-1]} (%)", 100, 2, " points")
    largest = max((abs(value) for value in values), default=0.0)
    digits = math.floor(math.log10(largest)) if largest > 0 else 0
    return Unit(metric, 1, max(0, 3 - digits))


def unit_of_study(results: StudyResults) -> Unit:
    return unit_of(results.study["metric"], (v for entry in results.entries for v in entry.values.values()))


def value_of(run: Run, metric: str) -> Any:
    """A metric of a finished run; None where it isn't finished, or hasn't measured it.

    Raises ValueError where it isn't finite, with the folder.
    """
    value = run.value(metric) if run.is_finished else None
    if value is not None and not np.isfinite(value).all():
        raise UserError(f"{metric}={value} in {run.folder} can't be compared; rerun=true repeats the run")
    return value


def collect(grid: Grid, study: StudyConfig) -> StudyResults:
    """The entries of `grid` with the metric of `study` where a run is finished."""
    plain = plain_study(study)
    entries = []
    for (method, cell), runs in grid.entries.items():
        measured = {seed: value_of(run, study.metric) for seed, run in runs.items()}
        values = {seed: value for seed, value in measured.items() if value is not None}
        entries.append(Entry(method, cell, runs, values))
    finished = {run.folder: run for run in (p.run for p in grid.runs) if run.is_finished}
    same = {name: of for name, of in origins(finished.values()).items() if name != "data"}  # which a grid may vary
    warnings = [f"runs of different {name} in one table: {counted(of)}" for name, of in same.items() if len(of) > 1]
    warnings += _other_data(list(finished.values()))
    for run in finished.values():
        warnings += [f"{run.folder.name} went on with another origin: {found}" for found in differences(run.starts)]
    warnings += _unmeasured(finished.values(), metrics(plain))
    return StudyResults(plain, tuple(entries), grid.arguments, tuple(warnings))


def origins(runs: Iterable[Run]) -> dict[str, Counter[str]]:
    """From what finished runs come: data, code, versions, device, each with the number of its runs."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        found["data"][str(run.config["dataset"]["name"])] += 1
        found["commit"][run.commit.replace("+", " with uncommitted changes ")] += 1
        for package in PACKAGES:
            found[package][run.provenance["packages"].get(package, "unknown")] += 1
        for name in ("python", "device", "driver", "processes", "threads"):
            if run.provenance.get(name) is not None:  # a processor has no driver
                found[name][str(run.provenance[name])] += 1
    return dict(found)


def _other_data(runs: Sequence[Run]) -> list[str]:
    """Where runs of one data set, with one choice of its settings, have read other pictures or labels, or may have."""
    unknown = [run.folder.name for run in runs if not run.data]
    lines = []
    if 0 < len(unknown) < len(runs):
        lines = [f"{len(unknown)} of {len(runs)} finished runs don't say what data they read, as {min(unknown)}"]
    digests: dict[str, Counter[str]] = {}
    for run in runs:
        if run.data:
            dataset = {name: value for name, value in run.config["dataset"].items() if name not in _SAME_DATA}
            found = hashlib.sha256(json.dumps(run.data, sort_keys=True).encode()).hexdigest()[:8]
            digests.setdefault(json.dumps(dataset, sort_keys=True), Counter())[found] += 1
    return lines + [
        f"runs of different data in one table: {json.loads(dataset)['name']} with the digests {counted(counts)}"
        for dataset, counts in digests.items()
        if len(counts) > 1
    ]


def metrics(study: Mapping[str, Any]) -> list[str]:
    """Those that a study asks for."""
    return list(dict.fromkeys([study["metric"], *(c["metric"] for c in study["comparisons"] if c["metric"])]))


def _unmeasured(runs: Iterable[Run], wanted: list[str]) -> list[str]:
    lines = []
    for metric in wanted:
        missing = sum(run.value(metric) is None for run in runs)
        if missing:
            evaluator, dot, _ = metric.rpartition(".")
            remedy = f": evaluators=[{evaluator}] measures it" if dot else ""
            lines.append(f"{missing} finished run{'s have' if missing > 1 else ' has'} no {metric}{remedy}")
    return lines
