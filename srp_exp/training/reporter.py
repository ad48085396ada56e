"""What a training says while it runs: the console, the log file, metrics.jsonl and TensorBoard."""

import json
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from srp_exp.files import write_atomically
from srp_exp.srp import srp_modules
from srp_exp.training.learner import Learner
from srp_exp.training.logs import CONSOLE, LOG


class Reporter:
    """Reports the progress of one run into its folder and, with a progress bar on a terminal, to the console."""

    def __init__(self, folder: Path, writer: SummaryWriter, epochs: int, batch_size: int, progress: bool) -> None:
        self.writer = writer
        self._folder, self._epochs, self._batch_size = folder, epochs, batch_size
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=CONSOLE,
            disable=not (progress and CONSOLE.is_terminal),
        )
        self._previous = dict.fromkeys(("loss", "correct", "samples"), 0.0)
        self._clock = (0, 0.0)

    def start(self, learner: Learner, steps_per_epoch: int) -> None:
        """Show the bar, at the step from which `learner` goes on."""
        if learner.step:
            LOG.info("resumed after step %d (epoch %d)", learner.step, learner.epoch)
        self._write_metrics(learner)
        self._task = self._progress.add_task(
            "", total=self._epochs * steps_per_epoch, completed=learner.step, epoch=learner.epoch + 1,
            epochs=self._epochs, values="",
        )  # fmt: skip
        self._progress.start()
        self._start_clock(learner)

    def step(self, learner: Learner, totals: dict[str, float], lr: float) -> None:
        """Report the steps since the last report; `totals` are of the epoch so far, `lr` of the last step."""
        if totals["samples"] <= self._previous["samples"]:
            self._previous = dict.fromkeys(self._previous, 0.0)
        window = {name: totals[name] - before for name, before in self._previous.items()}
        self._previous = {name: totals[name] for name in self._previous}
        loss, top1 = window["loss"] / window["samples"], window["correct"] / window["samples"]
        images_per_second = self._images_per_second(learner)
        self._scalars(
            {"train/loss": loss, "train/top1": top1, "lr": lr, "images_per_second": images_per_second}, learner.step
        )
        values = f"loss {loss:.3f}  top-1 {top1:.1%}  {images_per_second:,.0f} img/s"
        self._progress.update(self._task, completed=learner.step, epoch=learner.epoch + 1, values=values)

    def epoch(self, learner: Learner) -> None:
        """Report an epoch that is finished and saved."""
        metrics = learner.history[-1]
        self._write_metrics(learner)
        self._scalars(
            {name: v for name, v in metrics.items() if name.partition("/")[0] in ("val", "test")}, learner.step
        )
        self._scalars({f"srp_scale/{name}": r.scale for name, r in srp_modules(learner.model).items()}, learner.step)
        self.writer.flush()
        LOG.info("epoch %d/%d  %s", learner.epoch, self._epochs, _format(metrics))
        self._start_clock(learner)

    def close(self) -> None:
        self._progress.stop()

    def _start_clock(self, learner: Learner) -> None:
        """Evaluation and saving lie between two epochs, and don't count as time of the steps."""
        self._clock = (learner.step, time.perf_counter())

    def _images_per_second(self, learner: Learner) -> float:
        (step, then), now = self._clock, time.perf_counter()
        self._start_clock(learner)
        return (learner.step - step) * self._batch_size / (now - then)

    def _scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def _write_metrics(self, learner: Learner) -> None:
        """The file is the history in the checkpoint: after a crash no line stands twice and none is missing."""
        lines = "".join(json.dumps(metrics) + "\n" for metrics in learner.history)
        write_atomically(self._folder / "metrics.jsonl", lines.encode())


def _format(metrics: dict[str, Any]) -> str:
    shown = {name: value for name, value in metrics.items() if "/" in name}
    return "  ".join(f"{name} {value:.1%}" if "top" in name else f"{name} {value:.3f}" for name, value in shown.items())
