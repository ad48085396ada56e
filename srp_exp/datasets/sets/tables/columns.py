"""What the columns of tables hold: images or the names of their files, labels, splits."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from srp_exp.datasets.sets.folder import ENDINGS
from srp_exp.datasets.sets.tables.read_tables import PictureTable
from srp_exp.errors import UserError, first_few

_SPLIT = "split"  # a column of this name tells the splits, unless another is chosen


class Columns(NamedTuple):
    """Names of columns. in_table: whether `image` is of a type of images. class_names: of integer labels."""

    image: str
    label: str
    split: str | None
    in_table: bool
    class_names: tuple[str, ...] = ()


def find_columns(table: PictureTable, image: str | None, label: str | None, split: str | None) -> Columns:
    """The columns of the given names, or the only ones of images and labels: by their features, else by their types.

    Raises UserError where there is no such column, or more than one and none is chosen.
    """
    place, schema = table.place, table.data.data.schema
    for setting, chosen in (("dataset.label_column", label), ("dataset.split_column", split)):
        _check_there(table, setting, chosen)
    if split is None and _SPLIT in set(_texts(table)) - {image, label}:
        split = _SPLIT
    images = _of_images(table)
    image = image_column(table, "dataset.image_column", image)
    labels = [name for name, feature in table.data.features.items() if type(feature).__name__ == "ClassLabel"]
    others = [field for field in schema if field.name not in (*images, image, split)]
    labels = labels or [field.name for field in others if read_as(field.type) is not None]
    label = label or _only(table, labels, "dataset.label_column", "labels", "labels as integers or texts")
    if label == image:
        raise UserError(f"dataset.label_column={label}: {place} has the images there; choose another column")
    return Columns(image, label, split, holds_images(schema.field(image).type), _class_names(table, label))


def image_column(table: PictureTable, setting: str, chosen: str | None) -> str:
    """The column `chosen` of images or names of image files; None: the only one.

    Raises UserError, which names the `setting`, where there is no such column, or more than one and none is chosen.
    """
    _check_there(table, setting, chosen)
    image = chosen or _only(table, _of_images(table), setting, "images", "images, or names of image files")
    kind = table.data.data.schema.field(image).type
    if not holds_images(kind) and image not in _texts(table):
        raise UserError(f"{table.place}: column {image} is {kind}, no images; set {setting}")
    return image


def _check_there(table: PictureTable, setting: str, chosen: str | None) -> None:
    if chosen is not None and chosen not in table.data.features:
        raise UserError(
            f"{setting}={chosen}: {table.place} has no such column, but {first_few([*table.data.features])}"
        )


def _texts(table: PictureTable) -> list[str]:
    return [field.name for field in table.data.data.schema if read_as(field.type) == pa.string()]


def _of_images(table: PictureTable) -> list[str]:
    """The columns that may hold images: by their features, else by their types, else by the first name in them."""
    first = table.data.data.slice(0, 1).select(_texts(table)).to_pydict()
    return (
        [name for name, feature in table.data.features.items() if type(feature).__name__ == "Image"]
        or [field.name for field in table.data.data.schema if holds_images(field.type)]
        or [name for name, values in first.items() if str(values[0]).lower().endswith(ENDINGS)]
    )


def read_labels(tables: Sequence[PictureTable], columns: Columns, like: NDArray[Any] | None = None) -> NDArray[Any]:
    """The labels of all rows, integers or texts. like: those of train, which say what the numbers in a CSV are.

    Raises UserError where they are neither, or missing, or mean other classes than the names in `columns`.
    """
    found: list[NDArray[Any]] = []
    for table in tables:
        check_columns(table, columns)
        own = _class_names(table, columns.label)
        pairs = itertools.zip_longest(own, columns.class_names) if own and columns.class_names else ()
        for label, (here, there) in enumerate(pairs):
            if here != there:
                raise UserError(
                    f"{table.place}: class {label} is {here}, and {there} in the first file; give them one order"
                )
        column = table.data.data.column(columns.label)
        kind = None if type(table.data.features[columns.label]).__name__ == "Json" else read_as(column.type)
        missing = np.flatnonzero([value is None or value == "" for value in column.to_pylist()])
        if kind is None or len(missing):
            rows = f" with {len(missing)} missing ({first_few([f'#{row}' for row in missing.tolist()])})"
            raise UserError(
                f"{table.place}: its labels are {column.type}{rows if len(missing) else ''}; give each row one integer "
                f"or one text"
            )
        try:
            found.append(np.array(column.cast(kind).to_pylist(), np.int64 if kind == pa.int64() else str))
        except pa.ArrowInvalid as error:
            raise UserError(f"{table.place}: its labels are no integers of 64 bits ({error}); mend them") from None
    if len({labels.dtype.kind for labels in found}) > 1:
        raise UserError(f"{tables[0].place}: labels are integers in some files and texts in others; make them the same")
    labels = np.concatenate(found)
    is_csv = tables[0].place.lower().endswith((".csv", ".tsv"))
    return _typed(labels, tables[0].place) if is_csv and (like is None or like.dtype.kind != "U") else labels


def check_columns(table: PictureTable, columns: Columns) -> None:
    """Raise UserError where a file lacks what the first one has."""
    schema: pa.Schema = table.data.data.schema
    if missing := [name for name in (columns.image, columns.label) if name not in schema.names]:
        raise UserError(f"{table.place}: has no column {missing[0]}, but {first_few(schema.names)}; fetch or mend it")
    kind = schema.field(columns.image).type
    if holds_images(kind) != columns.in_table or not (columns.in_table or read_as(kind) == pa.string()):
        raise UserError(f"{table.place}: column {columns.image} is {kind}, no images; fetch it again")


def has_labels(tables: Sequence[PictureTable], label: str) -> bool:
    """Whether there is a label in any row: the hub's -1 stands for none, as do empty cells and no column at all."""
    columns = [table.data.data.column(label) for table in tables if label in table.data.column_names]
    return any(not set(pc.unique(column).to_pylist()) <= {None, "", -1, "-1"} for column in columns)


