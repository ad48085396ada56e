"""Data sets in parquet files, as the Hugging Face hub has them, and ImageNet-1k in that form."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from srp_exp.datasets.labels import check_numbers, refuse_unknown
from srp_exp.datasets.sets.catalogue import Catalogue, Listing, divide
from srp_exp.datasets.sets.imagenet import FACTS
from srp_exp.datasets.sets.parquet_files import Columns, find_columns, read_labels, read_listing
from srp_exp.datasets.sets.picture_set import PictureSet
from srp_exp.datasets.sets.search import candidates
from srp_exp.errors import MissingFileError, UserError, first_few

_TRAIN, _TEST = ("train", "training"), ("test", "validation", "valid", "val")
"""What the names of a split's files begin with, or of their folder; of the test splits the first that has labels."""

_COUNTED = re.compile(r"-(\d+)-of-(\d+)")


class Parquet(PictureSet):
    """<split>-*.parquet, <split>.parquet or <split>/*.parquet in the folder, its folder data, or its only other one.

    image_column: binary, or a struct with the field `bytes`; label_column: integers from 0, or texts. None: the only
    column that may be it. Classes have the names that the schema's metadata give; of texts they are in sorted order.
    test_split: "test", "validation"...; None: test, or validation where test has no labels. test_fraction, split_seed:
    as of `divide`, for a set without a test split. Rows are in the order of the sorted files.
    """

    set_name = "parquet"
    asks: ClassVar = ("cache",)
    remedy = "it needs train-*.parquet, or train/*.parquet"

    @classmethod
    def locate(cls, root: Path) -> Path:
        found: list[Path] = []
        for home in candidates(root, cls.usual_names):
            deeper = sorted(path for path in home.glob("*/") if path.name != "data")
            named = ([home], _TRAIN), ([home / "data"], _TRAIN), (deeper, _TRAIN)
            for places, splits in (*named, ([home, home / "data", *deeper], ("",))):
                found = found or [place for place in places if _files(place, splits)]
        if len(found) == 1:
            return found[0]
        what = "there is no such folder" if not root.is_dir() else "no train-*.parquet is in it or in its folder data"
        if found:
            what = f"has several data sets ({first_few([place.name for place in found])}); set dataset.root to one"
        raise MissingFileError(f"dataset.root={root}: {what}; {cls.remedy}")

    @classmethod
    def read(
        cls,
        home: Path,
        cache: Path,
        image_column: str | None = None,
        label_column: str | None = None,
        test_split: str | None = None,
        test_fraction: float = 0.0,
        split_seed: int = 0,
    ) -> Catalogue:
        files = _files(home, _TRAIN) or _files(home, ("",))
        columns = find_columns(files[0], image_column, label_column)
        labels = read_labels(files, columns)
        names = columns.class_names
        if labels.dtype.kind == "U":
            names = tuple(np.unique(labels).tolist())
        elif not names:
            check_numbers(labels, columns.label, home)
            names = tuple(str(label) for label in range(int(labels.max(initial=-1)) + 1))
        whole = read_listing(home, files, columns.image, _numbers(labels, names, home), cache)
        tests = [test_split] if test_split else [name for name in _TEST if _files(home, (name,))]
        test, test_files = (
            _read_test(home, tests, columns, names, cache, labels.dtype.kind == "U")
            if _files(home, _TRAIN)
            else (None, [])
        )
        train, test = divide(whole, test, test_fraction, split_seed, home)
        return Catalogue(train, test, names, (home, *files, *test_files))


class ImageNetParquet(Parquet):
    """ImageNet-1k as https://huggingface.co/datasets/ILSVRC/imagenet-1k has it; its test files have no labels."""

    set_name = "imagenet"
    usual_names: ClassVar = ("imagenet", "imagenet1k", "imagenetparquet")
    facts = FACTS
    remedy = "fetch all train-*.parquet and validation-*.parquet of https://huggingface.co/datasets/ILSVRC/imagenet-1k"


def _read_test(
    home: Path, splits: Sequence[str], columns: Columns, names: tuple[str, ...], cache: Path, are_texts: bool
) -> tuple[Listing | None, list[Path]]:
    """The first of `splits` that has labels, and its files; None where there is none."""
    for split in splits:
        files = _files(home, (split,))
        read = read_labels(files, columns)
        if read.dtype.kind != "U" and are_texts:
            raise UserError(f"{home}: labels are texts in train and integers in {split}; make them the same")
        labels = _numbers(read, names, home)
        if not len(labels) or labels.max() >= 0:  # the hub's -1 stands for no label
            return read_listing(home, files, columns.image, labels, cache), files
    return None, []


def _numbers(labels: NDArray[Any], names: tuple[str, ...], home: Path) -> NDArray[np.int64]:
    """Labels as numbers; texts are looked up in `names`. Raises UserError for a text that isn't there."""
    if labels.dtype.kind != "U":
        return labels.astype(np.int64)
    refuse_unknown(labels.tolist(), names, "test", home)
    order = np.argsort(names)  # the schema's names come in any order
    return order[np.searchsorted(np.array(names)[order], labels)]


def _files(home: Path, splits: Sequence[str]) -> list[Path]:
    """The parquet files of a split, the first of the possible names that has any, sorted; of "" all there are."""
    in_any_case = partial(re.sub, "[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]")
    for split in splits:
        for pattern in (f"{split}-*.parquet", f"{split}.parquet", f"{split}/*.parquet") if split else ("*.parquet",):
            files = sorted(home.glob(in_any_case(pattern)))
            if files:
                return _whole(home, files)
    return []


def _whole(home: Path, files: list[Path]) -> list[Path]:
    """The files. Raises UserError where their names count them, as -00000-of-00002, and some are absent or double."""
    counts = [[int(number) for number in found[-1]] for path in files if (found := _COUNTED.findall(path.name))]
    if counts and sorted(counts) != [[number, len(files)] for number in range(len(files))]:
        names = first_few([path.name for path in files])
        raise UserError(f"{home}: {names} aren't all the files of one split, each once; fetch or remove some")
    return files
