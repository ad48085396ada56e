"""Archives (tar, tar.gz, tar.bz2, tar.xz, zip) read so that no entry can do harm.

Every entry passes the gate of archive_gate.py before it is given out. Owners, modes and times are ignored.
"""

import bz2
import gzip
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from srp_exp.datasets.prepare.archive_gate import LIMITS, Gate, Limits
from srp_exp.errors import MissingFileError, UserError

# What the readers raise at a damaged archive.
_DAMAGED: tuple[type[Exception], ...] = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_DAMAGED += (OSError, EOFError, UnicodeError, OverflowError, NotImplementedError, RecursionError)
_READ_BYTES = 1 << 18  # at a time
_TAR_END = bytes(512)


class Entry(NamedTuple):
    """A file of an archive. name: a checked relative path. content: open until the next entry is asked for."""

    place: str
    name: str
    size: int
    content: IO[bytes]

    def blocks(self) -> Iterator[bytes]:
        """The content, piece by piece. Raises UserError where it is damaged or doesn't have its size."""
        read = 0
        with _damage_named(f"{self.place}: {self.name}"):
            while block := self.content.read(_READ_BYTES):
                read += len(block)
                yield block
            if read != self.size:
                raise EOFError(f"{read:,} of {self.size:,} bytes are there")


def read_archive(path: Path, limits: Limits = LIMITS) -> Iterator[Entry]:
    """The files of an archive in its order, checked one by one.

    Raises UserError, in one line, at an entry that is refused, and where the archive is damaged, cut off or of another
    kind. FileNotFoundError where it is missing.
    """
    if not path.is_file():
        raise MissingFileError(f"archive={path}: there is no such file; give the path of a downloaded archive")
    gate = Gate(str(path), path.stat().st_size, limits)
    with path.open("rb") as file:
        magic = file.read(6)
    with _damage_named(str(path)):
        if magic.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            yield from _zip_entries(path, gate)
        else:
            with closing(_decompressed(path, magic)) as stream:
                yield from _tar_entries(stream, gate)
                _drain(stream, gate)


def read_nested_tar(entry: Entry, limits: Limits = LIMITS) -> Iterator[Entry]:
    """The files of a tar that is itself a file of an archive, as `read_archive` gives them."""
    place = f"{entry.place}: {entry.name}"
    with _damage_named(place):
        yield from _tar_entries(entry.content, Gate(place, entry.size, limits))


@contextmanager
def _damage_named(place: str) -> Iterator[None]:
    """Turn what the readers of archives raise into a ValueError of one line."""
    try:
        yield
    except _DAMAGED as error:
        raise UserError(f"{place}: damaged, or no archive ({error}); fetch it again") from error


def _zip_entries(path: Path, gate: Gate) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name, mode = member.orig_filename, member.external_attr >> 16
            if stat.S_ISLNK(mode):
                gate.refuse(name, "a link")
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                gate.refuse(name, "a device or a pipe")
            if member.flag_bits & 1:
                gate.refuse(name, "encrypted")
            if member.is_dir():
                gate.admit_folder(name)
                continue
            safe = gate.admit_file(name, member.file_size)
            with archive.open(member) as content:
                yield Entry(gate.place, safe, member.file_size, content)


def _tar_entries(stream: IO[bytes], gate: Gate) -> Iterator[Entry]:
    bounded = _BoundedReads(stream, gate)
    with tarfile.open(fileobj=bounded, mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            if member.issym() or member.islnk():
                gate.refuse(member.name, f"a link to {member.linkname!r}")
            elif member.isdir():
                gate.admit_folder(member.name)
            elif member.isreg() and not member.issparse():
                safe = gate.admit_file(member.name, member.size)
                content = archive.extractfile(member)
                assert content is not None
                with content:
                    yield Entry(gate.place, safe, member.size, content)
            else:
                gate.refuse(member.name, "a device, a pipe or a sparse file")
        if bounded.last_read != _TAR_END:  # tarfile takes a broken header for the end as well
            raise tarfile.ReadError(f"no proper header at byte {archive.offset:,}")


class _BoundedReads:
    """A stream that refuses to read much at once: tarfile reads a header whole, however long it says it is."""

    last_read = b""

    def __init__(self, stream: IO[bytes], gate: Gate):
        self._stream, self._gate = stream, gate
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int) -> bytes:
        limit = self._gate.limits.header_bytes
        if size > limit:
            raise UserError(
                f"{self._gate.place}: refused, since a header of it has {size:,} bytes, more than {limit:,}"
            )
        self.last_read = self._stream.read(size)
        return self.last_read


def _decompressed(path: Path, magic: bytes) -> IO[bytes]:
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((opener for start, opener in openers.items() if magic.startswith(start)), open)
    stream: IO[bytes] = opener(path, "rb")
    return stream


def _drain(stream: IO[bytes], gate: Gate) -> None:
    """Read what is after the end of the tar, so that a compressed file's checksum is compared."""
    rest = 0
    while chunk := stream.read(_READ_BYTES):
        rest += len(chunk)
        if rest > gate.limits.free_bytes:
            raise UserError(f"{gate.place}: refused, since more than {rest:,} bytes follow the end of the tar")
