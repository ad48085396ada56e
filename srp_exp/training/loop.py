"""The training loop: epochs of steps, each followed by evaluation, a checkpoint and a report."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from srp_exp.datasets import Batch, TrainingBatches
from srp_exp.errors import CorruptImageError, UserError
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner
from srp_exp.training.look import Looks, Seen
from srp_exp.training.reporting.logs import LOG
from srp_exp.training.reporting.reporter import Reporter
from srp_exp.training.resume import resume
from srp_exp.training.stopping.interruption import Interruption
from srp_exp.training.stopping.pruning import GivenUpError
from srp_exp.training.stopping.selection import is_best, is_hopeless

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Maps a model to named metrics, such as {"val/top1": 0.93}."""


class NonFiniteLossError(UserError):
    """The loss, the gradient or a weight became infinite or not a number."""


@dataclass(frozen=True)
class Training:
    """What an epoch of training needs; the loop and its parts share it."""

    learner: Learner
    batches: TrainingBatches
    checkpoints: Checkpoints
    interruption: Interruption
    reporter: Reporter | None
    """None: another process reports."""
    epochs: int
    log_every_steps: int = 10
    evaluate_every_epochs: int = 1
    select_by: str | None = None
    """The metric whose highest value marks the best epoch; None: the last epoch is the result."""
    patience: int | None = None
    """Values of that metric, none of them a new best, after which the training ends; None: it never ends early."""
    gives_up: Callable[[Sequence[Mapping[str, Any]]], bool] | None = None
    """Whether a search gives up a training with these epochs, as rank 0 sees it; None: no search trains it."""


def fit(training: Training, evaluate: Evaluate) -> None:
    """Train to the end, from the latest checkpoint where there is one.

    Raises NonFiniteLossError, naming step, learning rate and last good checkpoint, and GivenUpError after an epoch
    with which the training is given up. An interruption by a signal saves the state and ends the process.
    """
    learner, reporter = training.learner, training.reporter
    resume(training.checkpoints, learner)
    if reporter is not None:
        reporter.start(learner, training.batches.steps_per_epoch)
    while learner.epoch < training.epochs and not _ends_early(training):
        metrics = train_epoch(training)
        number = learner.epoch + 1
        if number % training.evaluate_every_epochs == 0 or number == training.epochs:
            with _kept_if_unreadable(training, Looks(learner)):
                metrics |= evaluate(learner.evaluated_model)
        learner.totals.zero_()
        learner.epoch = number
        learner.history.append(metrics)
        if reporter is not None:
            reporter.epoch(learner)
        training.checkpoints.save(learner, is_best=is_best(learner.history, training.select_by))
        behind = training.gives_up is not None and training.gives_up(learner.history)
        if number < training.epochs and learner.processes.of_first(behind):
            raise GivenUpError(f"given up after epoch {number} of {training.epochs}")
    training.checkpoints.wait()


def _ends_early(training: Training) -> bool:
    history, metric = training.learner.history, training.select_by
    if metric is None or not is_hopeless(history, metric, training.patience):
        return False
    best = max((metrics for metrics in history if metric in metrics), key=lambda metrics: float(metrics[metric]))
    LOG.info("ends early, after epoch %d: the highest %s is that of epoch %d", len(history), metric, best["epoch"])
    return True


def train_epoch(training: Training) -> dict[str, Any]:
    """Train to the end of the epoch; return its number, last step, learning rate, and mean loss and top-1."""
    learner, checkpoints = training.learner, training.checkpoints
    steps_per_epoch = training.batches.steps_per_epoch
    first_step = learner.step - learner.epoch * steps_per_epoch
    lrs: list[float] = []
    looks = Looks(learner)
    waiting = Waiting(_readable(training, looks, training.batches.epoch(learner.epoch, first_step)))
    for index, batch in enumerate(waiting, first_step + 1):
        lrs.append(learner.lr)
        ends, saves = index == steps_per_epoch, checkpoints.due_by_steps(learner.step + 1)
        reports = ends or saves or index % training.log_every_steps == 0
        learner.train_step(batch, watch=reports)
        stops = learner.processes.size == 1 and training.interruption.signal is not None  # several agree in a look
        if not (reports or stops or looks.is_due()):
            continue
        looks.begin(training.interruption.signal or 0, checkpoints.due_by_time(), lrs[-1], waiting.seconds, reports)
        signal_seen = 0
        for seen in looks.read(at_once=ends or saves or stops):
            _check_finite(training, seen, lrs)
            if seen.is_report and training.reporter is not None:
                training.reporter.step(learner, seen)
            saves, signal_seen = saves or seen.saves, max(signal_seen, seen.signal)
        if signal_seen or (saves and not ends):
            _save(training)
        if signal_seen:
            _leave(training, signal_seen)
    _check_weights(training)
    looks.begin(0, False, learner.last_lr, waiting.seconds, False)  # an interruption may have come after the last step
    (seen,) = looks.read(at_once=True)
    totals = seen.totals
    return {
        "epoch": learner.epoch + 1,
        "step": learner.step,
        "lr": learner.last_lr,
        "train/loss": totals["loss"] / totals["samples"],
        "train/top1": totals["correct"] / totals["samples"],
    }


