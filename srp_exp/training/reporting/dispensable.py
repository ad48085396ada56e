"""What a run can do without: the console, run.log, metrics.jsonl, its loggers, a profile.

A full disk or a dead pipe ends none of it: the log says once that something can't be written, and the run continues.
"""

import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_LOG = logging.getLogger("srp_exp")  # srp_exp.training.reporting.logs, which imports this module, writes it


class Dispensable:
    """One such thing, named `what` in the log. `fails` says whether the last attempt to write it failed.

    failure: what ends an attempt and not the run; a full disk is an OSError.
    """

    def __init__(self, what: str, failure: type[Exception] = OSError) -> None:
        self._what, self._failure = what, failure
        self.fails = False

    @contextmanager
    def written(self) -> Iterator[None]:
        """Write it inside: a failure ends this attempt and nothing else. Said are the first failure and its end."""
        try:
            yield
        except self._failure as error:
            if not self.fails:
                self.fails = True
                _LOG.error("%s: can't be written (%s); the run continues", self._what, _why(error))
            return
        if self.fails:
            self.fails = False
            _LOG.info("%s: written again", self._what)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


class _Stream(io.FileIO):
    """The standard output or error until writing it fails; from then on what goes to its descriptor is discarded."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = left.nbytes
        try:
            while left:
                if (written := super().write(left)) is None:  # a descriptor that doesn't block, and is full
                    select.select([], [self], [])
                left = left[written or 0 :]
        except OSError as error:
            self._discard(error)
        return size

    def _discard(self, error: OSError) -> None:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
        _discarded.add(self.fileno())
        if _LOG.handlers:  # of a training
            _LOG.warning("the console is gone (%s): the run continues, and run.log has its lines", error.strerror)


_discarded: set[int] = set()


def console_is_gone() -> bool:
    """Whether the standard output is discarded since it can't be written."""
    return 1 in _discarded


def outlive_the_console() -> None:
    """Let this process continue where its console goes away: `| head`, a dead tee, a terminal that was closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # begun with its descriptor closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        elif type(stream) is io.TextIOWrapper and type(stream.buffer) in (io.BufferedWriter, io.FileIO):
            raw = stream.buffer.raw if isinstance(stream.buffer, io.BufferedWriter) else stream.buffer
            if type(raw) is io.FileIO and raw.fileno() in (1, 2):
                setattr(sys, name, _outliving(stream, raw.fileno()))


def _outliving(stream: io.TextIOWrapper, descriptor: int) -> io.TextIOWrapper:
    with suppress(OSError):
        stream.flush()
    raw: Any = _Stream(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(raw) if isinstance(stream.buffer, io.BufferedWriter) else raw,  # python -u has no buffer
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
