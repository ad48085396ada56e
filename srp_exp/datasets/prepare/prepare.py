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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from srp_exp.datasets.files.file_set import FileSet
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.prepare.copy import CopySettings, write_copy
from srp_exp.datasets.prepare.extract import Advance, FolderWriter, extract, unpacked_bytes
from srp_exp.datasets.prepare.imagenet_archives import extract_imagenet
from srp_exp.datasets.prepare.official_files import archive_files, checksum_fault
from srp_exp.datasets.sets.prepared import copy_facts
from srp_exp.errors import MissingFileError, UserError, first_few
from srp_exp.files import write_atomically

LOG = logging.getLogger("srp_exp")

_EXTRACTORS: dict[str, Callable[[Sequence[Path], FolderWriter, Advance], None]] = {"imagenet": extract_imagenet}
_CHECKED_FILE = ".checked.json"  # in the partial folder: which archives have been checked

MakeSet = Callable[[Path, str | None], FileSet]
"""Opens the set in a folder, and checks its facts; the text is a folder for its index, None: the usual one."""


class Report(Protocol):
    """Tells the user what goes on."""

    def say(self, text: str) -> None: ...

    def track(self, title: str, total: int) -> Advance:
        """Begin to show progress towards `total`; what is returned takes the steps."""


@dataclass(frozen=True)
class Preparation:
    """What is to be prepared. name: of the set, as "cub200". root: the folder of the set, existing or to be.

    archives: files, or folders that hold the official ones; empty: root is there already. strict: whether an official
    file with another checksum is refused. locate: finds the set at or below a folder, or raises MissingFileError.
    """

    name: str
    root: Path
    archives: tuple[Path, ...]
    strict: bool
    locate: Callable[[Path], Path]


def unpack(job: Preparation, make_set: MakeSet, report: Report) -> None:
    """Verify and extract the archives, check the facts, and put the folder at `root`. A set that is there stays.

    Where the archives themselves lie in `root`, the folder is put beside them, under the name of the set. Raises
    UserError and FileNotFoundError, in one line, where an archive is damaged or refused, or the facts are off.
    """
    if not job.archives:
        return
    archives = archive_files(job.name, job.archives)
    home = job.root
    if home.is_dir() and any(home.iterdir()):
        try:
            job.locate(home)
        except MissingFileError as error:
            if home not in [archive.resolve().parent for archive in archives]:
                what = str(error).partition(";")[0]
                raise UserError(f"{home}: holds something else ({what}); choose another dataset.root") from None
            home /= job.name
        else:
            report.say(f"{home}: exists, nothing is extracted")
            return
    partial = home.with_name(f"{home.name}.partial")
    with _exclusive(partial):
        _check_archives(job, archives, partial, report)
        sizes = json.loads((partial / _CHECKED_FILE).read_text())
        advance = report.track(f"extracting to {partial}", sum(size for *_, size in sizes.values()))
        _EXTRACTORS.get(job.name, extract)(archives, FolderWriter(partial), advance)
        with TemporaryDirectory() as cache:
            make_set(partial, cache)
        (partial / _CHECKED_FILE).unlink()
        os.sync()  # a crash after the rename must not leave a folder that only looks whole
        partial.rename(home)


def make_copy(dataset: FileSet, folder: Path, settings: CopySettings, report: Report) -> None:
    """Write the compact copy of a set to `folder`, or leave a finished one as it is.

    Raises UserError where something else is at `folder`, and as `write_copy` does.
    """
    assert isinstance(dataset.train, FileSplit) and isinstance(dataset.test, FileSplit)
    splits: dict[str, FileSplit] = {"train": dataset.train, "test": dataset.test}
    if dataset.val is not None:
        splits["val"] = dataset.val
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
    partial = folder.with_name(f"{folder.name}.partial")
    with _exclusive(partial):
        for left in partial.iterdir():
            left.unlink()
        write_copy(splits, partial, settings, report.track(f"writing {folder}", sum(map(len, splits.values()))))
        os.sync()  # a crash after the rename must not leave a copy that only looks whole
        partial.rename(folder)


def _check_archives(job: Preparation, archives: Sequence[Path], partial: Path, report: Report) -> None:
    """Compare checksums and pass over every entry, before anything is written; once for every archive.

    What was extracted from other archives, or from earlier states of these, is removed.
    """
    record = partial / _CHECKED_FILE
    checked = json.loads(record.read_text()) if record.exists() else {}
    stamps = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in archives}
    if not checked or any(stamps.get(path) != found[:2] for path, found in checked.items()):
        checked = {}
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    for archive in archives:
        stamp = stamps[str(archive)]
        if str(archive) in checked:
            continue
        fault = checksum_fault(job.name, archive, report.track)
        if fault is not None and job.strict:
            raise UserError(f"{fault}; fetch it again, or accept it with dataset.verify=warn")
        if fault is not None:
            report.say(f"{fault}; taken as it is, as dataset.verify=warn")
        checked[str(archive)] = [*stamp, unpacked_bytes(archive, partial)]
        write_atomically(record, json.dumps(checked).encode())
        needed, free = sum(size for *_, size in checked.values()), shutil.disk_usage(partial).free
        if needed > free:
            raise UserError(f"{partial}: the archives need {needed:,} bytes, and {free:,} are free; make room")


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Make `folder`, and keep other processes from preparing into it. Where nothing came of it, it is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is preparing it; wait for it, or end it") from None
        except OSError:
            LOG.warning("%s: its file system has no locks; see that no other process prepares it", folder)
        yield
    finally:
        os.close(descriptor)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
