"""One writer for a run folder."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from srp_exp.errors import UserError

LOCK = "lock"
_PATIENCE = 0.2
"""Seconds to try for: `is_held` takes the lock for a moment."""


class InUseError(UserError):
    """Another process trains in the folder."""


@contextmanager
def only_writer(folder: Path) -> Iterator[str]:
    """Hold `folder` for this process; yields who held it and died, or "". The file LOCK says who holds it.

    The lock is the kernel's (on a shared file system that of its lock daemon): it ends with the process, however that
    ends, and the workers of a data loader don't inherit it. Raises InUseError, naming the process that holds it.
    """
    with (folder / LOCK).open("a+") as file:
        give_up = time.monotonic() + _PATIENCE
        while not _take(file):
            if time.monotonic() > give_up:
                holder = (folder / LOCK).read_text() or "another process"
                raise InUseError(f"{folder} is in use by {holder}: wait for its end, or stop it")
            time.sleep(_PATIENCE / 10)
        file.seek(0)
        stale = file.read()  # by this handle: a process that closes any other of the file gives up its lock
        _replace_content(file, f"process {os.getpid()} on {platform.node()} since {datetime.now(UTC):%F %T} UTC")
        try:
            yield stale
        finally:
            _replace_content(file, "")


def is_held(folder: Path) -> bool:
    """Whether another process holds `folder`. Not to be asked by the process that holds it: it would let go of it."""
    try:
        with (folder / LOCK).open("r+") as file:
            return not _take(file)
    except FileNotFoundError:
        return False


def _take(file: TextIO) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:  # how some systems say it
        return False
    return True


def _replace_content(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
