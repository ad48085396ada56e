"""The prepared copy of a data set: a handful of large files instead of one for every image.

packed.json     what it is a copy of, its classes, counts and settings; written last: without it the copy is unfinished
samples.bin     a `SAMPLE` for every sample, the training split first, both in the order of the original
shard-000.bin   the encoded images, one after another; shard-001.bin, ... each up to about 1 GiB
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import PackedSource
from srp_exp.errors import UserError

FORMAT = 1
FACTS_FILE, SAMPLES_FILE = "packed.json", "samples.bin"
SAMPLE = np.dtype(
    [
        ("span", "<i8", (3,)),  # shard, its first byte in it, the byte after its last
        ("label", "<i8"),
        ("index", "<i8"),  # which sample of the original split it is
        ("box", "<f4", (4,)),  # left, top, right, bottom in pixels of the copy's picture; NaN: the set has none
    ]
)


@dataclass(frozen=True)
class PackedSet:
    """A prepared copy as it was opened. name: of the set, as "cub200". resize: largest shorter side, in pixels."""

    name: str
    train: FileSplit
    test: FileSplit
    class_names: tuple[str, ...]
    resize: int


def shard_file(number: int) -> str:
    return f"shard-{number:03d}.bin"


def is_packed(folder: Path) -> bool:
    """Whether `folder` is a finished prepared copy."""
    return (folder / FACTS_FILE).is_file()


def read_facts(folder: Path) -> dict[str, Any]:
    """The contents of packed.json. Raises ValueError where it is damaged or of another format."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text())
    except ValueError as error:
        raise UserError(f"{folder / FACTS_FILE}: damaged ({error}); prepare the copy again") from None
    if facts.get("format") != FORMAT:
        raise UserError(f"{folder}: has format {facts.get('format')}, known is {FORMAT}; prepare the copy again")
    return facts


def open_packed(folder: Path, name: str) -> PackedSet:
    """Open the prepared copy of the set `name`. Its splits have the labels, order, index and skipped of the original.

    Raises ValueError where it is a copy of another set, or a file of it is cut off.
    """
    facts = read_facts(folder)
    if facts["name"] != name:
        raise UserError(f"dataset.root={folder}: holds a copy of {facts['name']}, not of {name}; choose another folder")
    path = folder / SAMPLES_FILE
    count = sum(split["size"] for split in facts["splits"].values())
    if not path.is_file() or path.stat().st_size != count * SAMPLE.itemsize:
        raise UserError(f"{path}: should have {count:,} samples of {SAMPLE.itemsize} bytes; copy or prepare it again")
    # Mapped, so that the processes that read share the memory; "c" since torch wants arrays that can be written to.
    samples = np.memmap(path, SAMPLE, mode="c")
    source = PackedSource([folder / shard_file(number) for number in range(facts["shards"])], samples["span"])
    splits, start = {}, 0
    for split_name, split in facts["splits"].items():
        part, rows = samples[start : start + split["size"]], torch.arange(start, start + split["size"])
        boxes = torch.from_numpy(part["box"].copy()) if facts["boxes"] else None
        labels, index = (torch.from_numpy(part[key].astype(np.int64)) for key in ("label", "index"))
        splits[split_name] = FileSplit(source, rows, labels, index, boxes, split["skipped"])
        start += split["size"]
    return PackedSet(name, splits["train"], splits["test"], tuple(facts["class_names"]), facts["resize"])
