"""The training loop: epochs of steps, each followed by evaluation, a checkpoint and a report."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from srp_exp.datasets import TrainingBatches
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner
from srp_exp.training.reporter import Reporter

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Maps a model to named metrics, such as {"val/top1": 0.93}."""


class NonFiniteLossError(ValueError):
    """The loss became infinite or not a number."""


@dataclass(frozen=True)
class LoopSettings:
    epochs: int
    log_every_steps: int = 10
    evaluate_every_epochs: int = 1
    select_by: str | None = None
    """The metric whose highest value marks the best epoch; None: the last epoch is the result."""


def fit(
    learner: Learner,
    batches: TrainingBatches,
    evaluate: Evaluate,
    checkpoints: Checkpoints,
    reporter: Reporter,
    settings: LoopSettings,
) -> None:
    """Train `learner` to the end, from its latest checkpoint where there is one.

    Raises NonFiniteLossError, naming step, learning rate and last good checkpoint.
    """
    checkpoints.resume(learner)
    reporter.start(learner, batches.steps_per_epoch)
    while learner.epoch < settings.epochs:
        metrics = train_epoch(learner, batches, checkpoints, reporter, settings.log_every_steps)
        learner.epoch += 1
        if learner.epoch % settings.evaluate_every_epochs == 0 or learner.epoch == settings.epochs:
            metrics |= evaluate(learner.evaluated_model)
        learner.history.append(metrics)
        checkpoints.save(learner, is_best=is_best(learner.history, settings.select_by))
        reporter.epoch(learner)


def train_epoch(
    learner: Learner, batches: TrainingBatches, checkpoints: Checkpoints, reporter: Reporter, log_every_steps: int
) -> dict[str, Any]:
    """Train to the end of the epoch; return its number, last step, learning rate, and mean loss and top-1."""
    first_step = learner.step - learner.epoch * batches.steps_per_epoch
    lrs: list[float] = []
    for index, batch in enumerate(batches.epoch(learner.epoch, first_step), first_step + 1):
        lrs.append(learner.lr)
        learner.train_step(batch)
        if index % log_every_steps == 0 or index == batches.steps_per_epoch:
            totals = learner.totals.read()
            if totals["bad_step"]:
                bad_step = int(totals["bad_step"])
                lr = lrs[bad_step - learner.step - 1]
                raise NonFiniteLossError(_describe_failure("the loss is", bad_step, lr, batches, checkpoints))
            reporter.step(learner, totals, lrs[-1])
    if not all(parameter.isfinite().all() for parameter in learner.model.parameters()):
        raise NonFiniteLossError(_describe_failure("weights are", learner.step, lrs[-1], batches, checkpoints))
    learner.totals.values.zero_()
    return {
        "epoch": learner.epoch + 1,
        "step": learner.step,
        "lr": lrs[-1],
        "train/loss": totals["loss"] / totals["samples"],
        "train/top1": totals["correct"] / totals["samples"],
    }


def is_best(history: list[dict[str, Any]], metric: str | None) -> bool:
    """Whether the last epoch has the highest value of `metric`, the first of equal ones counting as the best."""
    if metric is None or metric not in history[-1]:
        return False
    return all(history[-1][metric] > earlier[metric] for earlier in history[:-1] if metric in earlier)


def _describe_failure(what: str, step: int, lr: float, batches: TrainingBatches, checkpoints: Checkpoints) -> str:
    epoch, index = divmod(step - 1, batches.steps_per_epoch)
    return (
        f"{what} not finite at step {index + 1} of epoch {epoch + 1} (learning rate {lr:.3g}); "
        f"last good checkpoint: {checkpoints.latest() or 'none'}; lower optimizer.lr, or set recipe.clip_norm"
    )
