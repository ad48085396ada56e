"""A data set of one's own: a folder of pictures for every class.

They lie where torchvision's ImageFolder and timm look for them, and come in the same order.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srp_exp.datasets.labels import refuse_unknown
from srp_exp.datasets.on_disk.catalogue import Catalogue, Listing, divide, listing
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.errors import MissingFileError, UserError, first_few

ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
"""Of the names of pictures that are decoded, in small letters; the content decides what kind they are."""

_OF_SYSTEMS = (".", "__MACOSX", "@eaDir")
"""How the names of folders begin that systems leave in others."""

_TRAIN, _TEST, _VAL = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")
"""What the folders of the splits are called, in any letters."""

_NO_CLASSES = ("images", "imgs", "jpegimages")
"""Folders of pictures beside masks, boxes or a table: a network would tell these apart, to 100 %."""

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx")


class Folder(PictureSet):
    """train/<class>/, test/<class>/ and val/<class>/; or <class>/ only, of which `test_fraction` is for testing.

    Where one of test and val has classes it is for testing, else val is the validation part. Classes are the folders in
    train, in sorted order. test_fraction, split_seed: as of `divide`. A folder with nothing but another one in it, as
    archives bring it, is passed through.
    """

    set_name = "folder"
    remedy = "it needs train/<class>/ and test/<class>/ or val/<class>/, or <class>/ and dataset.test_fraction"

    @classmethod
    def locate(cls, root: Path) -> Path:
        if not root.is_dir():
            what = "is a file: unpack it, or name a folder" if root.is_file() else "there is no such folder"
            raise MissingFileError(f"dataset.root={root}: {what}; {cls.remedy}")
        inside = class_folders(root)
        while len(inside) == 1 and _named(inside, _TRAIN) is None and not loose_pictures(root / inside[0]):
            root, inside = root / inside[0], class_folders(root / inside[0])
        if not inside:
            _refuse_no_classes(root, root, cls.remedy)
        return root

    @classmethod
    def read(cls, home: Path, test_fraction: float = 0.0, split_seed: int = 0) -> Catalogue:
        inside = class_folders(home)
        train_part, *others = (_named(inside, names) for names in (_TRAIN, _TEST, _VAL))
        if train_part is None:
            for part in filter(None, others):
                _refuse_without_train(home, part, cls.remedy)
        parts = [train_part or ".", *(part for part in others if part and class_folders(home / part))]
        names = tuple(class_folders(home / parts[0]))
        if len(names) < 2 or _named(list(names), _NO_CLASSES):
            _refuse_no_classes(home, home / parts[0], cls.remedy)
        read: list[Listing] = []
        read_from, notes = [home, *(home / part for part in others if part)], list[str]()
        for part in parts:
            refuse_unknown(class_folders(home / part) if part != "." else names, names, part, home)
            pictures, folders, more = list_pictures(home, part, names)
            read.append(pictures)
            read_from, notes = read_from + folders, [*notes, *more]
            if loose := loose_pictures(home / part):
                notes.append(
                    f"{home / part}: {len(loose):,} pictures are in no class and are skipped ({first_few(loose)})"
                )
        unread = [name for name in inside if train_part and name not in parts]
        if unread:
            notes.append(f"{home}: {first_few(unread)} is not read: all of the set is in {' and '.join(parts)}")
        unlabelled = [part for part in others if part and part not in parts]
        if len(parts) == 1 and unlabelled and not test_fraction:
            raise UserError(
                f"{home / unlabelled[0]}: has no class folders, so that its pictures have no labels; make a folder for "
                f"every class, or take a part of the training pictures with dataset.test_fraction=0.2"
            )
        whole, *tests = read
        val = tests.pop() if len(tests) == 2 else None
        train, test = divide(whole, tests[0] if tests else None, test_fraction, split_seed, home, names)
        return Catalogue(train, test, names, tuple(read_from), tuple(notes), val)


def _refuse_without_train(home: Path, part: str, remedy: str) -> None:
    """Raise UserError for a folder named as a split's where no folder is named as train's."""
    if class_folders(home / part):
        raise UserError(f"{home}: has a folder {part}, but none named {' or '.join(_TRAIN)}; {remedy}")
    raise UserError(
        f"{home}: is {part} a class or a split? It has no class folders, and there is no train/; rename it if it is a "
        f"class, for example to {part}_, or move it out if it isn't"
    )


def _refuse_no_classes(home: Path, place: Path, remedy: str) -> None:
    """Raise UserError for `place` in the set's folder `home`, whose folders are no classes, with what it may be."""
    names = class_folders(place)
    tables = [
        file.name
        for folder in dict.fromkeys((place, home, home.parent))
        for file in sorted(folder.iterdir())
        if file.suffix.lower() in _TABLES and file.is_file() and not file.name.startswith(".")
    ]
    what = f"has one class, {names[0]!r}" if names else "has no class folders"
    if len(names) > 1:
        what = f"has a folder {_named(names, _NO_CLASSES)} among its classes ({first_few(names)})"
    if tables:
        raise UserError(f"{place}: {what}, and a table {tables[0]}: use dataset=csv")
    beside = [name for name in class_folders(home) if place != home and name != place.name]
    if beside and loose_pictures(place):
        raise UserError(
            f"{place}: has pictures, but no class folders: if it is a class as {first_few(beside)}, rename it, for "
            f"example to {place.name}_; if it has the training pictures, move each into a folder of its class"
        )
    if names and class_folders(place / names[0]) and not loose_pictures(place / names[0]):
        raise UserError(f"{place / names[0]}: is the only class and has folders only; move them to where it lies")
    if len(names) > 1:
        raise UserError(f"{place}: {what}; rename it if it is one, or make a folder for every class")
    raise MissingFileError(f"{place}: {what}, and training needs at least two; {remedy}")