@contextmanager
def _kept_if_unreadable(training: Training, looks: Looks) -> Iterator[None]:
    """Save the steps made before a picture that can't be read; not with several processes, which can't agree on it."""
    try:
        yield
    except (CorruptImageError, OSError):
        learner = training.learner
        if learner.step and learner.processes.size == 1 and not learner.totals.read()["bad_step"]:
            for seen in looks.read(at_once=True):
                if seen.is_report and training.reporter is not None:
                    training.reporter.step(learner, seen)
            _save(training)
            training.checkpoints.wait()
            command = training.interruption.command
            LOG.info("saved at step %d: %s resumes there when the picture is replaced", learner.step, command)
        raise


def _readable(training: Training, looks: Looks, batches: Iterator[Batch]) -> Iterator[Batch]:
    while True:
        with _kept_if_unreadable(training, looks):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


class Waiting:
    """Passes batches on, and sums the `seconds` that the training waited for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.seconds = 0.0
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            batch = next(self._batches, None)
            self.seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def _check_finite(training: Training, seen: Seen, lrs: list[float]) -> None:
    learner = training.learner
    if seen.totals["bad_step"]:
        bad_step = int(seen.totals["bad_step"])
        raise NonFiniteLossError(_describe("the loss is", bad_step, lrs[bad_step - learner.step - 1], training))
    if learner.scaler.is_enabled():
        # fp16 overflows now and then, which its scaling mends by half the scale; below 1 nothing is left to mend.
        if seen.scale < 1:
            what = "after one skipped step after another the unscaled gradient is"
            raise NonFiniteLossError(_describe(what, seen.step, seen.lr, training))
    elif not math.isfinite(seen.gradient_norm):
        raise NonFiniteLossError(_describe("the gradient is", seen.step, seen.lr, training))


def _check_weights(training: Training) -> None:
    """Raise before weights that the last update spoilt are saved, or statistics of batch norm, or a moving average."""
    learner = training.learner
    checked = {"weights are": learner.model.parameters(), "the model's statistics are": learner.model.buffers()}
    if learner.ema is not None:
        checked["the moving average is"] = iter(learner.ema.state_dict().values())
    finite = {what: _all_finite(values, learner.device) for what, values in checked.items()}
    fine = learner.processes.gather(torch.stack([*finite.values()]).tolist())
    for what, of_ranks in zip(finite, zip(*fine, strict=True), strict=True):
        if not all(of_ranks):
            raise NonFiniteLossError(_describe(what, learner.step, learner.last_lr, training))


def _all_finite(values: Iterator[Tensor], device: torch.device) -> Tensor:
    """Whether all are finite, as a tensor on the device: waits for nothing."""
    flags = [value.detach().isfinite().all() for value in values if value.is_floating_point()]
    return torch.stack(flags).all() if flags else torch.ones((), dtype=torch.bool, device=device)


def _save(training: Training) -> None:
    """Save in the middle of an epoch; the scalars first, so that none is missing below the step of a checkpoint."""
    _check_weights(training)
    if training.reporter is not None:
        training.reporter.flush(training.learner)
    training.checkpoints.save(training.learner)


def _describe(what: str, step: int, lr: float, training: Training) -> str:
    epoch, index = divmod(step - 1, training.batches.steps_per_epoch)
    return (
        f"{what} not finite at step {index + 1} of epoch {epoch + 1} (learning rate {lr:.3g}); last good checkpoint: "
        f"{training.checkpoints.latest() or 'none'}; lower optimizer.lr, or set recipe.clip_norm"
    )


def _leave(training: Training, number: int) -> NoReturn:
    """End the process because of signal `number`, when what was saved for it is on the disk."""
    training.checkpoints.wait()
    step, name = training.learner.step, signal.Signals(number).name
    LOG.info("interrupted by %s, saved at step %d; run %s to resume", name, step, training.interruption.command)
    with training.learner.processes.first_before_others():  # who leaves first has the job ended before it is requeued
        training.interruption.leave(number)
