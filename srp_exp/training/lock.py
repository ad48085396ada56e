"""One writer for a run folder."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

LOCK = "lock"


@contextmanager
def only_writer(folder: Path) -> Iterator[str]:
    """Hold `folder` for this process; yields who held it and died, or "". The file LOCK says who holds it.

    The lock is the kernel's (on a shared file system that of its lock daemon): it ends with the process, however that
    ends, and the workers of a data loader don't inherit it. Raises ValueError, naming the process that holds it.
    """
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = (folder / LOCK).read_text() or "another process"
            raise ValueError(f"{folder} is in use by {holder}: wait for its end, or stop it") from None
        file.seek(0)
        stale = file.read()  # by this handle: a process that closes any other of the file gives up its lock
        _replace_content(file, f"process {os.getpid()} on {platform.node()} since {datetime.now(UTC):%F %T} UTC")
        try:
            yield stale
        finally:
            _replace_content(file, "")


def _replace_content(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
