"""Pictures in a folder for every class: where torchvision's ImageFolder and timm look for them, in the same order."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srp_exp.datasets.sets.catalogue import Listing, first_few, listing

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
"""Of the names of pictures that are decoded, in small letters; the content decides what kind they are."""


def class_folders(place: Path) -> list[str]:
    """The folders in `place`, sorted, but for those whose names begin with a dot."""
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_pictures(home: Path, part: str, class_names: Sequence[str]) -> tuple[Listing, list[Path], tuple[str, ...]]:
    """The pictures of `home`/`part`/<class>, at any depth, the label of a class being its place in `class_names`.

    Also the folders that were looked into, and notes on the other files, which are passed over; hidden files and
    folders are so in silence.
    """
    paths: list[str] = []
    labels: list[int] = []
    folders = [home / part]
    others: list[str] = []
    for label, name in enumerate(class_names):
        base = str(home / part / name)
        for folder, names in _walk(base):
            folders.append(Path(folder))
            inside = f"{part}/{name}{folder.removeprefix(base)}".removeprefix("./")
            pictures = [file for file in names if file.lower().endswith(ENDINGS)]
            others += (
                [f"{inside}/{file}" for file in names if file not in set(pictures)]
                if len(pictures) < len(names)
                else []
            )
            paths += [f"{inside}/{file}" for file in pictures]
            labels += [label] * len(pictures)
    notes = (f"{home}: {len(others):,} files are no pictures and passed over ({first_few(others)})",)
    return listing(paths, np.array(labels, np.int64)), folders, notes if others else ()


def loose_pictures(place: Path) -> list[str]:
    """The names of the pictures that lie in `place` itself, sorted; none where it doesn't exist."""
    if not place.is_dir():
        return []
    with os.scandir(place) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(ENDINGS) and not e.name.startswith("."))


def _walk(place: str) -> list[tuple[str, list[str]]]:
    """Every folder at and below `place`, none where it is absent, with the names of its files; both are sorted."""
    found = []
    for folder, inner, names in os.walk(place, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        found.append((folder, sorted(name for name in names if not name.startswith("."))))
    return sorted(found)
