"""A data set of pictures on disk: found, checked once, remembered, and opened; in memory where it is small."""

import hashlib
import logging
import os
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.files.decode import Reading
from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.measure import channel_statistics, hold_in_memory
from srp_exp.datasets.labels import check_classes
from srp_exp.datasets.on_disk.catalogue import Catalogue, Facts, check_counts, look_up_files
from srp_exp.datasets.on_disk.prepared import check_copy, copy_facts, read_copy
from srp_exp.datasets.on_disk.search import find_home
from srp_exp.datasets.on_disk.vetted import open_split, vetted
from srp_exp.errors import UserError
from srp_exp.remembered import Arrays, index_file, remembered
from srp_exp.remembered import known as remembered_as

_LOG = logging.getLogger("srp_exp")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as of most pretrained weights


class PictureSet(FileSet):
    """A subclass says in `read` which pictures there are; the rest is done here, for it and for prepared copies of it.

    The settings are those of config/schemas/datasets.py. Pictures of one size that take no more than memory_mb
    together are held in memory and keep their size, unless `augmentation` resizes or cuts them otherwise than by
    default. own, settings: what `read` gets besides, under their names. known: facts of the set, as of `facts_of`, with
    which no training picture is looked at, and the training part stays empty.

    What was found out counts until the set or the file of the class changes. `index` of a split counts the samples of
    the official list, so that it stays the same in subsets and copies. mean and std are ImageNet's for a published set,
    and measured for others. Raises MissingFileError and UserError.
    """

    _index: Path
    set_name: ClassVar[str]
    facts: ClassVar[Facts | None] = None  # None: any number of pictures is complete
    remedy: ClassVar[str] = "restore it"  # where to get the set, the end of messages about missing parts
    usual_names: ClassVar[tuple[str, ...]] = ()  # of its folder; and layouts: as of `find_home`
    layouts: ClassVar[tuple[tuple[str, ...], ...]] = ((),)
    asks: ClassVar[tuple[str, ...]] = ()
    """What `read` gets besides: "boxes", whether they are needed; "cache", a folder; "class_names", where these are
    known already and no training picture is needed, else None."""

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
        vet: str = "auto",
        background: Sequence[int] = Reading().background,
        value_range: Sequence[float] | None = None,
        own: Mapping[str, Any] | None = None,
        known: Mapping[str, Any] | None = None,
        **settings: Any,
    ):
        if not root:  # which Path takes for the current folder
            raise UserError("dataset.root=: is empty, as an unset variable is; name a folder")
        folder = Path(root).expanduser()
        copy = copy_facts(folder)
        settings |= own or {}
        reading = Reading(tuple(background), None if value_range is None else tuple(value_range))
        chosen = {name: value for name, value in vars(reading).items() if value != getattr(Reading(), name)}
        texts = {setting: str(value) for setting, value in (settings | chosen).items()}
        check_copy(folder, copy, self.set_name, copy_side, texts)
        home = folder if copy else self.locate(folder)
        index = index_file(home, self.set_name, cache_dir)
        code, digest = _code(type(self))
        key = f"{verify} {on_corrupt} {vet} {crop_to_box} {sorted(texts.items())} {digest}"
        cache = index.with_suffix("").absolute()
        if known is not None:
            reading = Reading(**known["reading"])
            if remembered_as(index, key) is None:
                index, key = index.with_name(f"{index.stem}-test.zip"), f"{key} test"

        def read() -> Arrays:
            all_told = {"boxes": crop_to_box, "cache": cache, "class_names": known and tuple(known["class_names"])}
            told = {name: all_told[name] for name in self.asks}
            found = read_copy(home, copy) if copy else self.read(home, **told, **settings)
            found = self._checked(found, home, verify == "strict", known is None)
            if on_corrupt == "skip" or vet != "none":
                how = {"everything": vet == "all", "skips": on_corrupt == "skip"}
                found = vetted(found, home, crop_to_box=crop_to_box, reading=reading, **how)
            probes = [path for part in found.parts.values() for path in part.source(home).probes()]
            return replace(found, read_from=(*found.read_from, *probes)).to_arrays()

        catalogue = Catalogue.from_arrays(remembered(index, key, read))
        if known is not None:
            catalogue = catalogue.without_training()
        for note in catalogue.notes:
            _LOG.warning("%s", note)
        reading = replace(reading, value_range=reading.value_range or catalogue.value_range)
        splits = {name: open_split(home, part, crop_to_box, reading) for name, part in catalogue.parts.items()}
        holds = augmentation.leaves_size and (known is None or known["held"])
        held = hold_in_memory(splits, memory_mb if holds else 0)
        if known is not None:
            mean, std = known["mean"], known["std"]
        elif self.facts:
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        elif held:
            mean, std = channel_statistics(held["train"]).tolist()
        else:
            places = np.array([str(path) for path in catalogue.read_from])
            measured = remembered(
                index.with_name(f"{index.stem}-mean.zip"),
                key,
                lambda: {"read_from": places, "found": channel_statistics(splits["train"])},
            )
            mean, std = measured["found"].tolist()
        super().__init__(
            **(held or splits),
            class_names=catalogue.class_names,
            mean=tuple(mean),
            std=tuple(std),
            augmentation=augmentation,
            settings=texts,
            reading=reading,
            read_from=tuple(str(path) for path in [*catalogue.read_from, *code]),
        )
        object.__setattr__(self, "_index", index)
        if held:
            _LOG.info(
                "pictures are held in memory at their size, %d x %d pixels, and moved by up to %d in training; "
                "dataset.memory_mb=0 reads, resizes and crops them instead",
                *self.image_size,
                self.augmentation.crop_padding,
            )

    def forget(self) -> None:
        """Read the set again at the next start, since a picture has to be replaced that could be read before."""
        self._index.unlink(missing_ok=True)

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
    def _checked(cls, catalogue: Catalogue, home: Path, strict: bool, whole: bool) -> Catalogue:
        """The set in `home`, with the facts that it lacks as notes, or as an error where `strict`.

        Not `whole`: without its training part.
        """
        remedy = f"{cls.remedy}, or accept a subset with dataset.verify=warn" if cls.facts else cls.remedy
        catalogue = catalogue if whole else catalogue.without_training()
        catalogue = look_up_files(catalogue, home, remedy if cls.facts else "restore or remove them", strict)
        if not whole:  # digests of the other parts say more
            return catalogue
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
