"""Encoded images that are rows of Arrow files: mapped into memory, so that all reading processes share them."""

import hashlib
import mmap
import os
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from srp_exp.errors import UserError

_READS_PER_RELEASE = 256  # of the maps: their pages count as resident until they are released


class TableSource:
    """The images in `column` of the Arrow streams `files`, in which they are bytes, or structs with the field `bytes`.

    cells: (N, 2) int64, for each image its file and its row in it. places: for messages, for each file what its rows
    come from, as "train.parquet#100" where its first is row 100 of that table. content: a digest of all images. A row
    without bytes is read as empty. Raises UserError where a file is damaged, when it is first read.
    """

    def __init__(
        self, files: Sequence[Path], places: Sequence[str], cells: NDArray[np.int64], column: str, content: str = ""
    ):
        self._files, self._places, self.cells = list(files), list(places), cells
        self._column, self._content = column, content
        self._opened: dict[int, _Rows] = {}
        self._reads = 0

    def __len__(self) -> int:
        return len(self.cells)

    def __getstate__(self) -> dict[str, Any]:
        """All but the maps, which every process opens for itself."""
        return self.__dict__ | {"_opened": {}}

    def read(self, position: int, most: int = -1) -> bytes:
        number, row = self.cells[position].tolist()
        self._reads += 1
        if self._reads % _READS_PER_RELEASE == 0:
            for opened in self._opened.values():
                opened.release()
        if number not in self._opened:
            self._opened[number] = _Rows(self._files[number], self._column)
        image = self._opened[number].read(row)
        return image if most < 0 else image[:most]

    def name(self, position: int) -> str:
        number, row = self.cells[position].tolist()
        place, _, first = self._places[number].rpartition("#")
        return f"{place}#{int(first) + row}"

    def digest(self) -> str:
        return self._content

    def probes(self) -> list[Path]:
        return self._files


def content_of(source: TableSource) -> str:
    """A digest of all images."""
    found = hashlib.sha256()
    for row in range(len(source)):
        found.update(hashlib.sha256(source.read(row)).digest())
    return found.hexdigest()


class _Rows:
    """The rows of one file."""

    def __init__(self, file: Path, column: str):
        self._file = file
        try:
            with file.open("rb") as opened:
                self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            stream = pa.ipc.open_stream(pa.py_buffer(self._map))  # what it reads stays in the map
            self._batches = [_bytes_of(batch.column(column)) for batch in stream]
        except (pa.ArrowException, KeyError, ValueError, OSError) as error:
            raise _damaged(file, error) from None
        self._starts = np.cumsum([0, *map(len, self._batches)]).tolist()

    def read(self, row: int) -> bytes:
        if not 0 <= row < self._starts[-1]:
            raise UserError(f"{self._file}: has {self._starts[-1]} rows, and none of number {row}; prepare it again")
        number = bisect_right(self._starts, row) - 1
        value: bytes | None = self._batches[number][row - self._starts[number]].as_py()
        return value or b""

    def release(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            self._map.madvise(mmap.MADV_DONTNEED)


def _bytes_of(column: pa.Array) -> pa.Array:
    """The binary values. Raises ArrowInvalid where they don't lie inside of the file: to read them would end Python."""
    if pa.types.is_struct(column.type):
        column = column.field("bytes")
    column.validate(full=True)
    return column


def read_arrow(file: Path) -> pa.Table:
    """What an Arrow stream holds, mapped into memory. Raises UserError where it is damaged."""
    try:
        with pa.memory_map(os.fspath(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
            return stream.read_all()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> UserError:
    reason = (str(error) or repr(error)).splitlines()[0]
    return UserError(f"{file}: not a readable Arrow file ({reason}); fetch or prepare it again")
