"""The catalogue of a data set on disk: which images it has, with their labels and boxes, and whether that is all of it.

A set's own module reads its lists into a `Catalogue`; the checks are the same for all.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from srp_exp.datasets.files.source import FolderSource, ImageSource, encoded_texts
from srp_exp.datasets.files.table_source import TableSource, content_of, read_arrow
from srp_exp.datasets.split import held_out
from srp_exp.errors import MissingFileError, UserError, first_few
from srp_exp.remembered import Arrays

PARTS = ("train", "val", "test")
"""The splits that a set may have; val may be absent."""


@dataclass(frozen=True)
class Facts:
    """How large the published set is."""

    train_size: int
    test_size: int
    num_classes: int


@dataclass(frozen=True)
class Listing:
    """The images of one split.

    paths: (N,) bytes, files relative to the set's folder; or, with `cells`, the Arrow files that hold them. labels:
    (N,) int64, from 0. index: (N,) int64, the place in the official list. boxes: (N, 4) float32 left, top, right,
    bottom in pixels from the picture's upper left corner. sizes: (N,) int64 in bytes. cells, places (bytes), column,
    content: as of TableSource. skipped: how many were left out of a copy as corrupt.
    """

    paths: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    boxes: NDArray[np.float32] | None = None
    sizes: NDArray[np.int64] | None = None
    cells: NDArray[np.int64] | None = None
    places: NDArray[np.bytes_] | None = None
    column: str = ""
    content: str = ""
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, rows: NDArray[np.int64]) -> "Listing":
        """The images at `rows`. The Arrow files stay."""
        of_images = [name for name in ("labels", "index", "boxes", "sizes", "cells") if getattr(self, name) is not None]
        if self.cells is None:
            of_images.append("paths")
        return replace(self, **{name: getattr(self, name)[rows] for name in of_images})

    def source(self, home: Path) -> ImageSource:
        """Where the images are read from, `home` being the set's folder."""
        if self.cells is None or self.places is None:
            return FolderSource(home, self.paths, self.sizes)
        files, places = [home / os.fsdecode(path) for path in self.paths], [os.fsdecode(place) for place in self.places]
        return TableSource(files, places, self.cells, self.column, self.content)


@dataclass(frozen=True)
class Catalogue:
    """A set as its lists give it.

    read_from: the lists and folders, which may be absent: a change of one makes the set be read again. notes: what is
    amiss and was accepted. val: the validation part, where the set brings one. value_range: the lowest and the highest
    value of the pictures of more than 8 bits, where there are any and it was measured.
    """

    train: Listing
    test: Listing
    class_names: tuple[str, ...]
    read_from: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    val: Listing | None = None
    value_range: tuple[float, float] | None = None

    @property
    def parts(self) -> dict[str, Listing]:
        parts = {name: getattr(self, name) for name in PARTS}
        return {name: part for name, part in parts.items() if part is not None}

    def without_training(self) -> "Catalogue":
        return replace(self, train=self.train.rows(np.arange(0)))

    def to_arrays(self) -> Arrays:
        """The catalogue as arrays, for an index file."""
        arrays: dict[str, NDArray[Any]] = {}
        for name in ("class_names", "read_from", "notes"):
            arrays[name] = np.array([str(text) for text in getattr(self, name)], np.str_)
        for name, part in self.parts.items():
            values = {field.name: getattr(part, field.name) for field in fields(part)}
            arrays |= {f"{name}_{key}": np.asarray(value) for key, value in values.items() if value is not None}
        return arrays if self.value_range is None else arrays | {"value_range": np.array(self.value_range)}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> "Catalogue":
        def part(name: str) -> Listing | None:
            if f"{name}_labels" not in arrays:
                return None
            found: dict[str, Any] = {field.name: arrays.get(f"{name}_{field.name}") for field in fields(Listing)}
            told = {"column": str(found["column"]), "content": str(found["content"]), "skipped": int(found["skipped"])}
            return Listing(**{**found, **told})

        names, places, notes = (tuple(arrays[name].tolist()) for name in ("class_names", "read_from", "notes"))
        value_range = tuple(arrays["value_range"].tolist()) if "value_range" in arrays else None
        parts: dict[str, Any] = {name: part(name) for name in PARTS}
        read_from = tuple(Path(place) for place in places)
        return cls(**parts, class_names=names, read_from=read_from, notes=notes, value_range=value_range)


def listing(paths: Sequence[str], labels: ArrayLike, boxes: ArrayLike | None = None) -> Listing:
    """A listing in its official order. Raises UserError where there aren't as many labels, and boxes, as paths."""
    read = np.asarray(labels, np.int64), None if boxes is None else np.asarray(boxes, np.float32)
    if any(values is not None and len(values) != len(paths) for values in read):
        raise UserError(f"listing: {len(paths):,} paths, but another number of labels or boxes; give one for each")
    return Listing(encoded_texts(paths), read[0], np.arange(len(paths)), read[1])


