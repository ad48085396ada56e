"""Finding the folder of a data set: where it was said to be, or under one of the names that it usually has."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from srp_exp.errors import MissingFileError

_DEPTH = 4  # as ILSVRC/Data/CLS-LOC below the folder of the data


def find_home(root: Path, usual_names: Sequence[str], layouts: Sequence[Sequence[str]], remedy: str) -> Path:
    """The folder of a set: `root`, or one of its usual names below it; or beside it, where `root` has a usual name.

    usual_names: in small letters and digits only, as "cub200" for CUB-200. layouts: the files and folders that a folder
    of the set has, all of one of them. Raises MissingFileError with what is missing.
    """
    homes = list(candidates(root, usual_names))
    if not root.exists() and _plain(root.name) in usual_names:
        homes += _usual_children(root.parent, usual_names, _DEPTH)
    lacking = [(home, min((_missing(home, layout) for layout in layouts), key=len)) for home in homes]
    whole = [home for home, missing in lacking if not missing]
    if whole:
        return whole[0]
    marks = {mark for layout in layouts for mark in layout}
    for home, missing in lacking:
        if any((home / mark).exists() for mark in marks):
            raise MissingFileError(f"{home}: {', '.join(missing)} is missing; {remedy}")
    what = f"no {' or '.join(layout[0] for layout in layouts)} is in it" if root.is_dir() else "there is no such folder"
    raise MissingFileError(f"dataset.root={root}: {what}; {remedy}, or set dataset.root or data_root")


def first_there(home: Path, *places: str) -> Path | None:
    """The first of `places` below `home` that exists."""
    return next((home / place for place in places if (home / place).exists()), None)


def candidates(folder: Path, usual_names: Sequence[str], depth: int = _DEPTH) -> Iterator[Path]:
    """`folder`, and what is below it under usual names only."""
    if folder.is_dir():
        yield folder
        yield from _usual_children(folder, usual_names, depth)


def _usual_children(folder: Path, usual_names: Sequence[str], depth: int) -> Iterator[Path]:
    if depth and folder.is_dir():
        for child in sorted(folder.iterdir()):
            if _plain(child.name) in usual_names:
                yield from candidates(child, usual_names, depth - 1)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def _missing(home: Path, layout: Sequence[str]) -> list[str]:
    return [name for name in layout if not (home / name).exists()]


def require(home: Path, names: Sequence[str], remedy: str) -> None:
    """Raise MissingFileError unless all files and folders `names` are in `home`."""
    missing = _missing(home, names)
    if missing:
        raise MissingFileError(f"{home}: {', '.join(missing[:3])} is missing; {remedy}")
