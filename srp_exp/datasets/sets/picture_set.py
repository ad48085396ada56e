"""A data set of pictures on disk: found, checked once, remembered, and opened; in memory where it is small."""

import hashlib
import logging
import os
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.measure import channel_statistics, find_corrupt, hold_in_memory
from srp_exp.datasets.labels import check_classes
from srp_exp.datasets.sets.catalogue import Catalogue, Facts, Listing, check_counts, look_up_files
from srp_exp.datasets.sets.prepared import check_copy, copy_facts, read_copy
from srp_exp.datasets.sets.search import find_home
from srp_exp.errors import MissingFileError, first_few
from srp_exp.remembered import index_file, remembered

LOG = logging.getLogger("srp_exp")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as of most pretrained weights


class PictureSet(FileSet):
    """A subclass says in `read` which pictures there are; the rest is done here, for it and for prepared copies of it.

    root: the folder of the set or the one above it, or that of a copy that scripts/prepare_data.py has made. cache_dir:
    where what was found out is kept; None: the user's cache folder. verify: "strict" demands the official counts and
    every listed file; "warn" takes what is there and logs what isn't. on_corrupt: "stop" ends the run at a picture that
    can't be decoded; "skip" tries all once and leaves the broken out of training and evaluation. copy_side: the shorter
    side in pixels that the copy at `root` was reduced to; None: nothing was reduced. crop_to_box: cut every picture to
    its bounding box before all else. memory_mb: pictures that all have one size and take no more than that together are
    held in memory and keep their size, unless `augmentation` resizes or cuts them otherwise than by default. own,
    settings: what `read` gets besides, under their names.

    What was found out counts until the set or the file of the class changes. `index` of a split counts the samples of
    the official list, so that it stays the same in subsets and copies. mean and std are ImageNet's for a published set,
    and measured for others. Raises MissingFileError and UserError, in one line with the first few offenders and the
    remedy.
    """

    set_name: ClassVar[str]
    facts: ClassVar[Facts | None] = None  # None: what is there is all of it
    remedy: ClassVar[str] = "restore it"  # where to get the set, the end of messages about missing parts
    usual_names: ClassVar[tuple[str, ...]] = ()  # of its folder; and layouts: as of `find_home`
    layouts: ClassVar[tuple[tuple[str, ...], ...]] = ((),)
    asks: ClassVar[
        tuple[str, ...]
    ] = ()  # what `read` gets besides: "boxes", whether they are needed; "cache", a folder

    def __init__(
        self,
        root: str,
        cache_dir: str | None,
        on_corrupt: str,
        copy_side: int | None,
        augmentation: FileAugmentation,
        verify: str = "strict",
        crop_to_box: bool = False,
        memory_mb: float = 0,
        own: Mapping[str, Any] | None = None,
        **settings: Any,
    ):
        folder = Path(root).expanduser()
        copy = copy_facts(folder)
        settings |= own or {}
        texts = {setting: str(value) for setting, value in settings.items()}
        check_copy(folder, copy, self.set_name, copy_side, texts)
        home = folder if copy else self.locate(folder)
        index = index_file(home, self.set_name, cache_dir)
        code, digest = _code(type(self))
        key = f"{verify} {on_corrupt} {crop_to_box} {sorted(texts.items())} {digest}"
        cache = index.with_suffix("").absolute()

        def read() -> Catalogue:
            told = {name: value for name, value in (("boxes", crop_to_box), ("cache", cache)) if name in self.asks}
            found = read_copy(home, copy) if copy else self.read(home, **told, **settings)
            return self._checked(found, home, verify == "strict")

        catalogue = Catalogue.from_arrays(remembered(index, key, lambda: read().to_arrays()))
        for note in catalogue.notes:
            LOG.warning("%s", note)
        splits = {name: _open(home, part, crop_to_box) for name, part in catalogue.parts.items()}
        read_from = [*catalogue.read_from, *(path for split in splits.values() for path in split.source.probes())]

        def found_out(what: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
            file, places = index.with_name(f"{index.stem}-{what}.zip"), np.array([str(path) for path in read_from])
            return remembered(file, key, lambda: {"read_from": places, "found": make()})["found"]

        if on_corrupt == "skip":
            for name, split in splits.items():
                corrupt = found_out(f"{name}-corrupt", lambda split=split: find_corrupt(split))  # type: ignore[misc]
                splits[name] = _without(split, corrupt, f"{self.set_name} {name}")
        held = hold_in_memory(splits, memory_mb if augmentation.leaves_size else 0)
        if self.facts:
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        elif held:
            mean, std = channel_statistics(held["train"]).tolist()
        else:
            mean, std = found_out("mean", lambda: channel_statistics(splits["train"])).tolist()
        super().__init__(
            **(held or splits),
            class_names=catalogue.class_names,
            mean=tuple(mean),
            std=tuple(std),
            augmentation=augmentation,
            settings=texts,
            read_from=tuple(str(path) for path in [*read_from, *code]),
        )
        if held:
            LOG.info(
                "pictures are held in memory at their size, %d x %d pixels, and moved by up to %d in training; "
                "dataset.memory_mb=0 reads, resizes and crops them instead",
                *self.image_size,
                self.augmentation.crop_padding,
            )

    @classmethod
    def locate(cls, root: Path) -> Path:
        """The folder of the set. Raises MissingFileError as `find_home` does."""
        return find_home(root, cls.usual_names, cls.layouts, cls.remedy)

    @classmethod
    @abstractmethod
    def read(cls, *arguments: Any, **settings: Any) -> Catalogue:
        """The set as the lists or folders in a folder have it, which is the argument; not yet checked."""

    @classmethod
    def has_boxes(cls, root: Path) -> bool:
        """Whether the set in `root` has what `crop_to_box` needs. Raises MissingFileError where there is no set."""
        return False

    @classmethod
    def _checked(cls, catalogue: Catalogue, home: Path, strict: bool) -> Catalogue:
        """The set in `home`, with the facts that it lacks as notes, or as an error where `strict`."""
        remedy = f"{cls.remedy}, or accept a subset with dataset.verify=warn" if cls.facts else cls.remedy
        catalogue = look_up_files(catalogue, home, remedy if cls.facts else "restore or remove them", strict)
        counts = check_counts(catalogue, cls.facts, home, remedy, strict)
        labels = {name: part.labels for name, part in catalogue.parts.items()}
        notes = check_classes(
            catalogue.class_names, labels, home, lambda name, row: catalogue.parts[name].source(home).name(row)
        )
        return replace(catalogue, notes=(*catalogue.notes, *counts, *notes))


def _code(kind: type[PictureSet]) -> tuple[list[Path], str]:
    """The source files of a class and of those below PictureSet that it is made of, and a digest: what `read` does."""
    classes = kind.__mro__[: kind.__mro__.index(PictureSet)]
    files = dict.fromkeys(getattr(sys.modules.get(each.__module__), "__file__", None) for each in classes)
    content = [Path(file).read_bytes() if file else os.urandom(16) for file in files]  # without a file: always anew
    digest = hashlib.sha256(b"".join(content)).hexdigest()
    return [Path(file) for file in files if file], f"{kind.__module__}.{kind.__qualname__} {digest}"


def _open(home: Path, part: Listing, crop_to_box: bool) -> FileSplit:
    if crop_to_box and part.boxes is None:
        raise MissingFileError(
            f"dataset.crop_to_box=true: {home} has no bounding boxes; fetch them, or set dataset.crop_to_box=false"
        )
    boxes = torch.from_numpy(part.boxes) if crop_to_box else None
    rows, labels, index = torch.arange(len(part)), torch.from_numpy(part.labels), torch.from_numpy(part.index)
    return FileSplit(part.source(home), rows, labels, index, boxes, part.skipped)


def _without(split: FileSplit, corrupt: NDArray[np.int64], name: str) -> FileSplit:
    """The split without the images at the positions `corrupt`, which are counted in `skipped`."""
    if not len(corrupt):
        return split
    names = first_few([split.source.name(int(split.rows[position])) for position in corrupt])
    LOG.warning("%s: %d images can't be decoded and are left out (%s)", name, len(corrupt), names)
    kept = torch.from_numpy(np.setdiff1d(np.arange(len(split)), corrupt))
    return replace(split.take(kept), skipped=split.skipped + len(corrupt))
