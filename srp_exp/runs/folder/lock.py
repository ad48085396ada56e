"""One writer for a run folder."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from srp_exp.errors import UserError
from srp_exp.files import naming
from srp_exp.training.reporting.logs import LOG

LOCK = "lock"
_PATIENCE = 0.2
"""Seconds to try for: `is_held` takes the lock for a moment."""


class InUseError(UserError):
    """Another process trains in the folder."""


class NoLocksError(UserError):
    """Nobody can hold a folder of this file system, as some mounts of NFS and Lustre are."""


class Held:
    """The hold of this process on a run folder. `died` names the process that held it and died; else it is empty."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, _acquire(folder)
        self._inode = folder.stat()
        self.died = self._file.read()  # by this handle: a process that closes any other of the file gives up its lock
        self._sign()

    def confirm(self) -> None:
        """Make sure that no other process writes here, also where the lock was removed, which is made again then.

        Raises InUseError where another process has begun in the folder, and UserError where the folder was deleted.
        """
        lock = self._folder / LOCK
        try:
            replaced = not os.path.samestat(self._folder.stat(), self._inode)
            if not replaced and not lock.exists():
                self._make_again(lock)
            replaced |= not os.path.samestat(lock.stat(), os.fstat(self._file.fileno()))
        except FileExistsError:
            replaced = True
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{self._folder} was deleted or moved during the run; give the command again to train it"
            ) from None
        except OSError:
            return  # a file system that doesn't answer: saving says so
        if replaced:
            raise InUseError(
                f"{self._folder} was taken by {_holder(lock)}, since its lock was removed: this process stops, and "
                f"what it has saved stays"
            )

    def _make_again(self, lock: Path) -> None:
        """Raises FileExistsError where another process is quicker."""
        file = lock.open("x+")
        if not _take(file):
            raise FileExistsError
        self._file.close()
        self._file = file
        self._sign()
        LOG.warning("%s was removed during the run: made again", lock)

    def _sign(self) -> None:
        _replace_content(self._file, f"process {os.getpid()} on {platform.node()} since {datetime.now(UTC):%F %T} UTC")

    def release(self) -> None:
        with suppress(OSError):
            _replace_content(self._file, "")
        self._file.close()


@contextmanager
def only_writer(folder: Path) -> Iterator[Held]:
    """Hold `folder` for this process. The file LOCK says who holds it.

    The lock is the kernel's (on a shared file system that of its lock daemon): it ends with the process, however that
    ends, and the workers of a data loader don't inherit it. Raises InUseError, naming the process that holds it.
    """
    held = Held(folder)
    try:
        yield held
    finally:
        held.release()


def is_held(folder: Path) -> bool:
    """Whether another process holds `folder`. Not to be asked by the process that holds it: it would let go of it."""
    try:
        with (folder / LOCK).open() as file:  # which may be somebody else's, or on a disk that is read-only
            return not _take(file, fcntl.LOCK_SH)
    except (FileNotFoundError, NoLocksError):
        return False


def _acquire(folder: Path) -> TextIO:
    """The file LOCK, open, at its beginning, and locked."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        with ExitStack() as stack:
            file = stack.enter_context((folder / LOCK).open("a+"))
            if _take(file) and _is_at(folder / LOCK, file):
                stack.pop_all()
                file.seek(0)
                return file
        if time.monotonic() > give_up:
            raise InUseError(f"{folder} is in use by {_holder(folder / LOCK)}: wait for its end, or stop it")
        time.sleep(_PATIENCE / 10)


def _is_at(path: Path, file: TextIO) -> bool:
    """Whether `file` still is what lies at `path`, which may have been removed before the lock was taken."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(errors="replace") or "another process"
    except OSError:
        return "another process"


def _take(file: TextIO, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:  # how some systems say it
        return False
    except OSError as error:
        no_locks = f"{file.name}: its file system has no locks ({error.strerror}); choose another output_dir"
        raise NoLocksError(no_locks) from error
    return True


def _replace_content(file: TextIO, text: str) -> None:
    with naming(Path(file.name)):
        file.truncate(0)
        file.write(text)
        file.flush()
