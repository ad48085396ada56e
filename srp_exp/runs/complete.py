"""A run from its configuration to its results."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from srp_exp.errors import CorruptImageError
from srp_exp.runs.begin import begin
from srp_exp.runs.build import build_first, build_objects
from srp_exp.runs.device import memory_suffices
from srp_exp.runs.finish import finish
from srp_exp.runs.hold import hold, keep_to_its_data, note_unreadable
from srp_exp.runs.train import train
from srp_exp.training.processes.distributed import connected
from srp_exp.training.reporting.logs import log_from_the_start
from srp_exp.training.stopping.interruption import Interruption


def complete_run(config: DictConfig, folder: Path, settings: dict[str, Any]) -> None:
    """Train the run of `config` in `folder`, from its latest checkpoint where there is one, and evaluate it.

    `settings` are what loggers show of it. results.json is written last: a run that has it is finished.
    Raises UserError where another process trains in the folder, or the device's memory does not suffice, and
    GivenUpError where a search gives the run up (config.prune_by).
    """
    device, loggers = build_first(config)
    with (
        connected(device) as processes,
        log_from_the_start(processes.writes),
        memory_suffices(device, config),
    ):
        built = build_objects(config, device, processes)  # before the folder is touched
        dataset = built.data.dataset
        afresh = config.rerun and not int(os.environ.get("SLURM_RESTART_COUNT") or 0)  # a requeued job resumes
        again = f"the same command{' without rerun=true' * config.rerun}"
        with Interruption(again).watch() as interruption, hold(folder, afresh, processes) as confirm:
            keep_to_its_data(config, folder, dataset, processes)
            reporter = begin(config, folder, settings, built, loggers, afresh) if processes.writes else None
            try:
                evaluation, seconds = train(config, folder, built, reporter, interruption, confirm)
                confirm()
                if reporter is not None and evaluation is not None:
                    finish(folder, built, evaluation, reporter, seconds)
            except CorruptImageError as error:
                if processes.writes and error.file is not None:
                    note_unreadable(folder, dataset, error.file)
                raise
            finally:
                if reporter is not None:
                    reporter.close()