def names_in_column(table: PictureTable, column: str) -> list[str] | None:
    """The names of the image files in a column; None where it holds the images themselves."""
    values = table.data.data.column(column)
    if pa.types.is_struct(values.type):
        paths = pc.struct_field(values, "path") if "path" in [field.name for field in values.type] else values
        if pc.struct_field(values, "bytes").null_count < len(values) or paths.null_count == len(values):
            return None
        values = paths
    elif holds_images(values.type):
        return None
    names: list[str] = [name or "" for name in values.to_pylist()]
    if "" in names:
        row = f"{table.place}#{names.index('')}"
        raise UserError(f"{row}: has no file name in column {column}; add it, or remove the row")
    return names


def _typed(texts: NDArray[Any], place: str) -> NDArray[Any]:
    """The whole numbers that the cells of a CSV are, if all of them are; else the texts."""
    if all(text[0] == "[" and text[-1] == "]" for text in texts.tolist()):
        raise UserError(f"{place}: its labels are lists, as {texts[0]}; give each row one integer or one text")
    values = pa.array(texts.tolist())
    try:
        values.cast(pa.float64())
    except pa.ArrowInvalid:
        return texts
    if pc.any(pc.match_substring_regex(values, "^-?0[0-9]")).as_py():  # as 007
        return texts
    try:
        return np.array(values.cast(pa.int64()).to_pylist(), np.int64)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{place}: its labels are no integers of 64 bits ({error}); give integers or texts, or set "
            f"dataset.label_column"
        ) from None


def _class_names(table: PictureTable, label: str) -> tuple[str, ...]:
    return tuple(getattr(table.data.features.get(label), "names", None) or ())


def holds_images(kind: pa.DataType) -> bool:
    """Whether values of this type are encoded images: bytes, or structs with such a field."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and holds_images(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def read_as(kind: pa.DataType) -> pa.DataType | None:
    """The type as which labels of a type are read; None where they can't be labels."""
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.string() if pa.types.is_string(kind) or pa.types.is_large_string(kind) else None


def _only(table: PictureTable, found: list[str], setting: str, what: str, meaning: str) -> str:
    if not found:
        there = first_few([f"{field.name} ({field.type})" for field in table.data.data.schema])
        raise UserError(f"{table.place}: no column holds {meaning}, only {there}; add a column with one for each row")
    if len(found) > 1:
        raise UserError(
            f"{table.place}: {len(found)} columns may hold {what}; set {setting} to one of {first_few(found)}"
        )
    return found[0]
