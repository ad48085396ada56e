"""TensorBoard's curves of a run, which the run can do without."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter, summary

from srp_exp.training.dispensable import Dispensable
from srp_exp.training.logs import LOG

_EVENTS = "events.out.tfevents.*"


class Curves:
    """Writes events into `folder` after `begin`. Where that fails they end, until `try_again`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state = Dispensable("TensorBoard's curves")
        self._writer: SummaryWriter | None = None
        self._hook = threading.excepthook

    def begin(self, step: int) -> None:
        """Write what comes after `step`; what an earlier start wrote of later steps is purged."""
        threading.excepthook = self._leave_it_to_the_caller
        _warn_of_the_clock(self._folder, step)
        self.try_again(step)

    def write(self, write: Callable[[SummaryWriter], object]) -> None:
        """Let `write` write into the events."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._state.written():
                write(writer)
                self._writer = writer

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        def write(writer: SummaryWriter) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        self.write(write)

    def hparams(self, hparams: dict[str, Any], metrics: dict[str, float], step: int) -> None:
        """Write the settings and final metrics, for TensorBoard's HParams page.

        Not by `add_hparams`, which writes a list of the run's settings as well: the page takes the first run's list for
        that of all, where without one it shows every setting of any run, and first those that differ.
        """
        _, start, end = summary.hparams(hparams, metrics)

        def write(writer: SummaryWriter) -> None:
            events: Any = writer.file_writer  # torch's types know it before it is opened only
            for part in (start, end):
                events.add_summary(part, step)

        self.write(write)
        self.scalars(metrics, step)

    def flush(self) -> None:
        """Bring all to the disk."""
        self.write(lambda writer: writer.flush())

    def try_again(self, step: int) -> None:
        """Where they ended, write what comes after `step`."""
        if self._writer is not None:
            return
        with self._state.written():
            self._folder.stat()  # a writer would make a folder that was deleted
            self._writer = SummaryWriter(str(self._folder), purge_step=step + 1 if step else 0)
        if self._state.fails:  # a full disk takes files without content
            with suppress(OSError):
                for file in self._folder.glob(_EVENTS):
                    if not file.stat().st_size:
                        file.unlink()

    def close(self) -> None:
        self.write(lambda writer: writer.close())
        threading.excepthook = self._hook

    def _leave_it_to_the_caller(self, arguments: "threading.ExceptHookArgs") -> None:
        """Print no traceback where TensorBoard's thread can't write: its next caller gets the error."""
        in_tensorboard = type(arguments.thread).__module__.startswith("tensorboard.")
        if not (in_tensorboard and isinstance(arguments.exc_value, OSError)):
            self._hook(arguments)


def _warn_of_the_clock(folder: Path, step: int) -> None:
    """TensorBoard reads the files of events in the order of the times in their names."""
    found = [re.search(r"tfevents\.(\d+)\.", file.name) for file in folder.glob(_EVENTS)]
    if max((float(time_of[1]) for time_of in found if time_of), default=0) > time.time() + 1:
        LOG.warning(
            "the clock is behind that of an earlier start: TensorBoard may leave out what comes after step %d; "
            "metrics.jsonl has all", step,
        )  # fmt: skip
