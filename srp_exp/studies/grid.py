"""The runs of a grid: every method of a study, in every cell of its axes, for every seed."""

import copy
import hashlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.check_study import check_study
from srp_exp.config.choices import completed
from srp_exp.config.command_line import check_overrides, check_sweeps
from srp_exp.config.evaluators import not_measured
from srp_exp.config.failures.explain import explain
from srp_exp.config.failures.faults import is_users
from srp_exp.config.identity import run_folder, same_training
from srp_exp.config.in_words import study_file
from srp_exp.config.schemas.fields import settings
from srp_exp.config.schemas.study import StudyConfig
from srp_exp.config.validate import not_read, validate, validate_fields
from srp_exp.errors import UserError
from srp_exp.runs.folder.store import Run, State, find_run, slurm_jobs

SEED = "seed"

HOW = ("dry", "rerun", "wait", "progress")
"""Settings of a command that another command doesn't repeat."""

LONGEST_VARIANT = 100

Cell: TypeAlias = tuple[tuple[str, str], ...]
"""What an entry was run with besides its method and seed: ((axis, value), ...) in the order of the grid."""


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
    def is_left(self) -> bool:
        """Whether it has to be launched: to be trained, or for evaluators that haven't measured it yet."""
        if self.run.is_finished:
            return bool(not_measured(self.run.folder / "evaluation" / "test", self.config.evaluators))
        return self.run.state not in (State.running, State.queued)

    @property
    def label(self) -> str:
        """What tells it from the others of its grid."""
        parts = [f"{axis}={value}" for axis, value in self.cell]
        return " ".join([*filter(None, [self.method]), *parts, f"seed={self.seed}"])


@dataclass(frozen=True)
class Grid:
    """The runs of a grid in order, and the command line that made it.

    fixed: what it set for all runs. arguments: all of it, but for what says how to run and not what. variant: what
    a report's folder is called by, besides the study. changed: what makes the grid differ from the study's.
    lacking: values of the study's `each` that it leaves out. file: the text of the study's file.
    """

    runs: tuple[PlannedRun, ...]
    fixed: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    variant: str = ""
    changed: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    file: str = ""

    @property
    def entries(self) -> dict[tuple[str, Cell], dict[int, Run]]:
        """(method, cell) -> seed -> run, in the order of the grid."""
        entries: dict[tuple[str, Cell], dict[int, Run]] = {}
        for planned in self.runs:
            entries.setdefault((planned.method, planned.cell), {})[planned.seed] = planned.run
        return entries

    def looked_up(self) -> "Grid":
        """The same runs in the states in which they are now; composing them again would take ten times as long."""
        queue = cache(slurm_jobs)
        runs = (replace(planned, run=find_run(planned.run.folder, queue)) for planned in self.runs)
        return replace(self, runs=tuple(runs))

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
    """Plan the grid of `config`, the composed configuration without sweeps.

    parameters: hydra.sweeper.params, such as {"seed": "0,1,2"}; overrides of the command line replace them key by key.
    parse: Hydra's parser of overrides. compose: makes the configuration of a run from its overrides. Raises ValueError
    where a run of the grid can't be run, the command line sets what the study compares, or the study names what the
    grid doesn't have.
    """
    if config.study is not None:
        validate_fields(config.study, "study.")
    methods = _methods(config.study, overrides)
    given = [*parse(_swept(parameters)), *overrides]
    check_sweeps(given, len(methods))
    (combinations,) = BasicSweeper.split_arguments(given, None)
    if not combinations:
        sweeps = {o.get_key_element(): str(o.input_line) for o in given if o.is_sweep_override()}
        raise UserError(f"{' '.join(sweeps.values())}: no run is in this grid")
    swept = {o.get_key_element() for o in given if o.is_sweep_override()} | set(parameters)
    fixed = {SEED, *settings(config)}
    if config.study is not None:
        check_study(config.study, methods, [key.lstrip("+") for key in swept if key != SEED])
    cells: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for combination in combinations:  # a seed changes one number: it isn't worth composing for
        values = [(override.partition("=")[0], override.partition("=")[2]) for override in combination]
        seeds = [_seed(value) for key, value in values if key == SEED] or [config.seed]
        cells.setdefault(tuple(pair for pair in values if pair[0] != SEED), []).extend(seeds)
    runs, queue = [], cache(slurm_jobs)
    folders: dict[tuple[Path, str], Path] = {}
    cell_of: dict[tuple[str, Path], Cell] = {}
    unread: list[list[str]] = []
    plain = [str(o.input_line) for o in overrides if not o.is_sweep_override()]
    for (pairs, seeds), (method, changes) in itertools.product(cells.items(), methods.items()):
        of_run = [*changes, *(f"{key}={value}" for key, value in pairs)]
        composed = _composed(compose, of_run, method)
        unread.append(not_read(composed, plain))
        cell = tuple((key.lstrip("+"), value) for key, value in pairs if key in swept)
        for seed in dict.fromkeys(seeds):
            seeded = with_seed(composed, seed)
            if seed == seeds[0]:
                _validate(seeded, of_run)
            folder = run_folder(seeded)  # of the first that names this training, which makes it
            folder = folders.setdefault((folder.parent, same_training(folder)), folder)
            _check_copy(cell_of.setdefault((method, folder), cell), cell)
            run = find_run(folder, queue)
            runs.append(PlannedRun(method, cell, seed, (*of_run, f"{SEED}={seed}"), seeded, run))
    for line in set.intersection(*map(set, unread)):  # where some of the runs read it, all may be given it
        raise UserError(line)
    unknown = {one.run for one in (config.study.exclude if config.study else ())} - {
        run.run.folder.name for run in runs
    }
    if unknown:
        raise UserError(f"study.exclude: {min(unknown)}: no run of this grid has such a folder")
    own = _values(parse(_swept(parameters)))
    changed = _changed(config, overrides, own) if config.study is not None else ()
    each = config.study.each if config.study is not None else []
    found = {pair for cell in cells for pair in cell}
    lacking = tuple(f"{a}={value}" for a in each for value in own.get(a, []) if (a, value) not in found)
    return Grid(tuple(runs), *_command_line(config, overrides, fixed), changed, lacking, study_file(config))


