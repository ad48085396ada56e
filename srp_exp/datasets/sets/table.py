"""Data sets in tables: parquet, Arrow, CSV and JSON files with images or the names of image files."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from srp_exp.datasets.labels import check_numbers, refuse_unknown
from srp_exp.datasets.on_disk.catalogue import Catalogue, Listing, divide, listing, listing_of_rows
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.sets.tables.columns import Columns, find_columns, has_labels, names_in_column, read_labels
from srp_exp.datasets.sets.tables.read_tables import KINDS, PictureTable, read_table
from srp_exp.datasets.sets.tables.table_files import find_tables, locate_tables, split_of
from srp_exp.errors import MissingFileError, UserError, first_few


class TableSet(PictureSet):
    """Tables named after their splits, in a folder, its folder data or its only other one; or one table.

    settings: as of `catalogue_of`. Rows are in the order of the sorted files.
    """

    set_name = "table"
    asks: ClassVar = ("cache", "class_names")
    endings: ClassVar[tuple[str, ...]] = tuple(KINDS)
    remedy = (
        "it needs train.parquet or train-*.parquet (or .arrow, .csv, .tsv, .json, .jsonl), or one table of any name"
    )

    @classmethod
    def locate(cls, root: Path) -> Path:
        return locate_tables(root, cls.endings, cls.usual_names, cls.remedy)

    @classmethod
    def read(cls, home: Path, cache: Path, **settings: Any) -> Catalogue:
        files = dict(find_tables(home, cls.endings))
        if settings.get("class_names") and len(files) > 1:
            del files["train"]
        tables = {split: [read_table(path, cache) for path in paths] for split, paths in files.items()}
        catalogue = catalogue_of(tables, home, **settings)
        return replace(catalogue, read_from=(home, *(path for paths in files.values() for path in paths)))


class Csv(TableSet):
    """CSV files only."""

    endings = (".csv", ".tsv")
    remedy = "it needs train.csv, or one *.csv of any name"


class _Part(NamedTuple):
    """The rows of tables that are a split. labels: (N,), integers or texts. rows: (N,), counted over the tables."""

    tables: list[PictureTable]
    labels: NDArray[Any]
    rows: NDArray[np.int64]


def catalogue_of(
    tables: Mapping[str, list[PictureTable]],
    home: Path,
    class_names: tuple[str, ...] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    test_split: str | None = None,
    test_fraction: float = 0.0,
    split_seed: int = 0,
) -> Catalogue:
    """The set whose tables are given by split; `read_from` is left empty.

    class_names: where they are known, and tables of train can be left out; then the training part is empty.
    image_column: images (binary, or a struct with the field `bytes`), or names of image files relative to the table;
    label_column: integers from 0, or texts. None: the only column that may be it. Classes have the names that the
    schema gives; of texts they are in sorted order. split_column: tells the split of every row where all tables are of
    train; None: the column "split", if there is one. test_split: "test", "validation"...; None: test, or validation
    where test is absent or has no labels. test_fraction, split_seed: as of `divide`, for a set without a test split.
    """
    first = next(tables[split] for split in ("train", "val", "test") if split in tables)
    columns = find_columns(first[0], image_column, label_column, split_column)
    parts, notes = _parts(tables, columns if len(tables) == 1 else columns._replace(split=None), class_names)
    labels, names = parts["train"].labels, class_names or columns.class_names
    if not names and labels.dtype.kind == "U":
        names = tuple(np.unique(labels).tolist())
    elif not names:
        check_numbers(labels, columns.label, home)
        names = tuple(map(str, range(int(labels.max(initial=-1)) + 1)))
    chosen = test_split and split_of(test_split)
    if test_split and (chosen == "train" or chosen not in parts):
        raise UserError(
            f"dataset.test_split={test_split}: {home} has no such split with labels, but {first_few(list(parts))}"
        )
    test = chosen or next((split for split in ("test", "val") if split in parts), None)
    used = {split: part for split, part in parts.items() if split in ("train", "val", test)}
    listings = {
        split: _listing(part, columns.image, _numbered(part.labels, labels, names, split, home), home)
        for split, part in used.items()
    }
    tested = listings[test] if test else None
    train, test_part = divide(listings["train"], tested, test_fraction, split_seed, home, names)
    if train.cells is None and len(both := np.intersect1d(train.paths, test_part.paths)):
        files = first_few([os.fsdecode(path) for path in both.tolist()])
        notes.append(f"{home}: {len(both):,} files are in train and in the test part ({files})")
    return Catalogue(train, test_part, names, (), tuple(notes), None if test == "val" else listings.get("val"))


def _parts(
    tables: Mapping[str, list[PictureTable]], columns: Columns, class_names: tuple[str, ...] | None
) -> tuple[dict[str, _Part], list[str]]:
    """The splits that have labels, train always; and notes on those that have none."""
    whole = tables.get("train", [])
    if whole:
        labels = read_labels(whole, columns)
    else:  # of integers the classes have their names
        labels = np.empty(0, np.int64 if class_names == tuple(map(str, range(len(class_names or ())))) else np.str_)
    if columns.split is None:
        parts = {"train": _Part(whole, labels, np.arange(len(labels)))}
        notes = []
        for split, each in tables.items():
            if split != "train" and has_labels(each, columns.label):
                read = read_labels(each, columns, labels)
                parts[split] = _Part(each, read, np.arange(len(read)))
            elif split != "train":
                notes.append(f"{each[0].place}: has no labels, and isn't read")
        return parts, notes
    words = [word or "" for table in whole for word in table.data.data.column(columns.split).to_pylist()]
    unknown = sorted({word for word in words if split_of(word) is None})
    if unknown:
        raise UserError(
            f"{whole[0].place}: column {columns.split} has {first_few([repr(word) for word in unknown])}; write train, "
            f"test or validation, or set dataset.split_column to another one"
        )
    splits = np.array([split_of(word) for word in words], np.str_)
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "test", "val")}
    if not len(rows["train"]):
        raise UserError(f"{whole[0].place}: column {columns.split} has no row of train")
    return {split: _Part(whole, labels[found], found) for split, found in rows.items() if len(found)}, []


def _numbered(
    labels: NDArray[Any], of_train: NDArray[Any], names: Sequence[str], split: str, home: Path
) -> NDArray[np.int64]:
    """Labels as numbers; texts are looked up in `names`."""
    if labels.dtype.kind != "U":
        if of_train.dtype.kind == "U":
            raise UserError(f"{home}: labels are texts in train and integers in {split}; make them the same")
        return labels.astype(np.int64)
    refuse_unknown(labels.tolist(), names, split, home)
    order = np.argsort(names)  # the schema's names come in any order
    return order[np.searchsorted(np.array(names)[order], labels)]


def _listing(part: _Part, column: str, labels: NDArray[np.int64], home: Path) -> Listing:
    """The images of a split, in Arrow files, or in files that are named."""
    named = [names_in_column(table, column) for table in part.tables]
    if any(names is None for names in named):
        return listing_of_rows([(table.place, table.files) for table in part.tables], column, labels, part.rows)
    every = [(table, name) for table, names in zip(part.tables, named, strict=True) for name in names or ()]
    rows = [every[row] for row in part.rows.tolist()]
    paths = [os.path.normpath(table.folder.absolute() / name) for table, name in rows]
    if paths and not Path(paths[0]).is_file():
        raise MissingFileError(
            f"{rows[0][0].place}: column {column} names {rows[0][1]!r}, but {paths[0]} doesn't exist; names begin at "
            f"the folder of the table, have / between folders and end as the files do"
        )
    label_of: dict[str, Any] = {}
    for path, label in zip(paths, part.labels.tolist(), strict=True):
        if label_of.setdefault(path, label) != label:
            raise UserError(f"{rows[0][0].place}: {path} has the labels {label_of[path]} and {label}; remove one row")
    return replace(listing([path.removeprefix(f"{home.absolute()}/") for path in paths], labels), index=part.rows)
