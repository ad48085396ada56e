"""logger=tensorboard: events in the run folder."""

import re
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter, summary

from srp_exp.training.loggers.logger import LoggedRun, Logger
from srp_exp.training.reporting.logs import LOG

_EVENTS = "events.out.tfevents.*"


class TensorBoard(Logger):
    """Curves, pictures, the configuration, and the settings and final metrics on the HParams page."""

    def __init__(self) -> None:
        self._hook = threading.excepthook

    def begin(self, run: LoggedRun, step: int) -> None:
        """What an earlier start wrote of later steps is purged."""
        threading.excepthook = self._leave_it_to_the_caller
        self._run = run
        _warn_of_the_clock(run.folder, step)
        run.folder.stat()  # a writer would make a folder that was deleted
        _remove_empty(run.folder)
        self._writer = SummaryWriter(str(run.folder), purge_step=step + 1 if step else 0)
        if not step:
            self._writer.add_text("config", "    " + run.config.replace("\n", "\n    "), 0)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, name: str, image: Tensor, step: int, caption: str = "") -> None:
        self._writer.add_image(name, image, step)
        if caption:
            self._writer.add_text(name, caption, step)

    def finish(self, metrics: Mapping[str, float], step: int) -> None:
        """Not by `add_hparams`, which writes a list of the run's settings as well.

        The HParams page takes the first run's list for that of all, where without one it shows every setting of any
        run, and first those that differ.
        """
        _, start, end = summary.hparams(dict(self._run.settings), dict(metrics))
        events: Any = self._writer.file_writer  # torch's types know it before it is opened only
        for part in (start, end):
            events.add_summary(part, step)
        self.scalars(metrics, step)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
        _remove_empty(self._run.folder)
        threading.excepthook = self._hook

    def _leave_it_to_the_caller(self, arguments: "threading.ExceptHookArgs") -> None:
        """Print no traceback where TensorBoard's thread can't write: its next caller gets the error."""
        in_tensorboard = type(arguments.thread).__module__.startswith("tensorboard.")
        if not (in_tensorboard and isinstance(arguments.exc_value, OSError)):
            self._hook(arguments)


def _remove_empty(folder: Path) -> None:
    """A full disk takes files without content."""
    with suppress(OSError):
        for file in folder.glob(_EVENTS):
            if not file.stat().st_size:
                file.unlink()


def _warn_of_the_clock(folder: Path, step: int) -> None:
    """TensorBoard reads the files of events in the order of the times in their names."""
    found = [re.search(r"tfevents\.(\d+)\.", file.name) for file in folder.glob(_EVENTS)]
    if max((float(time_of[1]) for time_of in found if time_of), default=0) > time.time() + 1:
        LOG.warning(
            "the clock is behind that of an earlier start: TensorBoard may leave out what comes after step %d; "
            "metrics.jsonl has all", step,
        )  # fmt: skip
