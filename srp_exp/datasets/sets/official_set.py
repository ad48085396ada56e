"""What the published sets of image files share: found below a folder, checked once, remembered, and opened."""

import logging
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.corrupt import find_corrupt
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.packed import is_packed, open_packed
from srp_exp.datasets.files.source import FolderSource, ImageSource
from srp_exp.datasets.sets.catalogue import (
    Catalogue,
    Facts,
    Listing,
    check_counts,
    check_labels,
    drop_absent,
    first_few,
)
from srp_exp.datasets.sets.index_cache import index_file, remembered, stamps
from srp_exp.errors import MissingFileError, UserError

LOG = logging.getLogger("srp_exp")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as of all pretrained weights of timm


class OfficialSet(FileSet):
    """A published set in its official layout, or a copy of it that scripts/prepare_data.py has made.

    root: the folder of the set or the one above it, or that of a prepared copy. cache_dir: where the index of the
    checked set is kept; None: <set's folder>/.srp_exp, or ~/.cache/srp_exp where that can't be written. verify:
    "strict" demands the official counts and every listed file; "warn" takes what is there and logs what isn't.
    on_corrupt: "stop" ends the run at an image that can't be decoded; "skip" tries all images once and leaves the
    broken out of training and evaluation. copy_side: the shorter side in pixels that the prepared copy at `root` was
    reduced to, as its pictures aren't the original's; None: nothing was reduced. crop_to_box: cut every picture to
    its bounding box before all else.

    `index` of a split counts the samples of the official list, so that it stays the same in subsets and copies.
    mean and std are those of ImageNet. Raises FileNotFoundError and ValueError, in one line with the first few
    offenders and the remedy.
    """

    set_name: ClassVar[str]
    facts: ClassVar[Facts]
    folders: ClassVar[tuple[str, ...]]  # the usual names of its folder below root
    marks: ClassVar[tuple[str, ...]]  # any of these makes a folder the set's
    has_lists: ClassVar[bool] = True  # false: the files in the folders are all that is known

    def __init__(
        self,
        root: str,
        cache_dir: str | None,
        verify: str,
        on_corrupt: str,
        copy_side: int | None,
        augmentation: FileAugmentation,
        crop_to_box: bool = False,
    ):
        folder, strict = Path(root).expanduser(), verify == "strict"
        if is_packed(folder):
            home, stamped = folder, [folder / "packed.json"]
            splits, class_names = self._open_copy(folder, copy_side, strict)
        else:
            _check_no_copy(folder, copy_side)
            home = self.locate(folder)
            stamped = self.stamped(home)
            index = index_file(home, f"{self.set_name}-{verify}", cache_dir)
            splits, class_names = self._open_original(home, index, stamps(stamped), strict)
        for name, split in splits.items():
            if crop_to_box and split.boxes is None:
                raise MissingFileError(
                    f"dataset.crop_to_box=true: {home} has no bounding boxes; fetch them, "
                    f"or set dataset.crop_to_box=false"
                )
            splits[name] = split if crop_to_box else replace(split, boxes=None)
            if on_corrupt == "skip":
                index = index_file(home, f"{self.set_name}-{verify}-{name}-corrupt", cache_dir)
                splits[name] = _without_corrupt(splits[name], index, stamps(stamped), f"{self.set_name} {name}")
        super().__init__(
            train=splits["train"],
            test=splits["test"],
            class_names=class_names,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            augmentation=augmentation,
        )

    @classmethod
    def locate(cls, root: Path) -> Path:
        """The folder of the set: `root` or a usual folder below it. Raises FileNotFoundError where neither is one."""
        for home in (root, *(root / folder for folder in cls.folders)):
            if any((home / mark).exists() for mark in cls.marks):
                return home
        what = f"neither {' nor '.join(cls.marks)} is there" if root.is_dir() else "there is no such folder"
        raise MissingFileError(f"dataset.root={root}: {what}; {cls.facts.remedy}, or set dataset.root or data_root")

    @classmethod
    @abstractmethod
    def stamped(cls, home: Path) -> list[Path]:
        """The lists and folders that the catalogue is read from: a change of one makes it be read and checked again."""

    @classmethod
    @abstractmethod
    def read(cls, home: Path) -> Catalogue:
        """The set as the lists or folders in `home` have it, not yet checked against the facts."""

    @classmethod
    def has_boxes(cls, root: str | Path) -> bool:
        """Whether the set in `root` has what `crop_to_box` needs. Raises FileNotFoundError where there is no set."""
        return cls._has_boxes(cls.locate(Path(root).expanduser()))

    @classmethod
    def _has_boxes(cls, home: Path) -> bool:
        return False

    @classmethod
    def source(cls, home: Path, part: Listing) -> ImageSource:
        """Where the images of a split are read from."""
        return FolderSource(home, part.paths)

    @classmethod
    def _open_copy(cls, folder: Path, side: int | None, strict: bool) -> tuple[dict[str, FileSplit], tuple[str, ...]]:
        copy = open_packed(folder, cls.set_name)
        if copy.resize != side:
            raise UserError(
                f"dataset.copy_side={side}: {folder} holds pictures reduced to a shorter side of {copy.resize}, which "
                f"gives other results than the original; set dataset.copy_side={copy.resize}, or another dataset.root"
            )
        sizes = len(copy.train) + copy.train.skipped, len(copy.test) + copy.test.skipped
        for note in _count_notes(cls.facts, sizes, len(copy.class_names), folder, strict):
            LOG.warning("%s", note)
        return {"train": copy.train, "test": copy.test}, copy.class_names

    @classmethod
    def _open_original(
        cls, home: Path, index: Path, key: str, strict: bool
    ) -> tuple[dict[str, FileSplit], tuple[str, ...]]:
        catalogue = Catalogue.from_arrays(remembered(index, key, lambda: cls._checked(home, strict).to_arrays()))
        for note in catalogue.notes:
            LOG.warning("%s", note)
        parts = {"train": catalogue.train, "test": catalogue.test}
        return {name: _open(cls.source(home, part), part) for name, part in parts.items()}, catalogue.class_names

    @classmethod
    def _checked(cls, home: Path, strict: bool) -> Catalogue:
        """The set in `home`, with the facts that it lacks as notes, or as an error where `strict`."""
        catalogue = cls.read(home)
        check_labels(catalogue, home)
        if cls.has_lists:
            catalogue = drop_absent(catalogue, home, cls.facts, strict)
        sizes = len(catalogue.train), len(catalogue.test)
        notes = _count_notes(cls.facts, sizes, len(catalogue.class_names), home, strict)
        return replace(catalogue, notes=(*catalogue.notes, *notes))


