"""The training of a run: checkpoints around the loop, then its result on the test split."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.datasets.known import facts_of
from srp_exp.evaluation import Evaluation
from srp_exp.runs.build import RunObjects
from srp_exp.runs.evaluate import evaluate_on, score_on
from srp_exp.runs.folder.layout import CHECKPOINTS
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.loop import Training, fit
from srp_exp.training.reporting.profiler import Profiled
from srp_exp.training.reporting.reporter import Reporter
from srp_exp.training.resume import load_best
from srp_exp.training.stopping.interruption import Interruption
from srp_exp.training.stopping.pruning import is_behind, read_bar


def train(
    config: DictConfig,
    folder: Path,
    built: RunObjects,
    reporter: Reporter | None,
    interruption: Interruption,
    confirm: Callable[[], None],
) -> tuple[Evaluation | None, float]:
    """Train to the end; return the evaluation of the result on the test split, and the seconds of this start."""
    data, batches, learner = built.data, built.batches, built.learner
    selects = config.recipe.selection == "best"
    checkpoints = Checkpoints(
        folder / CHECKPOINTS,
        OmegaConf.to_yaml(config),
        facts_of(data.dataset),
        confirm=confirm,
        every_steps=config.checkpoint.every_steps,
        every_minutes=config.checkpoint.every_minutes,
        writes=learner.processes.writes,
    )
    profiled = config.profile and learner.processes.writes
    training = Training(
        learner,
        Profiled(batches, folder / "profile") if profiled else batches,
        checkpoints,
        interruption,
        reporter,
        epochs=config.recipe.epochs,
        log_every_steps=config.log_every_steps,
        evaluate_every_epochs=config.recipe.evaluate_every_epochs,
        select_by="val/top1" if selects else None,
        patience=config.recipe.early_stopping,
        gives_up=None if config.prune_by is None else lambda of: is_behind(of, read_bar(Path(config.prune_by))),
    )
    watched = "test" if data.splits["val"] is None else "val"

    def measure(trained: torch.nn.Module) -> dict[str, float]:
        summary = score_on(config, trained, data, watched, learner.processes).summary()
        return {f"{watched}/{name}": value for name, value in summary.items()}

    started = time.perf_counter()
    try:
        fit(training, measure)
        seconds = time.perf_counter() - started
        if selects:
            load_best(checkpoints, learner)
        checkpoints.finish(learner.evaluated_model.state_dict())
        return evaluate_on(config, learner.evaluated_model, data, "test", learner.processes), round(seconds, 1)
    finally:
        checkpoints.wait()