def _command_line(
    config: DictConfig, overrides: Sequence[Override], fixed: set[str]
) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Of the grid: `fixed`, `arguments`, `variant`."""
    of_all = [o for o in overrides if not o.is_sweep_override() and o.key_or_group.partition(".")[0] not in fixed]
    own = [source.path for source in config.hydra.runtime.config_sources if "command-line" in source.provider]
    searched = [f"--config-dir={os.path.relpath(path)}" for path in own]
    arguments = _lines([override for override in overrides if override.key_or_group not in HOW])
    chosen = (SEED, "study.")
    making = [o for o in overrides if o.is_sweep_override() or o in of_all or o.key_or_group.startswith(chosen)]
    exact = "".join(f"-{change}" for change in _lines(making))
    name = re.sub(r"[^\w.,=-]+", "_", exact)
    if name != exact or len(name) > LONGEST_VARIANT:
        name = f"{name[:LONGEST_VARIANT]}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"
    return tuple(_lines(of_all)), (*searched, *arguments), name


def _changed(config: DictConfig, overrides: Sequence[Override], swept: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The overrides that change what is trained, compared or asked; `swept`: what the study itself runs over."""
    changed = []
    for override in overrides:
        key = override.key_or_group.lstrip("+~")
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(config, group) if group else config
        if key.startswith("study."):
            is_place = name in ("exclude", "pilot", "spread")  # which the report tells by itself
        else:
            is_place = key == "study" or (isinstance(node, DictConfig) and name in settings(node))
        if not (is_place or key.startswith("hydra") or _values([override]).get(key) == swept.get(key, ())):
            changed.append(override)
    return tuple(_lines(changed))


def _values(overrides: list[Override]) -> dict[str, list[str]]:
    """What each axis of `overrides` runs over."""
    values: dict[str, list[str]] = {}
    for combination in BasicSweeper.split_arguments(overrides, None)[0]:
        for key, _, value in (override.lstrip("+~").partition("=") for override in combination):
            values.setdefault(key, []).append(value)
    return {key: list(dict.fromkeys(of_key)) for key, of_key in values.items()}


def _lines(overrides: Iterable[Override]) -> list[str]:
    return [override.input_line for override in overrides if override.input_line is not None]


def _methods(study: StudyConfig | None, overrides: Iterable[Override]) -> dict[str, list[str]]:
    if study is None or not study.methods:
        return {"": []}
    methods = {str(name): list(changes) for name, changes in study.methods.items()}
    for name, changes in methods.items():
        for override in OverridesParser.create().parse_overrides(changes):
            if override.is_sweep_override():
                raise UserError(f"method {name}: {override.input_line}: a method is one choice; make it two methods")
    for override in overrides:
        for name, changes in methods.items():
            if any(change.partition("=")[0] == override.key_or_group for change in changes):
                raise UserError(
                    f"{override.input_line}: study={study.name} compares {override.key_or_group} (method {name}); "
                    f"leave it out, or change the method: \"study.methods.{name}=['{override.key_or_group}=...']\""
                )
    return methods


def _check_copy(first: Cell, cell: Cell) -> None:
    """Raise ValueError where two cells of a method are one training, which would count as two."""
    if first != cell:
        pairs = [(a, b) for a, b in itertools.zip_longest(first, cell) if a != b]
        one, other = (" ".join("=".join(pair) for pair in side if pair) for side in zip(*pairs, strict=True))
        raise UserError(f"{one} and {other} are one training: what they set isn't read, or can't change it")


def _seed(value: str) -> int:
    if not value.isdecimal():
        raise UserError(f"seed={value} is not a whole number from 0 on")
    return int(value)


def _swept(parameters: Mapping[str, Any]) -> list[str]:
    """What hydra.sweeper.params says, as overrides."""
    for key, value in parameters.items():
        if OmegaConf.is_config(value):
            raise UserError(f"hydra.sweeper.params.{key}={value}: write the values with commas, as {key}: 0,1")
    return [f"{key}={value}" for key, value in parameters.items()]


def _composed(compose: Callable[[list[str]], DictConfig], overrides: list[str], method: str) -> DictConfig:
    try:
        check_overrides(overrides)
        return completed(_without_hydra(compose(overrides)))
    except Exception as error:
        if not method or not is_users(error):
            raise
        raise UserError(f"method {method}: {explain(error)}") from error


def _without_hydra(config: DictConfig) -> DictConfig:
    """Hydra's part is two thirds of a configuration, and no part of a run: copying it for every seed is slow."""
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra", None)
    OmegaConf.set_struct(config, True)
    return config


def with_seed(config: DictConfig, seed: int) -> DictConfig:
    if config.seed == seed:
        return config
    seeded = copy.deepcopy(config)
    seeded.seed = seed
    return seeded


def _validate(config: DictConfig, overrides: list[str]) -> None:
    try:
        validate(config)
    except ValueError as error:
        raise UserError(f"{' '.join(overrides)}: {error}") from None