def require(home: Path, names: tuple[str, ...], facts: Facts) -> None:
    """Raise FileNotFoundError unless all files and folders `names` are in `home`."""
    missing = [name for name in names if not (home / name).exists()]
    if missing:
        raise MissingFileError(f"{home}: {first_few(missing)} is missing; {facts.remedy}")


def with_subfolders(folder: Path) -> list[Path]:
    """`folder` and the folders in it: their modification times change when files come and go."""
    return [folder, *sorted(path for path in folder.glob("*/"))]


def _count_notes(facts: Facts, sizes: tuple[int, int], num_classes: int, place: Path, strict: bool) -> list[str]:
    note = check_counts(sizes, num_classes, facts, place)
    if note is None:
        return []
    if strict:
        raise UserError(f"{note}; {facts.remedy}, or accept a subset with dataset.verify=warn")
    return [f"{note}; taken as it is, as dataset.verify=warn"]


def _check_no_copy(folder: Path, side: int | None) -> None:
    if side is not None:
        raise UserError(
            f"dataset.copy_side={side}: {folder} is no prepared copy; set dataset.copy_side=null, or prepare one "
            f"with scripts/prepare_data.py resize={side}"
        )


def _open(source: ImageSource, part: Listing) -> FileSplit:
    boxes = None if part.boxes is None else torch.from_numpy(part.boxes)
    rows = torch.arange(len(part))
    return FileSplit(source, rows, torch.from_numpy(part.labels), torch.from_numpy(part.index), boxes)


def _without_corrupt(split: FileSplit, index: Path, key: str, name: str) -> FileSplit:
    """The split without the images that can't be decoded, which are counted in `skipped`."""
    corrupt = remembered(index, key, lambda: {"positions": find_corrupt(split)})["positions"]
    if not len(corrupt):
        return split
    names = first_few([split.source.name(int(split.rows[position])) for position in corrupt])
    LOG.warning("%s: %d images can't be decoded and are left out (%s)", name, len(corrupt), names)
    kept = torch.from_numpy(np.setdiff1d(np.arange(len(split)), corrupt))
    return replace(split.take(kept), skipped=split.skipped + len(corrupt))