def _named(folders: list[str], names: tuple[str, ...]) -> str | None:
    by_name = {folder.lower(): folder for folder in folders}
    return next((by_name[name] for name in names if name in by_name), None)


def class_folders(place: Path) -> list[str]:
    """The folders in `place`, sorted, but for those that systems leave there."""
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(_OF_SYSTEMS))


def list_pictures(home: Path, part: str, class_names: Sequence[str]) -> tuple[Listing, list[Path], tuple[str, ...]]:
    """The pictures of `home`/`part`/<class>, at any depth, the label of a class being its place in `class_names`.

    Also the folders that were searched, and notes on the other files, which are skipped; hidden files and folders are
    skipped without a note.
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
    notes = (f"{home}: {len(others):,} files aren't pictures and are skipped ({first_few(others)})",)
    return listing(paths, np.array(labels, np.int64)), folders, notes if others else ()


def loose_pictures(place: Path) -> list[str]:
    """The names of the pictures that lie in `place` itself, sorted; none where it doesn't exist."""
    if not place.is_dir():
        return []
    with os.scandir(place) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(ENDINGS) and not e.name.startswith("."))


def is_picture(path: Path) -> bool:
    """Whether it is named as one, and a file: of a pipe nothing comes."""
    return path.name.lower().endswith(ENDINGS) and path.is_file()


def files_below(place: Path) -> list[Path]:
    """The files that `walk` finds, in the order of their paths."""
    return sorted(Path(folder, name) for folder, names in walk(str(place)) for name in names)


def walk(place: str) -> list[tuple[str, list[str]]]:
    """Every folder at and below `place`, none where it is absent, with the names of its files; both are sorted.

    Raises UserError for a link that leads back to a folder in which it lies, and for a folder that can't be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise UserError(f"{error.filename}: can't be read ({error.strerror}); change its permissions") from None

    found = []
    for folder, inner, names in os.walk(place, onerror=refuse, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(_OF_SYSTEMS)]
        for link in (Path(folder, name) for name in inner):
            if link.is_symlink() and Path(folder).resolve().is_relative_to(link.resolve()):
                raise UserError(f"{link}: a link to a folder in which it lies; remove it")
        found.append((folder, sorted(name for name in names if not name.startswith("."))))
    return sorted(found)
