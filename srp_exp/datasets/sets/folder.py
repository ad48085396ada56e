"""A data set of one's own: a folder of pictures for every class.

They lie where torchvision's ImageFolder and timm look for them, and come in the same order.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srp_exp.datasets.labels import refuse_unknown
from srp_exp.datasets.sets.catalogue import Catalogue, Listing, divide, listing
from srp_exp.datasets.sets.picture_set import PictureSet
from srp_exp.errors import MissingFileError, UserError, first_few

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Of the names of pictures that are decoded, in small letters; the content decides what kind they are."""

_OF_SYSTEMS = (".", "__MACOSX", "@eaDir")
"""How the names of folders begin that systems leave in others."""

_TRAIN, _TEST = ("train", "training"), ("test", "testing", "val", "valid", "validation")
"""What the folders of the splits are called, in any letters; of the test folders the first with classes counts."""


class Folder(PictureSet):
    """train/<class>/ and test/<class>/ or val/<class>/; or <class>/ only, of which `test_fraction` is for testing.

    Classes are the folders in train, in sorted order. test_fraction, split_seed: as of `divide`. A folder with nothing
    but another one in it, as archives bring it, is passed through.
    """

    set_name = "folder"
    remedy = "it needs train/<class>/ and test/<class>/ or val/<class>/, or <class>/ and dataset.test_fraction"

    @classmethod
    def locate(cls, root: Path) -> Path:
        if not root.is_dir():
            raise MissingFileError(f"dataset.root={root}: there is no such folder; {cls.remedy}")
        inside = class_folders(root)
        while len(inside) == 1 and _named(inside, _TRAIN) is None and not loose_pictures(root / inside[0]):
            root, inside = root / inside[0], class_folders(root / inside[0])
        if not inside:
            raise MissingFileError(f"dataset.root={root}: has no folders; {cls.remedy}")
        return root

    @classmethod
    def read(cls, home: Path, test_fraction: float = 0.0, split_seed: int = 0) -> Catalogue:
        inside = class_folders(home)
        tests = [name for name in inside if name.lower() in _TEST]
        with_classes = [name for name in tests if class_folders(home / name)]
        train_part, test_part = _named(inside, _TRAIN) or ".", _named(with_classes or tests, _TEST)
        if train_part == "." and test_part:
            raise UserError(f"{home}: has a folder {test_part}, but none named {' or '.join(_TRAIN)}; {cls.remedy}")
        names = tuple(class_folders(home / train_part))
        only = home / train_part / names[0] if len(names) == 1 else None
        if only and len(class_folders(only)) > 1 and not loose_pictures(only):
            raise UserError(f"{only}: is the only class and has folders only; move them to where it lies")
        whole, folders, notes = list_pictures(home, train_part, names)
        test = None
        if test_part:
            refuse_unknown(class_folders(home / test_part), names, test_part, home)
            test, more, other = list_pictures(home, test_part, names)
            folders, notes = folders + more, notes + other
        parts = [train_part, *([test_part] if test_part else [])]
        for part in parts:
            if loose := loose_pictures(home / part):
                notes += (
                    f"{home / part}: {len(loose):,} pictures are in no class and passed over ({first_few(loose)})",
                )
        if train_part != "." and (unread := [name for name in inside if name not in (train_part, test_part)]):
            notes += (f"{home}: {first_few(unread)} is not read: all of the set is in {' and '.join(parts)}",)
        train, test = divide(whole, test, test_fraction, split_seed, home)
        return Catalogue(train, test, names, (home, *folders, *(home / name for name in tests)), notes)


def _named(folders: list[str], names: tuple[str, ...]) -> str | None:
    by_name = {folder.lower(): folder for folder in folders}
    return next((by_name[name] for name in names if name in by_name), None)


def class_folders(place: Path) -> list[str]:
    """The folders in `place`, sorted, but for those that systems leave there."""
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(_OF_SYSTEMS))


def list_pictures(home: Path, part: str, class_names: Sequence[str]) -> tuple[Listing, list[Path], tuple[str, ...]]:
    """The pictures of `home`/`part`/<class>, at any depth, the label of a class being its place in `class_names`.

    Also the folders that were looked into, and notes on the other files, which are passed over; hidden files and
    folders are so in silence.
    """
    paths: list[str] = []
    labels: list[int] = []
    folders = [home / part]
    others: list[str] = []
    for label, name in enumerate(class_names):
        base = str(home / part / name)
        for folder, names in walk(base):
            folders.append(Path(folder))
            inside = f"{part}/{name}{folder.removeprefix(base)}".removeprefix("./")
            pictures = [file for file in names if file.lower().endswith(ENDINGS)]
            others += [f"{inside}/{file}" for file in names if not file.lower().endswith(ENDINGS)]
            paths += [f"{inside}/{file}" for file in pictures]
            labels += [label] * len(pictures)
    notes = (f"{home}: {len(others):,} files are no pictures and passed over ({first_few(others)})",)
    return listing(paths, np.array(labels, np.int64)), folders, notes if others else ()


def loose_pictures(place: Path) -> list[str]:
    """The names of the pictures that lie in `place` itself, sorted; none where it doesn't exist."""
    if not place.is_dir():
        return []
    with os.scandir(place) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(ENDINGS) and not e.name.startswith("."))


def walk(place: str) -> list[tuple[str, list[str]]]:
    """Every folder at and below `place`, none where it is absent, with the names of its files; both are sorted.

    Raises UserError for a link that leads back to a folder in which it lies.
    """
    found = []
    for folder, inner, names in os.walk(place, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(_OF_SYSTEMS)]
        for link in (Path(folder, name) for name in inner):
            if link.is_symlink() and Path(folder).resolve().is_relative_to(link.resolve()):
                raise UserError(f"{link}: a link to a folder in which it lies; remove it")
        found.append((folder, sorted(name for name in names if not name.startswith("."))))
    return sorted(found)
