"""Preparation of a data set: from its archives to a checked folder, and from that to a compact copy.

Each of the two is put into its place whole, by a rename at its end. What an interrupt or a kill left stays in
`<folder>.partial`, and the same command resumes there.
"""

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.on_disk.picture_set import PictureSet
from srp_exp.datasets.on_disk.prepared import copy_facts
from srp_exp.datasets.prepare.archives import Advance, extract, read_archive
from srp_exp.datasets.prepare.copy import CopySettings, write_copy
from srp_exp.datasets.prepare.imagenet_archives import extract_imagenet
from srp_exp.datasets.prepare.official_files import archive_files, checksum_fault
from srp_exp.errors import MissingFileError, UserError, first_few
from srp_exp.files import remove, stamp, write_atomically

_LOG = logging.getLogger("srp_exp")

_EXTRACTORS = {"imagenet": extract_imagenet}
_CHECKED_FILE = ".checked.json"  # in the partial folder: which archives have been checked

MakeSet = Callable[[Path, str | None], FileSet]
"""Opens the set in a folder, and checks its facts; the text is a folder for its index, None: the usual one."""


class Report(Protocol):
    """Tells the user what is done."""

    def say(self, text: str) -> None: ...

    def track(self, title: str, total: int) -> Advance:
        """Begin to show progress towards `total`; what is returned takes the steps."""


def unpack(
    kind: type[PictureSet], root: Path, given: Sequence[Path], strict: bool, make_set: MakeSet, report: Report
) -> None:
    """Verify and extract the archives of a set, check its facts, and put the folder at `root`. A set there stays.

    given: files, or folders that hold the official ones; without them nothing is done. strict: refuse an official file
    of a different checksum. Where the archives themselves lie in `root`, the folder is put beside them, under the name
    of the set. Raises UserError and FileNotFoundError, in one line, where an archive is damaged or refused, or the
    facts are off.
    """
    if not given:
        return
    archives = archive_files(kind.set_name, given)
    home = root
    if home.is_dir() and any(home.iterdir()):
        try:
            kind.locate(home)
        except MissingFileError as error:
            if home not in [archive.resolve().parent for archive in archives]:
                what = str(error).partition(";")[0]
                raise UserError(f"{home}: holds something else ({what}); choose another dataset.root") from None
            home /= kind.set_name
        else:
            report.say(f"{home}: exists, nothing is extracted")
            return
    with _put_whole(home) as partial:
        advance = report.track(f"extracting to {partial}", _checked(kind.set_name, archives, strict, partial, report))
        _EXTRACTORS.get(kind.set_name, extract)(archives, partial, advance)
        with TemporaryDirectory() as cache:
            make_set(partial, cache)
        (partial / _CHECKED_FILE).unlink()


def make_copy(dataset: FileSet, folder: Path, settings: CopySettings, report: Report) -> None:
    """Write the compact copy of a set to `folder`, or leave a finished one as it is.

    Raises UserError where something else is at `folder`, and as `write_copy` does.
    """
    parts = {"train": dataset.train, "test": dataset.test, "val": dataset.val}
    splits = {name: split for name, split in parts.items() if isinstance(split, FileSplit)}
    facts = copy_facts(folder)
    if facts is not None:
        other = [name for name, value in settings.facts.items() if facts.get(name) != value]
        if other:
            raise UserError(
                f"output={folder}: holds a copy of {facts['name']} with resize={facts['resize']} "
                f"quality={facts['quality']}, of which {first_few(other)} differ now; choose another folder, or delete "
                f"that one"
            )
        report.say(f"{folder}: is finished already")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"output={folder}: exists and is no prepared copy; choose another folder")
    with _put_whole(folder) as partial:
        for left in partial.iterdir():
            left.unlink()
        write_copy(splits, partial, settings, report.track(f"writing {folder}", sum(map(len, splits.values()))))


def _checked(set_name: str, archives: Sequence[Path], strict: bool, partial: Path, report: Report) -> int:
    """How many bytes the archives unpack to, once their checksums and every entry are known to be right.

    Nothing is written before, and what `partial` holds of other archives, or of earlier states of these, is removed.
    """
    record, stamps = partial / _CHECKED_FILE, [stamp(archive) for archive in archives]
    known = json.loads(record.read_text()) if record.exists() else {}
    if known.get("stamps") == stamps:
        return int(known["bytes"])
    for left in partial.iterdir():
        remove(left)
    needed = 0
    for archive in archives:
        fault = checksum_fault(set_name, archive, report.track)
        if fault is not None and strict:
            raise UserError(f"{fault}; fetch it again, or accept it with dataset.verify=warn")
        if fault is not None:
            report.say(f"{fault}; taken as it is, as dataset.verify=warn")
        needed += sum(entry.size for entry in read_archive(archive, partial))
        if needed > (free := shutil.disk_usage(partial).free):
            raise UserError(f"{partial}: the archives need {needed:,} bytes, and {free:,} are free; make room")
    write_atomically(record, json.dumps({"stamps": stamps, "bytes": needed}).encode())
    return needed


@contextmanager
def _put_whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to prepare it in, for no other process meanwhile, which then takes its place.

    After an error it stays, unless it is empty.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{partial}: another process is preparing it; wait for it, or end it") from None
        except OSError:
            _LOG.warning("%s: its file system has no locks; see that no other process prepares it", partial)
        yield partial
        os.sync()  # a crash after the rename must not leave a folder that only looks whole
        partial.rename(folder)
    finally:
        os.close(descriptor)
        if partial.is_dir() and not any(partial.iterdir()):
            partial.rmdir()
