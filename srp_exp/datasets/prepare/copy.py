"""Making the prepared copy of a data set: pictures made small, in an Arrow file for each split."""

import io
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from srp_exp.datasets.files.decode import Reading, stored
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.on_disk.prepared import COPY_KEY, copy_file
from srp_exp.errors import UserError

_TOGETHER = 500  # pictures that are made small before they are written


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


def shrink(encoded: bytes, name: str, reading: Reading, resize: int, quality: int) -> Small:
    """The picture with its shorter side reduced to `resize` pixels, as an RGB JPEG with colours at full resolution.

    Reduced as the transform Resize(resize) does it (bilinear, antialiased), which then leaves the copy as it is. A
    picture that isn't larger keeps its very bytes, or becomes a PNG of RGB where it has more. Raises CorruptImageError,
    with `name`, where it can't be decoded.
    """
    whole = stored(encoded, name)
    picture = whole.rgb(name, reading)
    _, height, width = picture.shape
    if whole.values is picture and min(height, width) <= resize:
        return Small(encoded, (1.0, 1.0))
    kind, options, small = "PNG", dict[str, Any](), picture
    if min(height, width) > resize:
        kind, options = "JPEG", {"quality": quality, "subsampling": "4:4:4"}
        small = functional.resize(picture, [resize], antialias=True)
    file = io.BytesIO()
    Image.fromarray(small.permute(1, 2, 0).contiguous().numpy()).save(file, kind, **options)
    return Small(file.getvalue(), (small.shape[2] / width, small.shape[1] / height))


def write_copy(
    splits: Mapping[str, FileSplit],
    folder: Path,
    settings: CopySettings,
    advance: Callable[[int], object] = lambda count: None,
) -> None:
    """Write the copy of a set's splits, "train" and "test", into `folder`, which exists and is empty.

    advance: is called with the number of images done. Raises CorruptImageError for a picture that can't be decoded.
    """
    schema = _schema(splits, settings)
    # Codecs and resizing leave Python's lock, so threads do.
    with ThreadPoolExecutor(settings.workers, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        for part, split in splits.items():
            with pa.ipc.new_stream(copy_file(folder, part), schema) as writer:
                for positions in torch.arange(len(split)).split(_TOGETHER):
                    rows = list(threads.map(partial(_row, split, settings), positions.tolist()))
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    advance(len(rows))


def _row(split: FileSplit, settings: CopySettings, position: int) -> dict[str, Any]:
    encoded, name = split.source.read(int(split.rows[position])), split.name(position)
    small = shrink(encoded, name, split.reading, settings.resize, settings.quality)
    row = {"image": {"bytes": small.encoded, "path": None}, "label": int(split.labels[position])}
    row["index"] = int(split.index[position])
    if split.boxes is not None:
        row["box"] = (split.boxes[position] * torch.tensor(small.factors * 2)).tolist()
    return row


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
