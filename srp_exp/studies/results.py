"""What a study has measured so far: the entries of its table."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from srp_exp.config.check_study import other_recipes
from srp_exp.config.identity import run_folder, same_training
from srp_exp.config.in_words import trained
from srp_exp.config.metrics import is_share
from srp_exp.config.schemas.study import METHOD, StudyConfig
from srp_exp.errors import UserError
from srp_exp.runs.folder.layout import differences
from srp_exp.runs.folder.origins import confounded, counted, origins, other_data, unmeasured
from srp_exp.runs.folder.store import Run, State
from srp_exp.studies.grid import Cell, Grid, with_seed
from srp_exp.studies.pairs import Runs, plain_study, too_few


@dataclass(frozen=True)
class Entry:
    """A method in a cell, over its seeds. `values` has the study's metric of the finished runs, by seed.

    seeds: all of them in order, with those whose run is excluded; () where none is.
    """

    method: str
    cell: Cell
    runs: Mapping[int, Run]
    values: Mapping[int, float]
    seeds: tuple[int, ...] = ()

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

    study: its configuration (srp_exp.config.schemas.study), plain. warnings: where entries may not be compared.
    arguments, changed, lacking, file: as the grid has them. left_out: finished runs of other seeds. excluded: "run:
    reason". trained: training data, network and recipe.
    """

    study: Mapping[str, Any]
    entries: tuple[Entry, ...]
    arguments: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    changed: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    left_out: int = 0
    excluded: tuple[str, ...] = ()
    file: str = ""
    trained: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.study["name"])

    @property
    def runs(self) -> Runs:
        return {(e.method, e.cell): {seed: e.runs.get(seed) for seed in e.seeds or e.runs} for e in self.entries}

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(dict.fromkeys(entry.cell for entry in self.entries))

    @property
    def states(self) -> dict[State, int]:
        """How many runs are in each state; a run that several entries share counts once."""
        runs = {run.folder: run.state for entry in self.entries for run in entry.runs.values()}
        return {state: list(runs.values()).count(state) for state in State if state in runs.values()}


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

    A share (srp_exp.config.metrics) is shown in percent, its differences in points.
    """
    if is_share(metric):
        name = re.sub(r"top(\d)$", r"top-\1", metric).replace("balanced_", "balanced ").replace("macro_f1", "macro F1")
        return Unit(f"{name} (%)", 100, 2, " points")
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
    """The entries of `grid` with the metric of `study` where a run is finished; of several looks those begun."""
    plain = plain_study(study)
    plain["pilot"] |= too_few(plain, grid.entries) is not None
    excluded = {str(one["run"]): str(one["reason"]) for one in plain["exclude"]}
    entries = []
    for (method, cell), planned in grid.entries.items():
        begun = sum(run.state != State.new for run in planned.values())
        seeds = tuple(planned)[: next((look for look in plain["looks"] if look >= begun), None)]
        runs = {seed: planned[seed] for seed in seeds if planned[seed].folder.name not in excluded}
        measured = {seed: value_of(run, study.metric) for seed, run in runs.items()}
        values = {seed: value for seed, value in measured.items() if value is not None}
        entries.append(Entry(method, cell, runs, values, seeds))
    finished = {run.folder: run for entry in entries for run in entry.finished}
    same = {name: of for name, of in origins(finished.values()).items() if name != "data"}  # which a grid may vary
    warnings = [f"runs of different {name} in one table: {counted(of)}" for name, of in same.items() if len(of) > 1]
    of = {name: [run for e in entries if e.method == name for run in e.finished] for name in plain["methods"]}
    for one, other in ((c["method"], c["baseline"]) for c in plain["comparisons"]):
        warnings += confounded(one, of[one], other, of[other])
    warnings += other_data(list(finished.values()))
    for run in finished.values():
        warnings += [
            f"{run.folder.name} resumed in a different environment: {found}" for found in differences(run.starts)
        ]
    warnings += unmeasured(finished.values(), metrics(plain)) + other_recipes({p.method: p.config for p in grid.runs})
    reasons = tuple(f"{run}: {reason}" for run, reason in excluded.items())
    command = (*grid.arguments, *["study.pilot=true"] * (plain["pilot"] and not study.pilot))
    given = command, tuple(dict.fromkeys(warnings)), grid.changed, grid.lacking, _left_out(grid), reasons
    return StudyResults(plain, tuple(entries), *given, grid.file, trained(planned.config for planned in grid.runs))


def _left_out(grid: Grid) -> int:
    """Finished runs of the same trainings with seeds that the grid leaves out."""
    planned = {same_training(run.run.folder): run for run in grid.runs}
    first = {(run.method, run.cell): run for run in grid.runs}.values()
    seeds: dict[Path, int] = {}
    for place in {run.run.folder.parent / f"{run.run.folder.name.partition('-')[0]}-*" for run in first}:
        for folder in place.parent.glob(place.name):
            told = folder / "config.yaml"
            if same_training(folder) not in planned and (folder / "results.json").exists() and told.exists():
                seed = re.search(r"^seed: (\d+)$", told.read_text(errors="replace"), re.MULTILINE)
                seeds.update({folder: int(seed[1])} if seed else {})
    wanted = {same_training(run_folder(with_seed(run.config, seed))) for run in first for seed in {*seeds.values()}}
    return len({same_training(folder) for folder in seeds} & wanted)


def metrics(study: Mapping[str, Any]) -> list[str]:
    """Those that a study asks for."""
    return list(dict.fromkeys([study["metric"], *(c["metric"] for c in study["comparisons"] if c["metric"])]))
