"""The prepared copy of a data set: Arrow files of smaller pictures, which Hugging Face's `datasets` reads too.

<split>-00000.arrow, ... with the columns image (its bytes), label, index and, where the set has them, box.
The schema's metadata hold the class names as the hub's do, and under `COPY_KEY` the facts of the copy.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from srp_exp.datasets.files.source import encoded_texts
from srp_exp.datasets.files.table_source import read_arrow
from srp_exp.datasets.sets.catalogue import Catalogue, Listing
from srp_exp.datasets.sets.read_tables import Table, cells_of, features_of, image_digests, read_schema
from srp_exp.errors import UserError

COPY_KEY = b"srp_exp"
PARTS = ("train", "test")


def copy_files(folder: Path, part: str) -> list[Path]:
    return sorted(folder.glob(f"{part}-[0-9]*.arrow"))


def copy_facts(folder: Path) -> dict[str, Any] | None:
    """What `folder` is a copy of, and how it was made: the facts that `write_copy` notes; None where it is no copy."""
    files = copy_files(folder, PARTS[0])
    facts: dict[str, Any] | None = None
    if files:
        facts = json.loads((read_schema(files[0]).metadata or {}).get(COPY_KEY, b"null"))
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
    parts = []
    for part in PARTS:
        tables = [
            Table(str(file), folder, (data := read_arrow(file)).schema, data, (file,))
            for file in copy_files(folder, part)
        ]
        files, places, cells = cells_of(tables)
        if len(cells) != facts["sizes"][part]:
            raise UserError(
                f"{folder}: has {len(cells):,} of {facts['sizes'][part]:,} {part} pictures; prepare it again"
            )
        table = pa.concat_tables([each.data for each in tables]).drop_columns(["image"])
        table.validate(full=True)
        boxes = None
        if facts["boxes"]:
            boxes = table.column("box").combine_chunks().flatten().to_numpy().astype(np.float32).reshape(-1, 4)
        parts.append(
            Listing(
                encoded_texts([file.name for file in files]),
                np.array(table.column("label").to_numpy()),
                np.array(table.column("index").to_numpy()),
                boxes,
                cells=cells,
                places=encoded_texts(places),
                column="image",
                content=hashlib.sha256(image_digests(tables, "image").tobytes()).hexdigest(),
                skipped=facts["skipped"][part],
            )
        )
    read_from = (folder, *(file for part in PARTS for file in copy_files(folder, part)))
    names = features_of(read_schema(copy_files(folder, PARTS[0])[0]))["label"]["names"]
    return Catalogue(parts[0], parts[1], tuple(names), read_from)
