"""The prepared copy of a data set: an Arrow file of smaller pictures for each split, which `datasets` reads too.

<split>-00000.arrow with the columns image (its bytes), label, index and, where the set has them, box.
The schema's metadata hold the class names as the hub's do, and under `COPY_KEY` the facts of the copy.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from srp_exp.datasets.files.table_source import read_arrow
from srp_exp.datasets.on_disk.catalogue import Catalogue, Listing, listing_of_rows
from srp_exp.errors import UserError

COPY_KEY = b"srp_exp"


def copy_file(folder: Path, part: str) -> Path:
    return folder / f"{part}-00000.arrow"


def copy_facts(folder: Path) -> dict[str, Any] | None:
    """What `folder` is a copy of, and how it was made: the facts that `write_copy` notes; None where it is no copy."""
    file, facts = copy_file(folder, "train"), None
    if file.is_file():
        facts = json.loads(_metadata(file).get(COPY_KEY, b"null"))
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
    files = {part: copy_file(folder, part) for part in facts["sizes"]}
    for part, size in facts["sizes"].items():
        table = read_arrow(files[part]).drop_columns(["image"])
        if len(table) != size:
            raise UserError(f"{folder}: has {len(table):,} of {size:,} {part} pictures; prepare it again")
        table.validate(full=True)
        boxes = None
        if facts["boxes"]:
            boxes = table.column("box").combine_chunks().flatten().to_numpy().astype(np.float32).reshape(-1, 4)
        labels, index = (np.array(table.column(name).to_numpy()) for name in ("label", "index"))
        read = listing_of_rows([(str(files[part]), [files[part]])], "image", labels)
        parts[part] = replace(read, index=index, boxes=boxes, skipped=facts["skipped"][part])
    metadata = json.loads(_metadata(files["train"])[b"huggingface"])
    names = metadata["info"]["features"]["label"]["names"]
    return Catalogue(parts["train"], parts["test"], tuple(names), (folder, *files.values()), val=parts.get("val"))


def _metadata(file: Path) -> dict[bytes, bytes]:
    return read_arrow(file).schema.metadata or {}
