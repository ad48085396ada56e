"""What a training says while it runs: the console, the log file, metrics.jsonl and its loggers."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from srp_exp.config.metrics import is_share, worth_showing
from srp_exp.files import write_atomically
from srp_exp.srp import srp_modules
from srp_exp.training.learner import Learner
from srp_exp.training.loggers.guarded import Loggers
from srp_exp.training.look import Seen
from srp_exp.training.reporting.dispensable import Dispensable
from srp_exp.training.reporting.logs import CONSOLE, LOG
from srp_exp.training.throughput import Work, slowest

STARVING = 0.1
"""Part of the time waiting for data from which the console shows it."""

_SHOWN = "loss", "top1", "balanced_top1"
"""Of the metrics of an epoch, which its line has, so that it fits on 80 columns; metrics.jsonl has all."""


class Reporter:
    """Reports the progress of one run into its folder and, with a progress bar on a terminal, to the console.

    `introduce` logs what is known before the first step.
    """

    def __init__(
        self,
        folder: Path,
        loggers: Loggers,
        introduce: Callable[[Loggers], None],
        epochs: int,
        batch_size: int,
        progress: bool,
        work: Work | None = None,
    ) -> None:
        self._loggers, self._introduce, self._work = loggers, introduce, work
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
        self._clock = (0, 0.0, 0.0)
        self._resources = ""
        self._metrics = Dispensable("metrics.jsonl")

    def start(self, learner: Learner, steps_per_epoch: int) -> None:
        """Show the bar, at the step after which `learner` trains; what was logged of later steps is purged."""
        self._loggers.begin(learner.step)
        if learner.step:
            LOG.info("resumed after step %d (epoch %d)", learner.step, learner.epoch + 1)
        else:
            self._introduce(self._loggers)
        self._write_metrics(learner)
        self._task = self._progress.add_task(
            "", total=self._epochs * steps_per_epoch, completed=learner.step, epoch=learner.epoch + 1,
            epochs=self._epochs, values="",
        )  # fmt: skip
        self._progress.start()
        self._clock = (learner.step, time.perf_counter(), 0.0)

    def step(self, learner: Learner, seen: Seen) -> None:
        """Report the steps since the last report."""
        totals = seen.totals
        if totals["samples"] <= learner.reported["samples"]:
            learner.reported = dict.fromkeys(learner.reported, 0.0)
        window = {name: totals[name] - before for name, before in learner.reported.items()}
        learner.reported = {name: totals[name] for name in learner.reported}
        loss, top1 = window["loss"] / window["samples"], window["correct"] / window["samples"]
        speed = self._speed(learner, seen)
        values = {"train/loss": loss, "train/top1": top1, "lr": seen.lr, "gradient_norm": seen.gradient_norm}
        self._loggers.scalars(values | {f"speed/{name}": value for name, value in speed.items()}, seen.step)
        shown = f"loss {loss:.3f}  top-1 {top1:.1%}  {speed['images_per_second']:,.0f} img/s"
        if speed["data_wait"] > STARVING:
            shown += f"  waiting for data {speed['data_wait']:.0%}"
        self._progress.update(self._task, completed=seen.step, epoch=learner.epoch + 1, values=shown)

    def epoch(self, learner: Learner) -> None:
        """Report an epoch that is finished, before it is saved: a resumed run reports it again and purges this."""
        metrics = learner.history[-1]
        self._write_metrics(learner)
        values = {name: value for name, value in metrics.items() if name.partition("/")[0] in ("val", "test")}
        values |= {f"srp_scale/{name}": module.scale for name, module in srp_modules(learner.model).items()}
        self._loggers.scalars(values, learner.step)
        self.flush(learner)
        LOG.info("epoch %d/%d  %s  %s", learner.epoch, self._epochs, _format(metrics), self._resources)
        self._clock = (learner.step, time.perf_counter(), 0.0)

    def flush(self, learner: Learner) -> None:
        """Bring all scalars to the disk, so that none is missing below the step of a checkpoint."""
        self._loggers.flush(learner.step)

    def pictures(self, pictures: Mapping[str, Any]) -> None:
        """Log pictures of the result on the test split by their names, (H, W, 3) uint8 arrays."""
        for name, picture in pictures.items():
            self._loggers.picture(f"test/{name}", torch.from_numpy(picture).permute(2, 0, 1), self._clock[0] + 1)

    def finish(self, metrics: dict[str, float]) -> None:
        """Report the final metrics."""
        self._loggers.finish(metrics, self._clock[0] + 1)  # purged if the run is killed now, and made again

    def close(self) -> None:
        """Also after a start that failed."""
        self._progress.stop()
        self._loggers.close()

    def _speed(self, learner: Learner, seen: Seen) -> dict[str, float]:
        """Since the last report: images per second, part of the time waiting for data; on CUDA memory and work."""
        step, then, waited_before = self._clock
        seconds = seen.time - then
        self._clock = (seen.step, seen.time, seen.waited)
        values = {
            "images_per_second": (seen.step - step) * self._batch_size / seconds,
            "data_wait": (seen.waited - waited_before) / seconds,
        }
        self._resources = f"{values['images_per_second']:,.0f} img/s"
        if values["data_wait"] > STARVING:
            self._resources += f", waiting for data {values['data_wait']:.0%}"
        if learner.device.type == "cuda":
            values["memory_gib"] = torch.cuda.max_memory_allocated(learner.device) / 2**30
            self._resources += f", {values['memory_gib']:.1f} GiB"
        if self._work is not None:
            values |= self._work.speeds(values["images_per_second"])
            self._resources += f", {values['tflops']:.1f} TFLOP/s"
            self._resources += f" ({values['mfu']:.1%} of the peak)" if "mfu" in values else ""
        if apart := slowest(seen.rates):
            self._resources += f", {apart}"
            values["slowest_over_fastest"] = min(seen.rates) / max(seen.rates)
        return values

    def _write_metrics(self, learner: Learner) -> None:
        """The file is the history in the checkpoint: after a crash no line stands twice and none is missing."""
        lines = "".join(json.dumps(metrics) + "\n" for metrics in learner.history)
        with self._metrics.written():
            write_atomically(self._folder / "metrics.jsonl", lines.encode())


def _format(metrics: dict[str, Any]) -> str:
    """As "train loss 2.062 top1 25.5%  test loss 1.943 top1 31.0%"."""
    of_splits: dict[str, list[str]] = {}
    for name, value in worth_showing({name: value for name, value in metrics.items() if "/" in name}).items():
        split, _, metric = name.partition("/")
        if metric in _SHOWN:
            shown = f"{value:.1%}" if is_share(name) else f"{value:.3f}"
            of_splits.setdefault(split, [split]).append(f"{metric} {shown}")
    return "  ".join(" ".join(values) for values in of_splits.values())
