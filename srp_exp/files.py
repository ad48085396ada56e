"""Writing files so that they are whole or absent."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"
"""Ending of files not finished yet; a killed process may leave some."""


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `path` so that a reader, also after a crash, finds the old file or the whole new one.

    `content` is the bytes, or a function that writes them to an open file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("w+b") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
