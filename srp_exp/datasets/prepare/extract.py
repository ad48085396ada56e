"""Extraction of archives into a folder: whole files only, resumable, and nothing outside of the folder."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from srp_exp.datasets.prepare.archives import Entry, read_archive
from srp_exp.errors import MissingFileError, UserError

Advance = Callable[[int], object]
"""Called with the bytes or images that were done."""


class FolderWriter:
    """Writes entries of archives below `folder`.

    A file appears under its name when it is whole. One that is there already in its size is taken as done, so that an
    interrupted extraction goes on where it stopped.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._inside: set[Path] = set()

    def write(self, entry: Entry, path: str) -> None:
        """Write `entry` to the relative `path`, checked by `safe_path`.

        Raises UserError where the path leads through a link out of the folder, or the content is damaged, and OSError
        where it can't be written.
        """
        target = self.folder / path
        self._make_folder(target.parent)
        if target.is_file() and not target.is_symlink() and target.stat().st_size == entry.size:
            return
        temporary = target.with_name(f".{target.name}.partial")
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:
                file.writelines(entry.blocks())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        if folder in self._inside:
            return
        if not folder.resolve().is_relative_to(self.folder.resolve()):
            raise UserError(f"{folder}: leads out of {self.folder} through a link; remove the link")
        folder.mkdir(parents=True, exist_ok=True)
        self._inside.add(folder)


def read_files(path: Path) -> Iterator[Entry]:
    """The files of an archive, or the file itself where it is annotations (.mat) that aren't in an archive."""
    if path.suffix != ".mat":
        yield from read_archive(path)
        return
    if not path.is_file():
        raise MissingFileError(f"archive={path}: there is no such file; give the path of a downloaded file")
    with path.open("rb") as content:
        yield Entry(str(path), path.name, os.fstat(content.fileno()).st_size, content)


def unpacked_bytes(path: Path) -> int:
    """Pass over a whole archive, and return the size of its files. Raises as `read_archive` does."""
    return sum(entry.size for entry in read_files(path))


def extract(archives: Sequence[Path], writer: FolderWriter, advance: Advance) -> None:
    """Extract every archive under the paths it gives its files. advance: is called with the bytes done."""
    for archive in archives:
        for entry in read_files(archive):
            writer.write(entry, entry.name)
            advance(entry.size)
