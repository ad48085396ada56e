"""Encoded images that are rows of Arrow files: mapped into memory, so that all reading processes share them."""

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from srp_exp.datasets.files.source import ImageSource
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
        self._opened: dict[int, tuple[mmap.mmap, pa.ChunkedArray]] = {}
        self._reads = 0

    def __len__(self) -> int:
        return len(self.cells)

    def __getstate__(self) -> dict[str, Any]:
        """All but the maps, which every process opens for itself."""
        return self.__dict__ | {"_opened": {}}

    def read(self, position: int, most: int = -1) -> bytes:
        number, row = self.cells[position].tolist()
        if number not in self._opened:
            self._opened[number] = _images(self._files[number], self._column)
        mapped, images = self._opened[number]
        if row >= len(images):
            raise UserError(
                f"{self._files[number]}: has {len(images)} rows, and none of number {row}; prepare it again"
            )
        image: bytes = images[row].as_py() or b""
        self._reads += 1
        if self._reads % _READS_PER_RELEASE == 0 and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            for mapped, _ in self._opened.values():
                mapped.madvise(mmap.MADV_DONTNEED)
        return image if most < 0 else image[:most]

    def name(self, position: int) -> str:
        number, row = self.cells[position].tolist()
        place, _, first = self._places[number].rpartition("#")
        return f"{place}#{int(first) + row}"

    def digest(self) -> str:
        return self._content

    def probes(self) -> list[Path]:
        return self._files


def content_of(source: ImageSource) -> str:
    """A digest of all images."""
    found = hashlib.sha256()
    for row in range(len(source)):
        found.update(hashlib.sha256(source.read(row)).digest())
    return found.hexdigest()


def read_arrow(file: Path) -> pa.Table:
    """What an Arrow stream holds, mapped into memory. Raises UserError where it is damaged."""
    with _damage_named(file):
        return _mapped(file)[1]


def _images(file: Path, column: str) -> tuple[mmap.mmap, pa.ChunkedArray]:
    """A file, and the binary values in a column of it, each of which lies inside of the file: others end Python."""
    with _damage_named(file):
        mapped, table = _mapped(file)
        images = table.column(column)
        if pa.types.is_struct(images.type):
            images = pc.struct_field(images, "bytes")
        images.validate(full=True)
        return mapped, images


def _mapped(file: Path) -> tuple[mmap.mmap, pa.Table]:
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return mapped, pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()  # which stays in the map


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = (str(error) or repr(error)).splitlines()[0]
        raise UserError(f"{file}: not a readable Arrow file ({reason}); fetch or prepare it again") from None
