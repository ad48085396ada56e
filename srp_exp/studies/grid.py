"""The runs of a grid: every method of a study, in every cell of its axes, for every seed."""

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.fields import settings
from srp_exp.config.identity import run_folder
from srp_exp.config.study import StudyConfig
from srp_exp.config.validate import validate
from srp_exp.studies.results import Cell
from srp_exp.studies.store import Run, find_run, slurm_jobs

SEED = "seed"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid: what it is in the table, the overrides that make it, and its folder as it was found."""

    method: str
    cell: Cell
    seed: int
    overrides: tuple[str, ...]
    config: DictConfig
    run: Run

    @property
    def label(self) -> str:
        """What tells it from the others of its grid."""
        parts = [f"{axis}={value}" for axis, value in self.cell]
        return " ".join([*filter(None, [self.method]), *parts, f"seed={self.seed}"])


@dataclass(frozen=True)
class Grid:
    """The runs of a grid in order, and what the command line fixed for all of them."""

    runs: tuple[PlannedRun, ...]
    fixed: tuple[str, ...]

    def distinct(self) -> list[PlannedRun]:
        """One planned run for every folder: two methods may name the same run."""
        return list({planned.run.folder: planned for planned in self.runs}.values())


def plan(
    config: DictConfig,
    parameters: Mapping[str, str],
    overrides: Sequence[Override],
    parse: Callable[[list[str]], list[Override]],
    compose: Callable[[list[str]], DictConfig],
) -> Grid:
    """Plan the grid of `config`.

    Args:
        config: the composed configuration without sweeps; its `study` names the methods, if there is one.
        parameters: hydra.sweeper.params, such as {"seed": "0,1,2"}; `overrides` of the same key replace them.
        overrides: those of the command line, sweeps among them.
        parse: Hydra's parser of overrides.
        compose: makes the configuration of a run from its overrides.

    Raises:
        ValueError: a configuration of the grid can't be run, or the command line sets what the study compares.
    """
    methods = _methods(config.study, overrides)
    given = [*parse([f"{key}={value}" for key, value in parameters.items()]), *overrides]
    (combinations,) = BasicSweeper.split_arguments(given, None)
    swept = {o.get_key_element() for o in given if o.is_sweep_override()} | set(parameters)
    fixed = settings(config)
    cells: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for combination in combinations:  # a seed changes one number: it isn't worth composing for
        pairs = [(override.partition("=")[0], override.partition("=")[2]) for override in combination]
        seeds = [_seed(value) for key, value in pairs if key == SEED] or [config.seed]
        cells.setdefault(tuple(pair for pair in pairs if pair[0] != SEED), []).extend(seeds)
    runs, queue = [], cache(slurm_jobs)
    for (pairs, seeds), (method, changes) in itertools.product(cells.items(), methods.items()):
        of_run = [*changes, *(f"{key}={value}" for key, value in pairs)]
        composed = compose(of_run)
        cell = tuple((key.lstrip("+"), value) for key, value in pairs if key in swept)
        for seed in dict.fromkeys(seeds):
            seeded = _with_seed(composed, seed)
            if seed == seeds[0]:
                _validate(seeded, of_run)
            run = find_run(run_folder(seeded), queue)
            runs.append(PlannedRun(method, cell, seed, (*of_run, f"{SEED}={seed}"), seeded, run))
    plain = [o.input_line for o in overrides if not o.is_sweep_override() and o.key_or_group not in {SEED, *fixed}]
    return Grid(tuple(runs), tuple(line for line in plain if line is not None))


def _methods(study: StudyConfig | None, overrides: Iterable[Override]) -> dict[str, list[str]]:
    if study is None or not study.methods:
        return {"": []}
    methods = {str(name): list(changes) for name, changes in study.methods.items()}
    for override in overrides:
        for name, changes in methods.items():
            if any(change.partition("=")[0] == override.key_or_group for change in changes):
                raise ValueError(
                    f"{override.input_line}: study={study.name} compares {override.key_or_group} (method {name}); "
                    f"leave it out, or change 'study.methods.{name}=[...]'"
                )
    return methods


def _seed(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"seed={value} is not a whole number") from None


def _with_seed(config: DictConfig, seed: int) -> DictConfig:
    if config.seed == seed:
        return config
    seeded = copy.deepcopy(config)
    OmegaConf.set_readonly(seeded, False)
    seeded.seed = seed
    return seeded


def _validate(config: DictConfig, overrides: list[str]) -> None:
    try:
        validate(config)
    except ValueError as error:
        raise ValueError(f"{' '.join(overrides)}: {error}") from None
