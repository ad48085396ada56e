"""Images in parquet files, as Hugging Face publishes data sets, and ImageNet-1k in that form.

An image is read by reading its row group: in the random order of training that is a hundred images for one in the
usual files. Evaluation reads in order and has no such cost. To train for long, let scripts/prepare_data.py make a copy.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from srp_exp.datasets.files.decode import CorruptImageError
from srp_exp.datasets.files.source import ImageSource
from srp_exp.datasets.sets.catalogue import Catalogue, Facts, Listing, first_few, listing
from srp_exp.datasets.sets.imagenet import FACTS
from srp_exp.datasets.sets.official_set import OfficialSet
from srp_exp.errors import MissingFileError, UserError

_IMAGE, _LABEL = "image", "label"  # the columns
_PLACES = ("data", "", "default")  # folders that may hold the files
_PREFIXES = {"train": ("train",), "test": ("validation", "val")}  # of a split's files, or names of its folder


class ParquetSource:
    """The column `image` of parquet files below `root`: binary, or a struct with the binary field `bytes`.

    paths: for every image the file that holds it, all of a file together and in the order of its rows. Keeps the
    last row group that was read, and nothing else: memory is that of one group. Threads and processes may share it.
    """

    def __init__(self, root: Path, paths: Sequence[str]):
        runs = [(root / path, sum(1 for _ in run)) for path, run in groupby(paths)]
        self._files = [file for file, _ in runs]
        self._ends = np.cumsum([size for _, size in runs], dtype=np.int64)
        self._last: tuple[int, int, int, pa.ChunkedArray] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}

    def read(self, position: int) -> bytes:
        file, row = self._place(position)
        last = self._last
        if last is None or last[0] != file or not last[1] <= row < last[2]:
            last = self._last = (file, *_read_group(self._files[file], row))
        encoded = last[3][row - last[1]].as_py()
        if encoded is None:
            raise CorruptImageError(f"{self.name(position)}: holds no bytes of an image")
        return bytes(encoded)

    def name(self, position: int) -> str:
        file, row = self._place(position)
        return f"{self._files[file]}#{row}"

    def _place(self, position: int) -> tuple[int, int]:
        """Which file and which row in it."""
        file = int(np.searchsorted(self._ends, position, side="right"))
        return file, position - (int(self._ends[file - 1]) if file else 0)


class ImageNetParquet(OfficialSet):
    """train-*.parquet and validation-*.parquet in data/ or in the folder itself, or in folders train/ and validation/.

    Columns: image (binary, or a struct with `bytes`) and label, an integer from 0 in the order of the sorted wnids.
    class_names are those that Hugging Face keeps in the schema, else the labels.
    """

    set_name = "imagenet"
    facts = Facts(
        FACTS.train_size,
        FACTS.test_size,
        FACTS.num_classes,
        remedy="fetch all train-*.parquet and validation-*.parquet of https://huggingface.co/datasets/ILSVRC/imagenet-1k",
    )
    folders: ClassVar = ("imagenet_parquet", "imagenet-1k")
    marks: ClassVar = ("data", "train", "train-*.parquet")
    has_lists = False

    @classmethod
    def locate(cls, root: Path) -> Path:
        for home in (root, *(root / folder for folder in cls.folders)):
            if _files(home, "train"):
                return home
        raise MissingFileError(
            f"dataset.root={root}: no train-*.parquet is in it or in its folder data; {cls.facts.remedy}"
        )

    @classmethod
    def stamped(cls, home: Path) -> list[Path]:
        return [file for part in _PREFIXES for file in _files(home, part)]

    @classmethod
    def read(cls, home: Path) -> Catalogue:
        train, test = (_read_labels(home, _files(home, part)) for part in _PREFIXES)
        names = _class_names(_files(home, "train")[0])
        if names is None:
            names = tuple(str(label) for label in range(int(train.labels.max(initial=-1)) + 1))
        return Catalogue(train, test, names)

    @classmethod
    def source(cls, home: Path, part: Listing) -> ImageSource:
        return ParquetSource(home, part.paths)


def _files(home: Path, part: str) -> list[Path]:
    """The parquet files of a split in the first place that has any, sorted by name."""
    for place in _PLACES:
        for prefix in _PREFIXES[part]:
            for pattern in (f"{prefix}-*.parquet", f"{prefix}.parquet", f"{prefix}/*.parquet"):
                files = sorted((home / place).glob(pattern))
                if files:
                    return files
    return []


def _read_labels(home: Path, files: Sequence[Path]) -> Listing:
    paths: list[str] = []
    labels = []
    for file in files:
        schema = _schema(file)
        missing = [name for name in (_IMAGE, _LABEL) if name not in schema.names]
        if missing:
            raise UserError(
                f"{file}: has no column {missing[0]}, but {first_few(schema.names)}; rename it to {missing[0]}"
            )
        column = pq.read_table(file, columns=[_LABEL]).column(_LABEL)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise UserError(
                f"{file}: its labels are {column.type} with {column.null_count} missing; integers are needed"
            )
        labels.append(column.to_numpy().astype(np.int64))
        paths += [file.relative_to(home).as_posix()] * len(column)
    return listing(paths, np.concatenate([np.empty(0, np.int64), *labels]))


def _schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]}); fetch it again") from None


def _class_names(file: Path) -> tuple[str, ...] | None:
    """What Hugging Face's metadata calls the classes; None without them."""
    metadata = json.loads((_schema(file).metadata or {}).get(b"huggingface", b"{}"))
    names = metadata.get("info", {}).get("features", {}).get(_LABEL, {}).get("names")
    return None if names is None else tuple(names)


def _read_group(file: Path, row: int) -> tuple[int, int, pa.ChunkedArray]:
    """The row group around `row` of a file: its first row, the row after its last, and its encoded images."""
    # Opened anew for every group: an open file can be shared neither by threads nor with a process forked later.
    with pq.ParquetFile(file) as opened:
        first = 0
        for group in range(opened.num_row_groups):
            size = opened.metadata.row_group(group).num_rows
            if first <= row < first + size:
                break
            first += size
        is_struct = pa.types.is_struct(opened.schema_arrow.field(_IMAGE).type)
        table = opened.read_row_group(group, columns=[f"{_IMAGE}.bytes" if is_struct else _IMAGE], use_threads=False)
    column = table.column(_IMAGE)
    return first, first + size, column.combine_chunks().field("bytes") if is_struct else column
