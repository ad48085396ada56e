"""Signals that ask a training to make room: SIGTERM, SIGHUP, SIGUSR1, SIGUSR2.

What sends them: `kill`, a terminal that is closed, SLURM before it takes a node away, and submitit, whose own handler
of SIGUSR2 requeues the job.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: run the same command again, and it resumes."""


class Interruption:
    """Remembers that a signal came, so that the training can stop where its state is whole.

    command: the one that resumes the training then, in words.
    """

    def __init__(self, command: str = "the same command") -> None:
        self.command = command
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    @contextmanager
    def watch(self) -> Iterator["Interruption"]:
        """Catch the signals inside the context; possible in the main thread only, elsewhere nothing is caught.

        A signal that is ignored, as SIGHUP is under nohup, stays so. One that comes too late to stop for goes to the
        handler that was there before, such as that of a sweep.
        """
        if threading.current_thread() is threading.main_thread():
            caught = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._previous = {number: signal.signal(number, self._note) for number in caught}
        try:
            yield self
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set by Python
        if self.signal is not None and callable(self._previous[self.signal]):
            self._previous[self.signal](self.signal, None)

    def leave(self, number: int) -> NoReturn:
        """End the process, whose state is saved, because signal `number` came to it or to another one of the training.

        The handler that was there before goes first: that of submitit requeues the job and exits. A normal return would
        count as a success.
        """
        self.signal = None  # it is obeyed
        previous = self._previous.get(number)
        if callable(previous) and number != signal.SIGTERM:  # of SIGTERM submitit only takes note
            previous(number, None)
        sys.exit(EXIT_CODE)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
