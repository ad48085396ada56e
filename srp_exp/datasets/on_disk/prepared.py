"""The prepared copy of a data set: Arrow files of smaller pictures, which Hugging Face's `datasets` reads too.

<split>-00000.arrow, ... with the columns image (its bytes), label, index and, where the set has them, box.
The schema's metadata hold the class names as the hub's do, and under `COPY_KEY` the facts of the copy.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from srp_exp.datasets.files.table_source import read_arrow
from srp_exp.datasets.on_disk.catalogue import Catalogue, Listing, listing_of_rows
from srp_exp.errors import UserError

COPY_KEY = b"srp_exp"


def copy_files(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f"{part}-[0-9]*.arrow"))


def copy_facts(folder: Path) -> dict[str, Any] | None:
    """What `folder` is a copy of, and how it was made: the facts that `write_copy` notes; None where it is no copy."""
    files = copy_files(folder, "train")
    facts: dict[str, Any] | None = None
    if files:
        facts = json.loads(_metadata(files[0]).get(COPY_KEY, b"null"))
    return facts


def check_copy(
    folder: Path, facts: dict[str, Any] | None, name: str, side: int | None, settings: Mapping[str, str]
) -> None:
    """Raise UserError unless the copy in `folder`, or that it is none, is what was asked for."""
    if facts is None:
        if side is not None:
            raise UserError(
                f"dataset.copy_side={side}: {folder} is no prepared copy; set dataset.copy_side=null, or prepare one "
                f"with scripts/prepare_data.py resize={side}"
            )
    elif facts["name"] != name:
        raise UserError(f"dataset.root={folder}: holds a copy of {facts['name']}, not of {name}; choose another folder")
    elif facts["resize"] != side:
        raise UserError(
            f"dataset.copy_side={side}: {folder} holds pictures reduced to a shorter side of {facts['resize']}, which "
            f"gives other results than the original; set dataset.copy_side={facts['resize']}, or another dataset.root"
        )
    elif (made := facts.get("settings", {})) != settings:
        name = min(setting for setting in made.keys() | settings.keys() if made.get(setting) != settings.get(setting))
        raise UserError(
            f"dataset.root={folder}: the copy was made with {name}={made.get(name)}, and {settings.get(name)} is asked "
            f"for; set that, or prepare another copy"
        )


def read_copy(folder: Path, facts: dict[str, Any]) -> Catalogue:
    """The copy in `folder`, with the labels, order, index and skipped of the original."""
    parts: dict[str, Listing] = {}
    for part in facts["sizes"]:
        files = copy_files(folder, part)
        data = [read_arrow(file) for file in files]
        if sum(map(len, data)) != facts["sizes"][part]:
            count = f"{sum(map(len, data)):,} of {facts['sizes'][part]:,} {part} pictures"
            raise UserError(f"{folder}: has {count}; prepare it again")
        table = pa.concat_tables(data).drop_columns(["image"])
        table.validate(full=True)
        boxes = None
        if facts["boxes"]:
            boxes = table.column("box").combine_chunks().flatten().to_numpy().astype(np.float32).reshape(-1, 4)
        labels, index = (np.array(table.column(name).to_numpy()) for name in ("label", "index"))
        read = listing_of_rows([(str(file), [file]) for file in files], "image", labels)
        parts[part] = replace(read, index=index, boxes=boxes, skipped=facts["skipped"][part])
    metadata = json.loads(_metadata(copy_files(folder, "train")[0])[b"huggingface"])
    names = metadata["info"]["features"]["label"]["names"]
    read_from = (folder, *(file for part in parts for file in copy_files(folder, part)))
    return Catalogue(parts["train"], parts["test"], tuple(names), read_from, val=parts.get("val"))


def _metadata(file: Path) -> dict[bytes, bytes]:
    return read_arrow(file).schema.metadata or {}
