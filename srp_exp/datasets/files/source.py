"""Where the encoded images of a data set come from: a folder of files, or stretches of a few large files.

A source is handed to every reading process: it pickles to a few arrays, and reading doesn't make it grow.
"""

import hashlib
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srp_exp.errors import UserError

_READS_PER_RELEASE = 256  # of a memory map: its pages count as resident until they are released
_PROBES = 64  # files whose content a folder's digest looks at


class ImageSource(Protocol):
    """Encoded images at positions 0, 1, ... Raises OSError where one can't be read."""

    def __len__(self) -> int: ...

    def read(self, position: int) -> bytes:
        """The whole encoded file."""

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

    def read(self, position: int) -> bytes:
        with open(self.name(position), "rb") as file:  # noqa: PTH123  a Path of its own takes as long as opening
            return file.read()

    def name(self, position: int) -> str:
        return os.path.join(self._root, os.fsdecode(self._paths[position]))  # noqa: PTH118

    def digest(self) -> str:
        sizes = self._sizes
        if sizes is None:
            sizes = np.array([Path(self.name(row)).stat().st_size for row in range(len(self))], np.int64)
        found = hashlib.sha256(sizes.tobytes())
        for path in self.probes():
            found.update(hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"absent")
        return found.hexdigest()

    def probes(self) -> list[Path]:
        rows = np.unique(np.linspace(0, len(self) - 1, _PROBES).astype(int)).tolist() if len(self) else []
        return [Path(self.name(row)) for row in rows]


class StretchSource:
    """Images that are stretches of the files `files`, read through memory maps.

    stretches: (N, 3) int64, for each image its file, its first byte in it and the byte after its last. content: a
    digest of all images. Raises UserError where a file ends before its last image does.
    """

    def __init__(self, files: Sequence[Path], stretches: NDArray[np.int64], content: str):
        for number, path in enumerate(files):
            needed = int(stretches[stretches[:, 0] == number, 2].max(initial=0))
            found = path.stat().st_size
            if found < needed:
                raise UserError(f"{path}: has {found} bytes of at least {needed}; copy or prepare it again")
        self._files, self._stretches, self._content = list(files), stretches, content
        self._maps: dict[int, mmap.mmap] = {}
        self._reads = 0

    def __len__(self) -> int:
        return len(self._stretches)

    def __getstate__(self) -> dict[str, Any]:
        """All but the maps, which every process opens for itself."""
        return self.__dict__ | {"_maps": {}}

    def read(self, position: int) -> bytes:
        number, start, stop = self._stretches[position].tolist()
        self._reads += 1
        if self._reads % _READS_PER_RELEASE == 0:
            for opened in self._maps.values():
                opened.madvise(mmap.MADV_DONTNEED)
        return self._map(number)[start:stop] if stop > start else b""

    def name(self, position: int) -> str:
        number = self._stretches[position, 0]
        return f"{self._files[number]}#{position - int(np.searchsorted(self._stretches[:, 0], number))}"

    def digest(self) -> str:
        return self._content

    def probes(self) -> list[Path]:
        return self._files

    def _map(self, number: int) -> mmap.mmap:
        if number not in self._maps:
            with self._files[number].open("rb") as file:
                self._maps[number] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[number]


def encoded_texts(texts: Sequence[str] | NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """Texts as one array of bytes: fast to load, and not copied by processes that share it, as a list of str is."""
    if isinstance(texts, np.ndarray) and texts.dtype.kind == "S":
        return texts
    return np.array([os.fsencode(text) for text in texts], np.bytes_)
