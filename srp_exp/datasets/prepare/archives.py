"""Archives (tar, tar.gz, tar.bz2, tar.xz, zip), read file by file and extracted, with a limit to what they unpack to.

Which names may come out is for tarfile's data filter to say; links, which no official archive of our data sets holds,
and devices are refused altogether.
"""

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from srp_exp.errors import MissingFileError, UserError

MOST_FILES = 5_000_000
MOST_BYTES = 1 << 40  # of all files together; ImageNet has 1.5e11
MOST_EXPANSION = 50  # times the size of the archive itself, unless all fits in SMALL; photographs hardly compress
SMALL = 64 << 20
_HEADER_BYTES = 1 << 20  # of one header, which tarfile holds in memory however long it says it is
_READ_BYTES = 1 << 18  # at a time
_TAR_END = bytes(512)


Advance = Callable[[int], object]
"""Called with the bytes or images that were done."""


class ArchivedFile(NamedTuple):
    """A file of an archive. name: relative, inside of its folder. content: open until the next entry is asked for."""

    place: str
    name: str
    size: int
    content: IO[bytes]

    def write(self, path: Path) -> None:
        """Write the content to `path`. A file of the same size is kept, so that extraction resumes where it stopped.

        Raises UserError where the content is damaged, and where the archive has a file and a folder of one name.
        """
        if path.is_file() and path.stat().st_size == self.size:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file, _damage_named(f"{self.place}: {self.name}"):
                shutil.copyfileobj(self.content, file)
                if file.tell() != self.size:
                    raise EOFError(f"it has {file.tell():,} of {self.size:,} bytes")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise UserError(
                f"{self.place}: refused, since {self.name!r} or a folder of it is a file and a folder in it"
            ) from None


def extract(archives: Sequence[Path], folder: Path, advance: Advance) -> None:
    """Extract every archive under the paths that it gives its files. advance: is called with the bytes done."""
    for archive in archives:
        for entry in read_archive(archive, folder):
            entry.write(folder / entry.name)
            advance(entry.size)


def read_archive(path: Path, folder: Path) -> Iterator[ArchivedFile]:
    """The files of an archive that is unpacked into `folder`, in its order; annotations (.mat) are a file themselves.

    Raises UserError, in one line, at a file that would lie outside of `folder` and at all else that isn't taken, and
    where the archive is damaged, cut off or of another kind; MissingFileError where it is missing.
    """
    if not path.is_file():
        raise MissingFileError(f"archive={path}: there is no such file; give the path of a downloaded archive")
    with _damage_named(str(path)):
        yield from _within_limits(_entries(path, folder), str(path), path.stat().st_size)


def read_nested_tar(entry: ArchivedFile, folder: Path) -> Iterator[ArchivedFile]:
    """The files of a tar that is itself a file of an archive, as `read_archive` gives them."""
    place = f"{entry.place}: {entry.name}"
    with _damage_named(place):
        yield from _within_limits(_tar_entries(entry.content, place, folder), place, entry.size)


def _within_limits(entries: Iterator[ArchivedFile], place: str, archive_bytes: int) -> Iterator[ArchivedFile]:
    """Raises UserError where there are too many entries, or bytes of them, or two of one name."""
    most = min(MOST_BYTES, max(SMALL, MOST_EXPANSION * archive_bytes))
    names: set[str] = set()
    total = 0
    for entry in entries:
        total += entry.size
        if entry.size < 0 or total > most:
            raise UserError(
                f"{place}: refused, since {entry.name!r} of {entry.size:,} bytes brings it to {total:,}; taken are "
                f"{most:,}, {MOST_EXPANSION} times its own size"
            )
        if entry.name in names:
            raise UserError(f"{place}: refused, since {entry.name!r} is in it twice")
        names.add(entry.name)
        if len(names) > MOST_FILES:
            raise UserError(f"{place}: refused, since it holds more than {MOST_FILES:,} files")
        yield entry


def _entries(path: Path, folder: Path) -> Iterator[ArchivedFile]:
    with path.open("rb") as file:
        magic = file.read(6)
        if path.suffix == ".mat":
            file.seek(0)
            yield ArchivedFile(str(path), path.name, path.stat().st_size, file)
            return
    if magic.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        yield from _zip_entries(path, folder)
        return
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((opener for start, opener in openers.items() if magic.startswith(start)), open)
    with closing(opener(path, "rb")) as stream:
        yield from _tar_entries(stream, str(path), folder)
        rest = 0
        while block := stream.read(_READ_BYTES):  # so that a compressed file's checksum is compared
            rest += len(block)
            if rest > SMALL:
                raise UserError(f"{path}: refused, since more than {rest:,} bytes follow the end of the tar")


def _zip_entries(path: Path, folder: Path) -> Iterator[ArchivedFile]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            named = tarfile.TarInfo(member.filename)
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                named.type = tarfile.SYMTYPE
            name = _filtered(named, str(path), folder)
            with archive.open(member) as content:
                yield ArchivedFile(str(path), name, member.file_size, content)


def _tar_entries(stream: IO[bytes], place: str, folder: Path) -> Iterator[ArchivedFile]:
    bounded = _BoundedReads(stream, place)
    with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            if member.isdir():
                continue
            name = _filtered(member, place, folder)
            with archive.extractfile(member) or closing(stream) as content:
                yield ArchivedFile(place, name, member.size, content)
        if bounded.last_read != _TAR_END:  # tarfile takes a broken header for the end as well
            raise tarfile.ReadError(f"no proper header at byte {archive.offset:,}")


def _filtered(member: tarfile.TarInfo, place: str, folder: Path) -> str:
    """The name under which a file is taken."""
    if not member.isreg():
        raise UserError(
            f"{place}: refused, since {member.name!r} is a link or a device; only files and folders are taken"
        )
    try:
        return os.path.normpath(tarfile.data_filter(member, str(folder)).name)
    except tarfile.FilterError as error:
        raise UserError(f"{place}: refused ({error}); unpack it yourself if you trust it") from None


class _BoundedReads:
    """A stream of which little is read at once, and the last of it is known."""

    last_read = b""

    def __init__(self, stream: IO[bytes], place: str):
        self._stream, self._place = stream, place
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int) -> bytes:
        if size > _HEADER_BYTES:
            raise UserError(
                f"{self._place}: refused, since a header of it has {size:,} bytes; taken are {_HEADER_BYTES:,}"
            )
        self.last_read = self._stream.read(size)
        return self.last_read


@contextmanager
def _damage_named(place: str) -> Iterator[None]:
    """Turn whatever the readers of archives raise into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) is not None:  # the system's, as of a full disk
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{place}: damaged, or no archive ({reason}); fetch it again") from error
