"""mode=train: train a run; a finished one is skipped without torch, whose import takes seconds."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from srp_exp.commands.dry_run import dry_run
from srp_exp.commands.listing import terminal
from srp_exp.commands.shared import show_metrics
from srp_exp.config.evaluators import not_measured
from srp_exp.config.identity import flat_identity, names_a_run, plain_values, run_folder
from srp_exp.config.visible import visible
from srp_exp.errors import UserError
from srp_exp.runs.folder.digests import digests_of_data, known_digests, refuse_other_data
from srp_exp.runs.folder.layout import DATA, EVALUATION, RESULTS
from srp_exp.runs.folder.store import find_run
from srp_exp.studies.grid import Grid, PlannedRun
from srp_exp.training.processes.distributed import launched_as


def execute(config: DictConfig) -> None:
    """Train the run of `config`, or say that it is finished, and measure it; `dry=true` only tries it out."""
    folder = run_folder(config)
    if names_a_run(config):
        named = f"run={config.run}" if config.run else f"checkpoint={config.checkpoint}"
        raise UserError(
            f"{named} is for mode=eval, predict, export or compare; a training is resumed by the command that began it"
        )
    if config.dry:
        dry_run(Grid((PlannedRun("", (), config.seed, (), config, find_run(folder)),), ()), terminal())
        return
    if (folder / RESULTS).exists() and not config.rerun:
        _check_data(config, folder)
        _ = find_run(folder).results  # which are read before it is said
        print(visible(f"finished already: {folder} (rerun=true trains it afresh)"))
    else:
        from srp_exp.runs.complete import complete_run
        from srp_exp.training.stopping.pruning import GivenUpError

        try:
            complete_run(OmegaConf.create(plain_values(config)), folder, flat_identity(config))
        except GivenUpError as error:
            print(visible(f"{error}: {folder}"))
            return
    if launched_as().rank == 0:
        _show(folder)
        _measure_missing(config, folder)


def _check_data(config: DictConfig, folder: Path) -> None:
    """Raise UserError where a finished run was trained on other data than there are now; say where there are none."""
    plain = OmegaConf.create(plain_values(config))
    digests = known_digests(plain.dataset)
    if digests is None and (folder / DATA).exists():
        from srp_exp.runs.build import build_dataset

        try:
            digests = digests_of_data(plain, build_dataset(plain))
        except InstantiationException as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            print(
                visible(f"not compared with the data of the run, which can't be read: {error.__cause__}"),
                file=sys.stderr,
            )
    refuse_other_data(folder, digests or {})


def _show(folder: Path) -> None:
    results = find_run(folder).results
    show_metrics("test", results["test"], results.get("classes", 0), results.get("never_predicted", ()))
    print(visible(f"run folder  {folder}"))
    if HydraConfig.get().mode == RunMode.RUN and any(folder.glob("events.out.tfevents.*")):
        tensorboard = str(Path(sys.executable).with_name("tensorboard"))
        shown = "tensorboard" if shutil.which("tensorboard") == tensorboard else os.path.relpath(tensorboard)
        print(visible(shlex.join([shown, "--logdir", str(folder)])))


def _measure_missing(config: DictConfig, folder: Path) -> None:
    """Let the evaluators that have no file in a finished run measure it: what fails here costs no training."""
    missing = not_measured(folder / EVALUATION, config.evaluators)
    if missing:
        from srp_exp.runs.evaluate import measure_run

        measure_run(OmegaConf.create(plain_values(config)), folder, missing)
        print(visible(f"measured {', '.join(missing)}  {folder / EVALUATION}"))
