"""The catalogue of a data set on disk: which files it has, with their labels and boxes, and whether that is all of it.

A set's own module reads its lists into a `Catalogue`; the checks against the official facts are the same for all.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from srp_exp.datasets.files.texts import Texts
from srp_exp.datasets.sets.index_cache import Arrays
from srp_exp.errors import MissingFileError, UserError

_SHOWN = 3  # offenders named in a message


@dataclass(frozen=True)
class Facts:
    """What is known of the official set. remedy: where to get it, the end of the messages about missing parts."""

    train_size: int
    test_size: int
    num_classes: int
    remedy: str


@dataclass(frozen=True)
class Listing:
    """The files of one split.

    paths: N files relative to the set's folder, of a sample in a parquet file that file. labels: (N,) int64, from 0.
    index: (N,) int64, the place in the official list. boxes: (N, 4) float32 left, top, right, bottom in pixels from
    the picture's upper left corner, or None.
    """

    paths: Sequence[str]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    boxes: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Catalogue:
    """A set as its lists give it. notes: what is amiss and was accepted, because of dataset.verify=warn."""

    train: Listing
    test: Listing
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_arrays(self) -> Arrays:
        """The catalogue as arrays, for an index file."""
        arrays = _text_arrays("class_names", self.class_names) | _text_arrays("notes", self.notes)
        for name, part in (("train", self.train), ("test", self.test)):
            arrays |= _text_arrays(f"{name}_paths", part.paths)
            arrays |= {f"{name}_labels": part.labels, f"{name}_index": part.index}
            if part.boxes is not None:
                arrays[f"{name}_boxes"] = part.boxes
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "Catalogue":
        train, test = (
            Listing(
                _texts(arrays, f"{name}_paths"),
                arrays[f"{name}_labels"],
                arrays[f"{name}_index"],
                arrays.get(f"{name}_boxes"),
            )
            for name in ("train", "test")
        )
        return cls(train, test, tuple(_texts(arrays, "class_names")), tuple(_texts(arrays, "notes")))


def listing(paths: Sequence[str], labels: ArrayLike, boxes: NDArray[np.float32] | None = None) -> Listing:
    """A listing in its official order."""
    return Listing(paths, np.asarray(labels, np.int64), np.arange(len(paths)), boxes)


def check_labels(catalogue: Catalogue, place: Path) -> None:
    """Raise ValueError unless every label is one of the classes."""
    num_classes = len(catalogue.class_names)
    for part in (catalogue.train, catalogue.test):
        wrong = np.flatnonzero((part.labels < 0) | (part.labels >= num_classes))
        if len(wrong):
            found = first_few([f"{part.paths[row]}: {part.labels[row]}" for row in wrong.tolist()])
            raise UserError(
                f"{place}: {len(wrong):,} labels lie outside the {num_classes} classes, counted from 0 ({found}); "
                f"the lists are damaged or of another set: fetch them again"
            )


def drop_absent(catalogue: Catalogue, home: Path, facts: Facts, strict: bool) -> Catalogue:
    """The catalogue without the files that aren't below `home`. Raises FileNotFoundError where `strict`."""
    parts = (catalogue.train, catalogue.test)
    there = _files_below(home, {path.rpartition("/")[0] for part in parts for path in part.paths})
    kept = [np.array([path in there for path in part.paths], dtype=bool) for part in parts]
    absent = [
        part.paths[row] for part, is_kept in zip(parts, kept, strict=True) for row in np.flatnonzero(~is_kept).tolist()
    ]
    if not absent:
        return catalogue
    message = f"{home}: {len(absent):,} listed files are absent ({first_few(absent)})"
    if strict:
        raise MissingFileError(f"{message}; {facts.remedy}, or accept a subset with dataset.verify=warn")
    train, test = (_rows(part, np.flatnonzero(is_kept)) for part, is_kept in zip(parts, kept, strict=True))
    return replace(catalogue, train=train, test=test, notes=(*catalogue.notes, f"{message} and left out"))


def check_counts(sizes: tuple[int, int], num_classes: int, facts: Facts, place: Path) -> str | None:
    """How the counts differ from the official ones, as a message, or None. Raises ValueError for an empty split.

    sizes: of the training and the test split.
    """
    found = {"training images": sizes[0], "test images": sizes[1], "classes": num_classes}
    official = (facts.train_size, facts.test_size, facts.num_classes)
    if 0 in found.values():
        missing = next(what for what, count in found.items() if count == 0)
        raise UserError(f"{place}: there are no {missing}; {facts.remedy}")
    off = [
        f"{n:,} {what} instead of {known:,}"
        for (what, n), known in zip(found.items(), official, strict=True)
        if n != known
    ]
    return f"{place}: {', '.join(off)}" if off else None


def first_few(names: Sequence[object]) -> str:
    """Up to three names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(str(name) for name in names[:_SHOWN])}{more}"


def _rows(part: Listing, rows: NDArray[np.int64]) -> Listing:
    boxes = None if part.boxes is None else part.boxes[rows]
    return Listing([part.paths[row] for row in rows.tolist()], part.labels[rows], part.index[rows], boxes)


def _files_below(home: Path, folders: Iterable[str]) -> set[str]:
    """The files in `folders`, by their paths relative to `home`: a folder at a time, not a call for every file."""
    found = set()
    for folder in folders:
        if (home / folder).is_dir():
            with os.scandir(home / folder) as entries:
                found |= {f"{folder}/{entry.name}".lstrip("/") for entry in entries}
    return found


def _text_arrays(name: str, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
    packed = Texts.of(texts)
    return {f"{name}_bytes": np.frombuffer(packed.encoded, np.uint8), f"{name}_ends": packed.ends}


def _texts(arrays: Arrays, name: str) -> Texts:
    return Texts(arrays[f"{name}_bytes"].tobytes(), arrays[f"{name}_ends"])
