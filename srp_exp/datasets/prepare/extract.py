"""Extraction of archives into a folder: whole files only, resumable."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from srp_exp.datasets.prepare.archives import Entry, read_archive
from srp_exp.errors import MissingFileError, UserError

Advance = Callable[[int], object]
"""Called with the bytes or images that were done."""


class FolderWriter:
    """Writes entries of archives below `folder`.

    A file appears under its name when it is whole. One that exists in its size is taken as done, so that an interrupted
    extraction is resumed where it stopped.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def write(self, entry: Entry, path: str) -> None:
        """Write `entry` to the relative `path`. Raises UserError where the content is damaged."""
        target = self.folder / path
        if target.is_file() and not target.is_symlink() and target.stat().st_size == entry.size:
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{entry.place}: refused, since a folder of {path!r} is a file in it, too") from None
        if target.is_dir():
            raise UserError(f"{entry.place}: refused, since {path!r} is a file and a folder in it")
        temporary = target.with_name(f".{target.name}.partial")  # of one name, so that a kill leaves it to be replaced
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:
                file.writelines(entry.blocks())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def read_files(path: Path, folder: Path) -> Iterator[Entry]:
    """The files of an archive, or the file itself where it is annotations (.mat) that aren't in an archive."""
    if path.suffix != ".mat":
        yield from read_archive(path, folder)
        return
    if not path.is_file():
        raise MissingFileError(f"archive={path}: there is no such file; give the path of a downloaded file")
    with path.open("rb") as content:
        yield Entry(str(path), path.name, os.fstat(content.fileno()).st_size, content)


def unpacked_bytes(path: Path, folder: Path) -> int:
    """Read through a whole archive, and return the size of its files. Raises as `read_archive` does."""
    return sum(entry.size for entry in read_files(path, folder))


def extract(archives: Sequence[Path], writer: FolderWriter, advance: Advance) -> None:
    """Extract every archive under the paths it gives its files. advance: is called with the bytes done."""
    for archive in archives:
        for entry in read_files(archive, writer.folder):
            writer.write(entry, entry.name)
            advance(entry.size)
