"""Making the prepared copy of a data set: pictures made small, in a few Arrow files; sets/prepared.py reads it."""

import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from srp_exp.datasets.files.decode import BY_DEFAULT, Reading, stored
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.sets.prepared import COPY_KEY
from srp_exp.errors import UserError

_FILE_BYTES, _GROUP_BYTES = 1 << 30, 1 << 25  # of images, after which a file, and a batch of rows in it, is closed


@dataclass(frozen=True)
class CopySettings:
    """name: of the set, as "cub200". resize: shorter side in pixels. quality: of JPEG, 1 to 100. workers: threads.

    original: what the copy notes of the set that it is made of: the `settings` it was read with, and its `digests`.
    """

    name: str
    class_names: tuple[str, ...]
    resize: int
    quality: int = 90
    workers: int = 1
    original: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """In which copies of one set differ."""
        return {"name": self.name, "resize": self.resize, "quality": self.quality, **self.original}

    def __post_init__(self) -> None:
        if self.resize < 1:
            raise UserError(f"resize={self.resize}: choose a shorter side of at least 1 pixel, such as 256 or 512")
        if not 1 <= self.quality <= 100:
            raise UserError(f"quality={self.quality}: choose 1 to 100, such as 90")


class Small(NamedTuple):
    """An encoded picture. factors: new over old width, and height."""

    encoded: bytes
    factors: tuple[float, float]


def shrink(encoded: bytes, name: str, resize: int, quality: int, reading: Reading = BY_DEFAULT) -> Small:
    """The picture with its shorter side reduced to `resize` pixels, as an RGB JPEG with colours at full resolution.

    Reduced as the transform Resize(resize) does it (bilinear, antialiased), which then leaves the copy as it is. A
    picture that isn't larger keeps its very bytes, or becomes a PNG of RGB where it has more. Raises CorruptImageError,
    with `name`, where it can't be decoded.
    """
    whole = stored(encoded, name)
    picture = whole.rgb(name, reading)
    _, height, width = picture.shape
    if min(height, width) <= resize:
        if whole.values is picture:
            return Small(encoded, (1.0, 1.0))
        png = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(png, "PNG")
        return Small(png.getvalue(), (1.0, 1.0))
    small: Tensor = functional.resize(picture, [resize], antialias=True)
    _, new_height, new_width = small.shape
    jpeg = io.BytesIO()
    Image.fromarray(small.permute(1, 2, 0).numpy()).save(jpeg, "JPEG", quality=quality, subsampling="4:4:4")
    return Small(jpeg.getvalue(), (new_width / width, new_height / height))


def write_copy(
    splits: Mapping[str, FileSplit],
    folder: Path,
    settings: CopySettings,
    advance: Callable[[int], object] = lambda count: None,
) -> None:
    """Write the copy of a set's splits, "train" and "test", into `folder`, which is there and empty.

    advance: is called with the number of images done. Raises CorruptImageError for a picture that can't be decoded.
    """
    schema = _schema(splits, settings)
    for part in splits:
        files = _files_of(_groups_of(_in_order(splits[part], settings), splits[part], schema))
        for number, groups in enumerate(files):
            with pa.ipc.new_stream(folder / f"{part}-{number:05d}.arrow", schema) as writer:
                for group in groups:
                    writer.write_table(group)
                    advance(len(group))


def _groups_of(pictures: Iterator[Small], split: FileSplit, schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of about 32 MB of pictures."""
    rows: list[dict[str, Any]] = []
    held = 0
    yield pa.Table.from_pylist(rows, schema)  # a file for a split without pictures, too
    for sample, small in enumerate(pictures):
        row = {"image": {"bytes": small.encoded, "path": None}, "label": int(split.labels[sample])}
        row["index"] = int(split.index[sample])
        if split.boxes is not None:
            row["box"] = (split.boxes[sample] * torch.tensor(small.factors * 2)).tolist()
        rows.append(row)
        held += len(small.encoded)
        if held >= _GROUP_BYTES:
            yield pa.Table.from_pylist(rows, schema)
            rows, held = [], 0
    if rows:
        yield pa.Table.from_pylist(rows, schema)


def _files_of(groups: Iterator[pa.Table]) -> Iterator[Iterator[pa.Table]]:
    """The tables of one file after another, of about 1 GB each; those of a file are taken before the next is."""

    def of_one_file(first: pa.Table) -> Iterator[pa.Table]:
        yield first
        written = first.nbytes
        while written < _FILE_BYTES and (table := next(groups, None)) is not None:
            yield table
            written += table.nbytes

    for first in groups:
        yield of_one_file(first)


def _in_order(split: FileSplit, settings: CopySettings) -> Iterator[Small]:
    """Every sample's picture, made small in threads, a few in advance: codecs and resizing leave Python's lock."""
    waiting: deque[Future[Small]] = deque()
    pool = ThreadPoolExecutor(settings.workers, initializer=torch.set_num_threads, initargs=(1,))

    def small(row: int) -> Small:
        return shrink(split.source.read(row), split.source.name(row), settings.resize, settings.quality, split.reading)

    try:
        for row in split.rows.tolist():
            waiting.append(pool.submit(small, row))
            if len(waiting) > 4 * settings.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _schema(splits: Mapping[str, FileSplit], settings: CopySettings) -> pa.Schema:
    facts = {
        **settings.facts,
        "boxes": splits["train"].boxes is not None,
        "sizes": {part: len(splits[part]) for part in splits},
        "skipped": {part: splits[part].skipped for part in splits},
    }
    label = {"names": list(settings.class_names), "_type": "ClassLabel"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    fields = {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64(), "index": pa.int64()}
    boxes = {"box": pa.list_(pa.float32())} if facts["boxes"] else {}
    return pa.schema(fields | boxes, {b"huggingface": json.dumps(features), COPY_KEY: json.dumps(facts)})
