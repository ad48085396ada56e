"""Where the encoded images of a data set come from: a folder of files, or tables (table_source.py).

A source is handed to every reading process: it pickles to a few arrays, and reading doesn't make it grow.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

_PROBES = 64  # files whose content a folder's digest looks at


class ImageSource(Protocol):
    """Encoded images at positions 0, 1, ... Raises OSError where one can't be read."""

    def __len__(self) -> int: ...

    def read(self, position: int, most: int = -1) -> bytes:
        """The encoded file; its first `most` bytes where that isn't -1."""

    def name(self, position: int) -> str:
        """A path, or a file and a row in it, for messages."""

    def digest(self) -> str:
        """What changes when the content of the images does."""

    def probes(self) -> list[Path]:
        """A few of the files, spread evenly: when all images are written anew, these are too."""


class FolderSource:
    """The files at `paths`, which are relative to `root`. sizes: (N,) int64 in bytes; None: they are looked up.

    The digest is of all sizes, and of the content of 64 files spread evenly, all of a smaller folder: to read a million
    files at every start would take hours.
    """

    def __init__(self, root: Path, paths: Sequence[str] | NDArray[np.bytes_], sizes: NDArray[np.int64] | None = None):
        self._root, self._paths, self._sizes = str(root), encoded_texts(paths), sizes

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, position: int, most: int = -1) -> bytes:
        with open(self.name(position), "rb") as file:  # noqa: PTH123  a Path of its own takes as long as opening
            return file.read(most)

    def name(self, position: int) -> str:
        return os.path.join(self._root, os.fsdecode(self._paths[position]))  # noqa: PTH118

    def path(self, position: int) -> str:
        """Relative to the set's folder."""
        return os.fsdecode(self._paths[position])

    def digest(self, without: str | None = None) -> str:
        """What changes when the content of the images does, but for the one whose path is `without`."""
        sizes = self._sizes
        if sizes is None:
            sizes = np.array([Path(self.name(row)).stat().st_size for row in range(len(self))], np.int64)
        if without is not None:
            sizes = np.where(self._paths == os.fsencode(without), -1, sizes)
        found = hashlib.sha256(sizes.tobytes())
        for row in spread(len(self), _PROBES).tolist():
            if without is None or self.path(row) != without:
                path = Path(self.name(row))
                found.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"absent")
        return found.hexdigest()

    def probes(self) -> list[Path]:
        return [Path(self.name(row)) for row in spread(len(self), _PROBES).tolist()]


def spread(size: int, most: int) -> NDArray[np.int64]:
    """Up to `most` of the positions 0 to size - 1, spread evenly."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))


def encoded_texts(texts: Sequence[str] | NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """Texts as one array of bytes: fast to load, and not copied by processes that share it, as a list of str is."""
    if isinstance(texts, np.ndarray) and texts.dtype.kind == "S":
        return texts
    return np.array([os.fsencode(text) for text in texts], np.bytes_)
