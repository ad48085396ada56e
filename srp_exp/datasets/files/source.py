"""Where the encoded images of a data set come from: a folder of files, or the few large files of a prepared copy.

A source is handed to every reading process: it pickles to a few arrays, and reading doesn't make it grow. The
folder of parquet files is parquet.py's.
"""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from srp_exp.datasets.files.texts import Texts
from srp_exp.errors import UserError

_READS_PER_RELEASE = 256  # of a memory map: its pages count as resident until they are released


class ImageSource(Protocol):
    """Encoded images at positions 0, 1, ... Raises OSError where one can't be read."""

    def __len__(self) -> int: ...

    def read(self, position: int) -> bytes:
        """The whole encoded file."""

    def name(self, position: int) -> str:
        """A path, or a file and a row in it, for messages."""


class FolderSource:
    """The files at `paths`, which are relative to `root`."""

    def __init__(self, root: Path, paths: Sequence[str]):
        self._root = root
        self._paths = Texts.of(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, position: int) -> bytes:
        return Path(self.name(position)).read_bytes()

    def name(self, position: int) -> str:
        return str(self._root / self._paths[position])


class PackedSource:
    """Images that lie one after another in the files `shards`, read through memory maps.

    spans: (N, 3) int64, for each image its shard, its first byte in it and the byte after its last. Raises
    ValueError where a shard ends before its last image does.
    """

    def __init__(self, shards: Sequence[Path], spans: np.ndarray[Any, np.dtype[np.int64]]):
        for number, path in enumerate(shards):
            needed = int(spans[spans[:, 0] == number, 2].max(initial=0))
            found = path.stat().st_size
            if found < needed:
                raise UserError(f"{path}: has {found} bytes of at least {needed}; copy or prepare it again")
        self._shards = list(shards)
        self._spans = spans
        self._maps: dict[int, mmap.mmap] = {}
        self._reads = 0

    def __len__(self) -> int:
        return len(self._spans)

    def __getstate__(self) -> dict[str, Any]:
        """All but the maps, which every process opens for itself."""
        return self.__dict__ | {"_maps": {}}

    def read(self, position: int) -> bytes:
        shard, start, stop = self._spans[position].tolist()
        self._reads += 1
        if self._reads % _READS_PER_RELEASE == 0:
            for opened in self._maps.values():
                opened.madvise(mmap.MADV_DONTNEED)
        return self._map(shard)[start:stop]

    def name(self, position: int) -> str:
        return f"{self._shards[self._spans[position, 0]]}#{position}"

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            with self._shards[shard].open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]