def listing_of_rows(
    tables: Sequence[tuple[str, Sequence[Path]]],
    column: str,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64] | None = None,
) -> Listing:
    """Images in the column of tables, of which each is a name for messages and the Arrow files that hold it; unread.

    rows: (N,), counted over all tables; None: all. Raises UserError where a file is damaged.
    """
    files, places, counts = [], [], [0]
    for place, inside in tables:
        first = sum(counts)
        for file in inside:
            places.append(f"{place}#{sum(counts) - first}")
            files.append(file)
            counts.append(len(read_arrow(file)))
    rows = np.arange(sum(counts)) if rows is None else rows
    starts = np.cumsum(counts)
    number = np.searchsorted(starts, rows, "right") - 1
    cells = np.stack([number, rows - starts[number]], 1)
    paths, encoded_places = (encoded_texts([str(text) for text in texts]) for texts in (files, places))
    return Listing(paths, labels, rows, cells=cells, places=encoded_places, column=column)


def divide(
    whole: Listing, test: Listing | None, test_fraction: float, seed: int, home: Path, class_names: Sequence[str] = ()
) -> tuple[Listing, Listing]:
    """The training and the test part of a set. `test` is the one that the set has; else it is taken out of `whole`.

    test_fraction: of every class, drawn from `seed`, which is apart from the run's: the test part stays the same over
    runs. Raises UserError where the set has a test part and a fraction is asked for, or has none and it isn't.
    """
    if test is not None:
        if test_fraction:
            raise UserError(f"dataset.test_fraction={test_fraction}: {home} has a test part already; set it to 0")
        return whole, test
    if not test_fraction:
        raise UserError(
            f"{home}: has no test part; add one, or take a part of the pictures with dataset.test_fraction=0.2"
        )
    is_test = held_out(torch.from_numpy(whole.labels), test_fraction, seed, "test", class_names).numpy()
    return whole.rows(np.flatnonzero(~is_test)), whole.rows(np.flatnonzero(is_test))


def look_up_files(catalogue: Catalogue, home: Path, remedy: str, strict: bool) -> Catalogue:
    """The catalogue with the sizes of its files, or digests of images in tables, and without files that are absent.

    The folders that hold them, or the Arrow files, join what it is read from. Raises MissingFileError where files are
    absent and `strict`.
    """
    parts: dict[str, Any] = {}
    folders: set[bytes] = set()
    absent: list[str] = []
    for name, part in catalogue.parts.items():
        if part.cells is None:
            inside = {path.rpartition(b"/")[0] for path in part.paths.tolist()}
            sizes = _sizes(home, part.paths, inside)
            absent += [os.fsdecode(path) for path in part.paths[sizes < 0]]
            part = replace(part, sizes=sizes).rows(np.flatnonzero(sizes >= 0))
            folders |= inside
        else:
            folders |= set(part.paths.tolist())
            part = replace(part, content=content_of(part.source(home)))
        parts[name] = part
    places = dict.fromkeys([*catalogue.read_from, *(home / os.fsdecode(folder) for folder in sorted(folders))])
    found = replace(catalogue, read_from=tuple(places), **parts)
    if not absent:
        return found
    message = f"{home}: {len(absent):,} listed files are absent ({first_few(absent)})"
    if strict:
        raise MissingFileError(f"{message}; {remedy}")
    return replace(found, notes=(*catalogue.notes, f"{message} and left out"))


def check_counts(catalogue: Catalogue, facts: Facts | None, place: Path, remedy: str, strict: bool) -> tuple[str, ...]:
    """How the counts differ from the published ones, as notes; those that were skipped as corrupt count as there.

    Raises UserError for an empty split, and where counts differ and `strict`.
    """
    train, test = (len(part) + part.skipped for part in (catalogue.train, catalogue.test))
    found = {"training images": train, "test images": test, "classes": len(catalogue.class_names)}
    for what, count in found.items():
        if count == 0:
            raise UserError(f"{place}: there are no {what}; {remedy}")
    known = found.values() if facts is None else (facts.train_size, facts.test_size, facts.num_classes)
    off = [f"{n:,} {what} instead of {k:,}" for (what, n), k in zip(found.items(), known, strict=True) if n != k]
    if off and strict:
        raise UserError(f"{place}: {', '.join(off)}; {remedy}")
    return (f"{place}: {', '.join(off)}; taken as it is, as dataset.verify=warn",) if off else ()


def _sizes(home: Path, paths: NDArray[np.bytes_], folders: set[bytes]) -> NDArray[np.int64]:
    """The size of every file in bytes, -1 where it is absent: a folder at a time, not a search for every file."""
    found: dict[bytes, int] = {}
    for folder in folders:
        place = home / os.fsdecode(folder)
        if place.is_dir():
            with os.scandir(place) as entries:
                prefix = folder + b"/" if folder else b""
                # A link that leads back to itself is no file of Path's, and an error of the entry's.
                files = (e for e in entries if e.is_file(follow_symlinks=False) or Path(e).is_file())
                found |= {prefix + os.fsencode(e.name): e.stat().st_size for e in files}
    return np.array([found.get(path, -1) for path in paths.tolist()], np.int64)
