"""What may come out of an archive: which paths, which kinds of entries, and how much.

Links are refused altogether: no official archive of our data sets holds one.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NoReturn

from srp_exp.errors import UserError


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to.

    files: how many files and folders. bytes: of all files together; ImageNet has 1.5e11. ratio: times the size of
    the archive itself, unless it all fits in `free_bytes`; photographs hardly compress. header_bytes: of one header,
    which is held in memory.
    """

    files: int = 5_000_000
    bytes: int = 1 << 40
    ratio: float = 50.0
    free_bytes: int = 64 << 20
    header_bytes: int = 1 << 20


LIMITS = Limits()


def safe_path(name: str, place: str) -> str:
    """`name` as a plain relative path, "" for the folder itself. Raises UserError where it leads out of the folder."""
    parts = PurePosixPath(name).parts
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise UserError(f"{place}: refused, since {name!r} is an absolute path")
    if ".." in parts:
        raise UserError(f"{place}: refused, since {name!r} leads out of the folder")
    if re.search(r"[\\\x00-\x1f]", name):
        raise UserError(f"{place}: refused, since {name!r} has a backslash or a control character in its name")
    return "/".join(parts)


class Gate:
    """Admits the entries of one archive one by one, and raises ValueError at the first that is refused."""

    def __init__(self, place: str, archive_bytes: int, limits: Limits):
        self.place, self.limits = place, limits
        self._max_bytes = min(limits.bytes, max(limits.free_bytes, int(limits.ratio * archive_bytes)))
        self._bytes = 0
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def admit_folder(self, name: str) -> None:
        path = safe_path(name, self.place)
        self._admit_parents([path, *_parents(path)])

    def admit_file(self, name: str, size: int) -> str:
        """The safe path of a file of `size` bytes."""
        path = safe_path(name, self.place)
        if not path or name.endswith("/"):
            raise UserError(f"{self.place}: refused, since it has a file of the name {name!r}")
        if path in self._files or path in self._folders:
            raise UserError(f"{self.place}: refused, since {name!r} is in it twice")
        self._bytes += size
        if size < 0 or self._bytes > self._max_bytes:
            raise UserError(
                f"{self.place}: refused, since {name!r} of {size:,} bytes brings it to {self._bytes:,}; taken are "
                f"{self._max_bytes:,}, {self.limits.ratio:g} times its own size"
            )
        self._admit_parents(_parents(path))
        self._files.add(path)
        if len(self._files) + len(self._folders) > self.limits.files:
            raise UserError(f"{self.place}: refused, since it holds more than {self.limits.files:,} files")
        return path

    def refuse(self, name: str, what: str) -> NoReturn:
        raise UserError(f"{self.place}: refused, since {name!r} is {what}; only files and folders are taken")

    def _admit_parents(self, folders: list[str]) -> None:
        if not self._files.isdisjoint(folders):
            raise UserError(f"{self.place}: refused, since {folders[0]!r} is both a file and a folder")
        self._folders.update(folders)


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePosixPath(path).parents][:-1]
