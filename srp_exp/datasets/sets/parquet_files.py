"""Images in parquet files, as the Hugging Face hub has them: where each one's bytes lie, so that any is read at once.

Files that keep their images uncompressed hold every image as a stretch of bytes: the stretches are found once. Out of a
compressed file the images are written once, one after another, into a file of the cache folder.
"""

import hashlib
import itertools
import json
import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from srp_exp.datasets.remembered import LOG
from srp_exp.datasets.sets.catalogue import Listing
from srp_exp.errors import UserError, first_few
from srp_exp.files import stamp, write_atomically


@dataclass(frozen=True)
class Columns:
    """The columns of images and labels. class_names: of integer labels, as the schema gives them, or none."""

    image: str
    label: str
    class_names: tuple[str, ...] = ()


def find_columns(file: Path, image: str | None, label: str | None) -> Columns:
    """The columns of the given names, or the only ones of images and labels: by the hub's features, else by type.

    Raises UserError where there is none, or more than one and none is chosen.
    """
    schema = read_schema(file)
    features = _features(schema)
    kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    images = [name for name, kind in kinds.items() if kind == "Image"] or [
        f.name for f in schema if _holds_images(f.type)
    ]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"] or [
        f.name for f in schema if _read_as(f.type) is not None and f.name not in images
    ]
    image, label = (
        _only(file, schema, chosen, found, what)
        for chosen, found, what in ((image, images, "image"), (label, labels, "label"))
    )
    if not _holds_images(schema.field(image).type):
        raise UserError(f"{file}: column {image} is {schema.field(image).type}, no images; set dataset.image_column")
    return Columns(image, label, _class_names(schema, label))


def read_schema(file: Path) -> pa.Schema:
    """Raises UserError where the file is damaged."""
    try:
        schema = pq.read_schema(file)
        _features(schema)
        return schema
    except (pa.ArrowException, OSError, ValueError, AttributeError) as error:
        raise UserError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]}); fetch it again") from None


def read_labels(files: Sequence[Path], columns: Columns) -> NDArray[Any]:
    """The labels of all rows, integers or texts.

    Raises UserError where they are neither, or missing, or mean other classes than the names in `columns`.
    """
    labels: dict[str, list[NDArray[Any]]] = {}
    for file in files:
        schema = read_schema(file)
        missing = [name for name in (columns.image, columns.label) if name not in schema.names]
        if missing:
            raise UserError(f"{file}: has no column {missing[0]}, which the other files have; fetch it again")
        if not _holds_images(schema.field(columns.image).type):
            raise UserError(
                f"{file}: column {columns.image} is {schema.field(columns.image).type}, no images; fetch it again"
            )
        names = _class_names(schema, columns.label)
        both = enumerate(itertools.zip_longest(names, columns.class_names)) if names and columns.class_names else ()
        for label, (own, other) in both:
            if own != other:
                raise UserError(f"{file}: class {label} is {own}, and {other} in the first file; give them one order")
        column = pq.read_table(file, columns=[columns.label]).column(columns.label)
        kind = _read_as(column.type)
        if column.null_count or kind is None:
            raise UserError(
                f"{file}: its labels are {column.type} with {column.null_count} missing; give integers or texts"
            )
        try:
            read = column.cast(kind)
        except pa.ArrowInvalid as error:
            raise UserError(f"{file}: its labels are no integers of 64 bits ({error}); mend them") from None
        labels.setdefault(str(kind), []).append(read.to_numpy() if kind == pa.int64() else np.array(read.to_pylist()))
    if len(labels) > 1:
        raise UserError(f"{files[0].parent}: labels are integers in some files and texts in others; make them the same")
    return np.concatenate(next(iter(labels.values()))) if labels else np.empty(0, np.int64)


def read_listing(home: Path, files: Sequence[Path], column: str, labels: NDArray[np.int64], cache: Path) -> Listing:
    """The images of all rows of `files`, which lie below `home`. cache: folder for what is compressed.

    The listing's `content` is a digest of every byte of the images. Raises UserError where the cache has no room.
    """
    content = hashlib.sha256()
    paths: list[bytes] = []
    stretches = [np.empty((0, 3), np.int64)]
    for number, file in enumerate(files):
        found = _stretches(file, column, content)
        place = file
        if (found < 0).any():
            place, found = _unpacked(file, column, cache)
        paths.append(os.fsencode(place.relative_to(home) if place.is_relative_to(home) else place))
        stretches.append(np.insert(found, 0, number, axis=1))
    return Listing(
        np.array(paths, np.bytes_),
        labels,
        np.arange(len(labels)),
        stretches=np.concatenate(stretches),
        content=content.hexdigest(),
    )


