"""Writing files so that they are whole or absent."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""Ending of files not finished yet; a killed process may leave some."""


Content = bytes | Callable[[BinaryIO], object]
"""Of a file: its bytes, or a function that writes them to an open file."""


def write_atomically(path: Path, content: Content) -> None:
    """Write `path` so that a reader, also after a crash, finds the old file or the whole new one.

    Several processes may write one file at a time, also from containers or hosts where they have the same process id:
    the last one's stays.
    """
    write_together(path.parent, {path.name: content})


def write_together(folder: Path, files: Mapping[str, Content]) -> None:
    """Write `files` of `folder`, by name, so that all are of one writing where the last of them exists.

    All are on the disk before the first takes its name: where that fails the old ones stay. A crash after it leaves the
    last one missing.
    """
    written: dict[Path, Path] = {}
    try:
        for name, content in files.items():
            path, temporary = folder / name, folder / f".{name}.{secrets.token_hex(8)}{TEMPORARY}"
            with naming(path), temporary.open("x+b") as file:
                written[temporary] = path
                file.write(content) if isinstance(content, bytes) else content(file)
                file.flush()
                os.fsync(file.fileno())
        if len(written) > 1:
            [*written.values()][-1].unlink(missing_ok=True)
        for temporary, path in written.items():
            temporary.replace(path)
    except BaseException:
        for temporary in written:
            temporary.unlink(missing_ok=True)
        raise


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError from inside name `path` where it names nothing, as that of a full disk does."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def remove(path: Path) -> None:
    """Remove a file, a folder with what it holds, or a link, whose target stays; nothing where `path` doesn't exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def cache_folder(chosen: str | None = None) -> Path:
    """Where what can be made again is kept: `chosen`, or the user's cache folder; not beside data, which are shared."""
    if chosen is not None:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srp_exp"


def stamp(path: Path) -> list[str | int]:
    """What changes when `path`, which may be absent, is replaced or written to: place, modification time, size."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return [str(path.absolute())]
    return [str(path.absolute()), status.st_mtime_ns, status.st_size]
