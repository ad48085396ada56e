"""A catalogue opened, and looked at before the first step: what can't be read, and what is said about the rest."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from srp_exp.datasets.files.decode import Reading
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.vet import Vetting, vet
from srp_exp.datasets.labels import check_classes
from srp_exp.datasets.on_disk.catalogue import Catalogue, Listing
from srp_exp.errors import CorruptImageError, MissingFileError, UserError, first_few


def open_split(home: Path, part: Listing, crop_to_box: bool, reading: Reading) -> FileSplit:
    """A part of the set in `home`, with its boxes where pictures are cut to them."""
    if crop_to_box and part.boxes is None:
        raise MissingFileError(
            f"dataset.crop_to_box=true: {home} has no bounding boxes; fetch them, or set dataset.crop_to_box=false"
        )
    boxes = torch.from_numpy(part.boxes) if crop_to_box else None
    rows, labels, index = torch.arange(len(part)), torch.from_numpy(part.labels), torch.from_numpy(part.index)
    return FileSplit(part.source(home), rows, labels, index, boxes, part.skipped, reading)


def vetted(
    catalogue: Catalogue, home: Path, *, crop_to_box: bool, reading: Reading, everything: bool, skips: bool
) -> Catalogue:
    """The catalogue of the set in `home` after a look at its pictures (files/vet.py), with what was found as notes.

    skips: leave out what can't be read, for which everything is looked at. Raises CorruptImageError where there is such
    a picture and not `skips`, and UserError where too few are left.
    """
    splits = {name: open_split(home, part, crop_to_box, reading) for name, part in catalogue.parts.items()}
    found = {
        name: vet(split, f"{home.name}, {name}", everything or skips) for name, split in splits.items() if len(split)
    }
    bad = {name: sorted(found[name].bad) if name in found else [] for name in splits}
    reasons = [found[name].bad[position] for name, positions in bad.items() for position in positions]
    if reasons and not skips:
        others = f"; {len(reasons) - 1:,} more can't be read" if len(reasons) > 1 else ""
        raise CorruptImageError(f"{reasons[0]}{others}; nothing is lost")
    notes = [*catalogue.notes, *_notes(found, reading, home)]
    places = [*catalogue.read_from]
    parts: dict[str, Any] = {}
    for name, part in catalogue.parts.items():
        kept = part.rows(np.setdiff1d(np.arange(len(part)), bad[name]))
        parts[name] = replace(kept, skipped=part.skipped + len(bad[name]))
        names = [splits[name].name(position) for position in bad[name]]
        places += [Path(place) for place in names]  # a file that is mended is read again
        if names:
            notes.append(f"{home}: {len(names):,} pictures of {name} can't be read: left out ({first_few(names)})")
        if names and not len(parts[name]):
            raise UserError(f"{home}: no picture of {name} can be read, the first because: {reasons[0]}")
    if reasons and len(catalogue.train):
        labels = {name: part.labels for name, part in parts.items()}
        notes += check_classes(catalogue.class_names, labels, home)
    value_range = None if reading.value_range else _value_range(found)
    notes = list(dict.fromkeys(notes))
    return replace(catalogue, read_from=tuple(places), notes=tuple(notes), value_range=value_range, **parts)


def _value_range(found: Mapping[str, Vetting]) -> tuple[float, float] | None:
    """The lowest and the highest value of all pictures of more than 8 bits; None where there are none."""
    ranges = [values for outcome in found.values() for values in outcome.deep.values()]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def _notes(found: Mapping[str, Vetting], reading: Reading, home: Path) -> list[str]:
    """What is said at every start."""
    notes = []
    looked = sum(outcome.looked for outcome in found.values())
    transparent, deep = (sum(len(getattr(o, what)) for o in found.values()) for what in ("transparent", "deep"))
    if transparent:
        notes.append(
            f"{home}: {transparent:,} of {looked:,} pictures are transparent in places, where "
            f"dataset.background={list(reading.background)} is seen"
        )
    measured, given = _value_range(found), reading.value_range
    if measured:
        low, high = measured
        if low == high:
            raise UserError(f"{home}: all pixels of more than 8 bits have the value {low:g}; set dataset.value_range")
        chosen = f"dataset.value_range={list(given)}" if given else "these, since dataset.value_range is null,"
        notes.append(
            f"{home}: {deep:,} of {looked:,} pictures have more than 8 bits, with values from {low:g} to {high:g}; "
            f"{chosen} become black to white"
        )
    elif given and all(outcome.looked == outcome.size for outcome in found.values()):
        notes.append(f"dataset.value_range={list(given)}: changes nothing, since no picture has more than 8 bits")
    return notes