def _stretches(file: Path, column: str, content: "hashlib._Hash") -> NDArray[np.int64]:
    """First byte and the byte after the last of every image in `file`, (N, 2); -1 where it isn't there as it is.

    Adds the images to the digest `content`.
    """
    found = []
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        for (first, end, is_compressed), values in _groups(file, column):
            at = first
            for value in values:
                content.update(hashlib.sha256(value).digest())
                at = -1 if is_compressed else _find(raw, value, at, first, end)
                found.append((at, at + len(value) if at >= 0 else -1))
                at = max(at + len(value), first)
    return np.array(found, np.int64).reshape(-1, 2)


def _find(raw: mmap.mmap, value: pa.Buffer, expected: int, first: int, end: int) -> int:
    """Where `value` is between `first` and `end`: after the four bytes of its length, or a page's header, or before."""
    if raw[expected + 4 : expected + 4 + len(value)] == value:
        return expected + 4
    at = raw.find(value, expected, end)
    return at if at >= 0 else raw.find(value, first, end)  # values that are equal may be stored once


def _groups(file: Path, column: str) -> Iterator[tuple[tuple[int, int, bool], list[pa.Buffer]]]:
    """For every row group where its images lie, whether they are compressed, and the images; missing ones are empty."""
    with pq.ParquetFile(file) as opened:
        is_struct = pa.types.is_struct(opened.schema_arrow.field(column).type)
        leaf = f"{column}.bytes" if is_struct else column
        for group in range(opened.num_row_groups):
            metadata = opened.metadata.row_group(group)
            if not metadata.num_rows:
                continue
            (chunk,) = (c for c in map(metadata.column, range(metadata.num_columns)) if c.path_in_schema == leaf)
            first = min(offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset)
            images = opened.read_row_group(group, columns=[leaf]).column(column)
            values = [value["bytes"] if is_struct and value.is_valid else value for value in images]
            yield (
                (first, first + chunk.total_compressed_size, chunk.compression != "UNCOMPRESSED"),
                [value.as_buffer() if value.is_valid else pa.py_buffer(b"") for value in values],
            )


def _unpacked(file: Path, column: str, cache: Path) -> tuple[Path, NDArray[np.int64]]:
    """The file in `cache` that holds the images of a parquet file one after another, and their stretches in it."""
    sizes = np.array([len(value) for _, values in _groups(file, column) for value in values], np.int64)
    ends = np.cumsum(sizes)
    place = cache / f"{file.name}-{hashlib.sha256(json.dumps([column, *stamp(file)]).encode()).hexdigest()[:12]}.images"
    needed = int(ends[-1]) if len(ends) else 0
    if not (place.is_file() and place.stat().st_size == needed):
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if needed > free:
            raise UserError(
                f"{file}: its images are compressed and need {needed:,} bytes in {cache}, where {free:,} are free; "
                f"set dataset.cache_dir"
            )
        LOG.info("%s: its images are compressed, so they are unpacked once into %s", file, place)
        write_atomically(place, lambda out: [out.write(value) for _, group in _groups(file, column) for value in group])
    return place, np.stack([ends - sizes, ends], 1)


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """What the hub says of the columns."""
    said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return {name: feature for name, feature in said.items() if name in schema.names}  # others have been renamed


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    return tuple((_features(schema).get(label) or {}).get("names") or ())


def _read_as(kind: pa.DataType) -> pa.DataType | None:
    """The type as which labels of a type are read; None where they can't be labels."""
    if pa.types.is_dictionary(kind):  # pandas' categories
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.string() if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _only(file: Path, schema: pa.Schema, chosen: str | None, found: list[str], what: str) -> str:
    choices = first_few(found)
    if chosen is not None and chosen not in schema.names:
        raise UserError(f"dataset.{what}_column={chosen}: {file} has no such column, but {first_few(schema.names)}")
    if chosen is None and not found:
        there = first_few([f"{field.name} ({field.type})" for field in schema])
        raise UserError(f"{file}: no column holds {what}s{' as integers or texts' * (what == 'label')}, only {there}")
    if chosen is None and len(found) > 1:
        raise UserError(f"{file}: {len(found)} columns may hold {what}s; set dataset.{what}_column to one of {choices}")
    return chosen or found[0]
