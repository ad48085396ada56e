"""What a training says while it runs: the console, the log file, metrics.jsonl and TensorBoard."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter, summary

from srp_exp.files import write_atomically
from srp_exp.srp import srp_modules
from srp_exp.training.learner import Learner
from srp_exp.training.logs import CONSOLE, LOG

STARVING = 0.1
"""Part of the time waiting for data from which the progress bar shows it."""


class Reporter:
    """Reports the progress of one run into its folder and, with a progress bar on a terminal, to the console.

    `introduce` writes what stands at the beginning of the TensorBoard page.
    """

    def __init__(
        self, folder: Path, introduce: Callable[[SummaryWriter], None], epochs: int, batch_size: int, progress: bool
    ) -> None:
        self._introduce = introduce
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
        self._began = False

    def start(self, learner: Learner, steps_per_epoch: int) -> None:
        """Show the bar, at the step from which `learner` goes on; what was logged of later steps is purged."""
        self._writer = SummaryWriter(str(self._folder), purge_step=learner.step + 1 if learner.step else 0)
        self._began = True
        if learner.step:
            LOG.info("resumed after step %d (epoch %d)", learner.step, learner.epoch + 1)
        else:
            self._introduce(self._writer)
        self._warn_of_the_clock(learner.step)
        self._write_metrics(learner)
        self._task = self._progress.add_task(
            "", total=self._epochs * steps_per_epoch, completed=learner.step, epoch=learner.epoch + 1,
            epochs=self._epochs, values="",
        )  # fmt: skip
        self._progress.start()
        self._clock = (learner.step, time.perf_counter(), 0.0)

    def _warn_of_the_clock(self, step: int) -> None:
        """TensorBoard reads the files of events in the order of the times in their names."""
        times = [float(file.name.split(".")[3]) for file in self._folder.glob("events.out.tfevents.*")]
        if max(times, default=0) > time.time() + 1:
            LOG.warning(
                "the clock is behind that of an earlier start: TensorBoard may leave out what comes after step %d; "
                "metrics.jsonl has all", step,
            )  # fmt: skip

    def step(self, learner: Learner, totals: dict[str, float], lr: float, waited: float) -> None:
        """Report the steps since the last report.

        `totals` are of the epoch so far, `lr` of the last step, `waited` the seconds waited for data in the epoch.
        """
        if totals["samples"] <= learner.reported["samples"]:
            learner.reported = dict.fromkeys(learner.reported, 0.0)
        window = {name: totals[name] - before for name, before in learner.reported.items()}
        learner.reported = {name: totals[name] for name in learner.reported}
        loss, top1 = window["loss"] / window["samples"], window["correct"] / window["samples"]
        speed = self._speed(learner, waited)
        values = {"train/loss": loss, "train/top1": top1, "lr": lr, "gradient_norm": float(learner.gradient_norm)}
        self._scalars(values | {f"speed/{name}": value for name, value in speed.items()}, learner.step)
        shown = f"loss {loss:.3f}  top-1 {top1:.1%}  {speed['images_per_second']:,.0f} img/s"
        if speed["data_wait"] > STARVING:
            shown += f"  waiting for data {speed['data_wait']:.0%}"
        self._progress.update(self._task, completed=learner.step, epoch=learner.epoch + 1, values=shown)

    def epoch(self, learner: Learner) -> None:
        """Report an epoch that is finished, before it is saved: a resumed run reports it again and purges this."""
        metrics = learner.history[-1]
        self._write_metrics(learner)
        self._scalars(
            {name: v for name, v in metrics.items() if name.partition("/")[0] in ("val", "test")}, learner.step
        )
        self._scalars({f"srp_scale/{name}": r.scale for name, r in srp_modules(learner.model).items()}, learner.step)
        self.flush()
        LOG.info("epoch %d/%d  %s  %s", learner.epoch, self._epochs, _format(metrics), self._resources)
        self._clock = (learner.step, time.perf_counter(), 0.0)

    def flush(self) -> None:
        """Bring all scalars to the disk, so that none is missing below the step of a checkpoint."""
        self._writer.flush()

    def finish(self, hparams: dict[str, Any], metrics: dict[str, float]) -> None:
        """Report the settings and final metrics, for TensorBoard's HParams page.

        Not by `add_hparams`, which writes a list of the run's settings as well: the page takes the first run's list for
        that of all, where without one it shows every setting of any run, and first those that differ.
        """
        after_all = self._clock[0] + 1  # purged if the run is killed now, and made again
        _, start, end = summary.hparams(hparams, metrics)
        events: Any = self._writer.file_writer  # torch's types know it before it is opened only
        for part in (start, end):
            events.add_summary(part, after_all)
        self._scalars(metrics, after_all)

    def close(self) -> None:
        """Also after a start that failed."""
        self._progress.stop()
        if self._began:
            self._writer.close()

    def _speed(self, learner: Learner, waited: float) -> dict[str, float]:
        """Since the last report: images per second, part of the time waiting for data; on CUDA the peak memory."""
        step, then, waited_before = self._clock
        now = time.perf_counter()
        self._clock = (learner.step, now, waited)
        values = {
            "images_per_second": (learner.step - step) * self._batch_size / (now - then),
            "data_wait": (waited - waited_before) / (now - then),
        }
        self._resources = f"{values['images_per_second']:,.0f} img/s, waiting for data {values['data_wait']:.0%}"
        if learner.device.type == "cuda":
            values["memory_gib"] = torch.cuda.max_memory_allocated(learner.device) / 2**30
            self._resources += f", {values['memory_gib']:.1f} GiB"
        return values

    def _scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def _write_metrics(self, learner: Learner) -> None:
        """The file is the history in the checkpoint: after a crash no line stands twice and none is missing."""
        lines = "".join(json.dumps(metrics) + "\n" for metrics in learner.history)
        write_atomically(self._folder / "metrics.jsonl", lines.encode())


def _format(metrics: dict[str, Any]) -> str:
    shown = {name: value for name, value in metrics.items() if "/" in name}
    return "  ".join(f"{name} {value:.1%}" if "top" in name else f"{name} {value:.3f}" for name, value in shown.items())
