"""Which files are the tables of a set, and of which of its splits."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from srp_exp.datasets.on_disk.search import candidates
from srp_exp.errors import MissingFileError, UserError, first_few

SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("validation", "valid", "val", "dev"),
}
"""What the names of a split's files or their folder begin with, and what a split column holds; in any letters."""

_NO_TABLES = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""What `datasets` puts beside the tables that it saves."""

_COUNTED = re.compile(r"-(\d+)-of-(\d+)")


def split_of(name: str) -> str | None:
    """The split that a word stands for: of any letters, as "Validation"."""
    return next((split for split, words in SPLITS.items() if name.lower() in words), None)


def locate_tables(root: Path, endings: Sequence[str], usual_names: Sequence[str], remedy: str) -> Path:
    """The table `root`, or the folder of tables: `root`, its folder data or its only other one with tables.

    Raises MissingFileError where there is none, or more than one.
    """
    if root.is_file():
        if not root.name.lower().endswith(tuple(endings)):
            raise UserError(f"dataset.root={root}: not a table by its name; give one that ends in {_either(endings)}")
        return root
    found: list[Path] = []
    for home in candidates(root, usual_names):
        deeper = sorted(path for path in home.glob("*/") if path.name != "data" and not path.name.startswith("."))
        for only_named in (True, False):
            for places in ([home], [home / "data"], deeper):
                found = found or [place for place in places if "train" in _splits(place, endings, only_named)]
    if len(found) == 1:
        return found[0]
    what = (
        "there is no such file or folder" if not root.is_dir() else f"no {_either(endings)} is in it or in its folders"
    )
    if found:
        what = f"has several data sets ({first_few([place.name for place in found])}); set dataset.root to one"
    raise MissingFileError(f"dataset.root={root}: {what}; {remedy}")


def find_tables(home: Path, endings: Sequence[str]) -> Mapping[str, list[Path]]:
    """The tables of each split, sorted: all there are as those of "train", where no name tells.

    Raises UserError where their names count them, as -00000-of-00002, and some are absent or double, where a split has
    tables of two kinds, and where only train has none.
    """
    found = {"train": [home]} if home.is_file() else _splits(home, endings, True) or _splits(home, endings, False)
    if "train" not in found:
        raise UserError(
            f"{home}: has tables of {' and '.join(found)}, and none of train; add it, or set dataset.root to one file"
        )
    for split, files in found.items():
        if kinds := {path.suffix.lower() for path in files} - {files[0].suffix.lower()}:
            raise UserError(
                f"{home}: has tables of {split} as {files[0].suffix} and as {first_few(sorted(kinds))}; remove those "
                f"that aren't meant, or set dataset.root to one file"
            )
        counts = [[int(number) for number in told[-1]] for path in files if (told := _COUNTED.findall(path.name))]
        if counts and sorted(counts) != [[number, len(files)] for number in range(len(files))]:
            names = first_few([path.name for path in files])
            raise UserError(f"{home}: {names} aren't all the files of one split, each once; fetch or remove some")
    return found


def _splits(home: Path, endings: Sequence[str], by_name: bool) -> dict[str, list[Path]]:
    """<split>-*, <split>.* or those in the folder <split>; for each split the first of these that exists."""
    if not by_name:
        files = _tables(home, endings)
        return {"train": files} if files else {}
    found: dict[str, list[Path]] = {}
    for split, words in SPLITS.items():
        for word in words:
            files = [path for path in _tables(home, endings) if path.name.lower().startswith(f"{word}-")]
            files = files or [path for path in _tables(home, endings) if path.name.lower().split(".")[0] == word]
            folders = [path for path in home.iterdir() if path.name.lower() == word] if home.is_dir() else []
            for folder in folders:
                files = files or _tables(folder, endings)
            if files:
                found.setdefault(split, files)
    return found


def _tables(folder: Path, endings: Sequence[str]) -> list[Path]:
    files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    named = [path for path in files if path.name.lower().endswith(tuple(endings)) and path.name not in _NO_TABLES]
    return sorted(path for path in named if not path.name.startswith("."))


def _either(endings: Sequence[str]) -> str:
    return " or ".join(f"*{ending}" for ending in endings)
