"""What the columns of tables hold: images or the names of their files, labels, splits."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from srp_exp.datasets.sets.folder import ENDINGS
from srp_exp.datasets.sets.read_tables import Table, features_of, holds_images
from srp_exp.errors import UserError, first_few

_SPLIT = "split"  # a column of this name tells the splits, unless another is chosen
_WHOLE_NUMBER = "^(0|-?[1-9][0-9]*)$"


class Columns(NamedTuple):
    """Names of columns. in_table: whether `image` holds images; else names of files. class_names: of integer labels."""

    image: str
    label: str
    split: str | None
    in_table: bool
    class_names: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [name for name in (self.image, self.label, self.split) if name is not None]


def find_columns(
    place: str,
    schema: pa.Schema,
    texts: Callable[[list[str]], pa.Table],
    image: str | None = None,
    label: str | None = None,
    split: str | None = None,
) -> Columns:
    """The columns of the given names, or the only ones of images and labels: by the hub's features, else by type.

    texts: returns columns of texts, whose first row tells whether they are names of pictures. Raises UserError where
    there is no such column, or more than one and none is chosen.
    """
    for what, chosen in (("image", image), ("label", label), ("split", split)):
        if chosen is not None and chosen not in schema.names:
            raise UserError(
                f"dataset.{what}_column={chosen}: {place} has no such column, but {first_few(schema.names)}"
            )
    if split is None and _SPLIT in schema.names and _SPLIT not in (image, label):
        split = _SPLIT if _read_as(schema.field(_SPLIT).type) == pa.string() else None
    kinds = {name: feature.get("_type") for name, feature in features_of(schema).items()}
    images = [name for name, kind in kinds.items() if kind == "Image"] or [
        f.name for f in schema if holds_images(f.type)
    ]
    if not images and image is None:
        named = [field.name for field in schema if _read_as(field.type) == pa.string()]
        first = texts(named).slice(0, 1).to_pydict() if named else {}
        images = [name for name, values in first.items() if values and str(values[0]).lower().endswith(ENDINGS)]
    image = image or _only(place, schema, images, "image", "images, or names of image files")
    in_table = holds_images(schema.field(image).type)
    if not in_table and _read_as(schema.field(image).type) != pa.string():
        raise UserError(f"{place}: column {image} is {schema.field(image).type}, no images; set dataset.image_column")
    others = [field for field in schema if field.name not in (*images, image, split)]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels = labels or [field.name for field in others if _read_as(field.type) is not None]
    label = label or _only(place, schema, labels, "label", "labels as integers or texts")
    if label == image:
        raise UserError(f"dataset.label_column={label}: {place} has the images there; choose another column")
    return Columns(image, label, split, in_table, _class_names(schema, label))


def read_labels(tables: Sequence[Table], columns: Columns, like: NDArray[Any] | None = None) -> NDArray[Any]:
    """The labels of all rows, integers or texts. like: those of the training split, whose kind tells numbers in a CSV.

    Raises UserError where they are neither, or missing, or mean other classes than the names in `columns`.
    """
    labels: dict[str, list[NDArray[Any]]] = {}
    for table in tables:
        own = _class_names(table.schema, columns.label)
        for label, (here, there) in enumerate(itertools.zip_longest(own, columns.class_names) if own else ()):
            if columns.class_names and here != there:
                raise UserError(
                    f"{table.place}: class {label} is {here}, and {there} in the first file; give them one order"
                )
        column = table.data.column(columns.label)
        kind = None if features_of(table.schema).get(columns.label) == {"_type": "Json"} else _read_as(column.type)
        missing = column.is_null()
        if kind == pa.string():
            column = column.cast(kind)
            missing = pc.or_(missing, pc.equal(pc.fill_null(column, ""), ""))
        rows = np.flatnonzero(missing.to_numpy())
        if kind is None or len(rows):
            named = f" ({first_few([f'#{row}' for row in rows.tolist()])})" if len(rows) else ""
            raise UserError(
                f"{table.place}: its labels are {column.type} with {len(rows)} missing{named}; give integers or texts"
            )
        try:
            read = column.cast(kind)
        except pa.ArrowInvalid as error:
            raise UserError(f"{table.place}: its labels are no integers of 64 bits ({error}); mend them") from None
        labels.setdefault(str(kind), []).append(
            read.to_numpy() if kind == pa.int64() else np.array(read.to_pylist(), str)
        )
    if len(labels) > 1:
        raise UserError(f"{tables[0].place}: labels are integers in some files and texts in others; make them the same")
    found = np.concatenate(next(iter(labels.values()))) if labels else np.empty(0, np.int64)
    if found.dtype.kind == "U" and not tables[0].has_types and (like is None or like.dtype.kind != "U"):
        return _numbers_in(found, tables[0].place)
    return found


def has_labels(tables: Sequence[Table], label: str) -> bool:
    """Whether there is a label in any row: the hub's -1 stands for none, as do empty cells and no column at all."""
    for table in tables:
        if label in table.data.column_names:
            values = pc.unique(table.data.column(label)).to_pylist()
            if not set(values) <= {None, "", -1, "-1"}:
                return True
    return not tables or all(not len(table.data) for table in tables)


def texts_of(tables: Sequence[Table], column: str) -> NDArray[np.str_]:
    """A column of texts; missing ones are empty."""
    return np.array([value or "" for table in tables for value in table.data.column(column).to_pylist()], np.str_)


def file_names(table: Table, column: str) -> list[str] | None:
    """The names of the image files in a column; None where it holds the images themselves."""
    values = table.data.column(column).combine_chunks()
    if pa.types.is_struct(values.type):
        if values.field("bytes").null_count < len(values) or "path" not in [field.name for field in values.type]:
            return None
        values = values.field("path")
    elif holds_images(values.type):
        return None
    names: list[str] = [name or "" for name in values.to_pylist()]
    if "" in names:
        raise UserError(
            f"{table.place}#{names.index('')}: has no file name in column {column}; add it, or remove the row"
        )
    return names


def _numbers_in(texts: NDArray[Any], place: str) -> NDArray[Any]:
    """The whole numbers that texts without a type are, if all of them are; else the texts."""
    values = pa.array(texts.tolist())
    if pc.all(pc.match_substring_regex(values, _WHOLE_NUMBER)).as_py():
        try:
            numbers: NDArray[np.int64] = values.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise UserError(f"{place}: its labels are no integers of 64 bits ({error}); mend them") from None
        return numbers
    try:
        values.cast(pa.float64())
    except pa.ArrowInvalid:
        return texts
    raise UserError(
        f"{place}: its labels are numbers with a decimal point; give integers or texts, or set dataset.label_column"
    )


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    return tuple(features_of(schema).get(label, {}).get("names") or ())


def _read_as(kind: pa.DataType) -> pa.DataType | None:
    """The type as which labels of a type are read; None where they can't be labels."""
    if pa.types.is_dictionary(kind):  # pandas' categories
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return pa.int64()
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()
    return pa.string() if is_text else None


def _only(place: str, schema: pa.Schema, found: list[str], what: str, meaning: str) -> str:
    if not found:
        columns = first_few([f"{field.name} ({field.type})" for field in schema])
        raise UserError(f"{place}: no column holds {meaning}, only {columns}; set dataset.{what}_column, or add one")
    if len(found) > 1:
        raise UserError(
            f"{place}: {len(found)} columns may hold {what}s; set dataset.{what}_column to one of {first_few(found)}"
        )
    return found[0]
