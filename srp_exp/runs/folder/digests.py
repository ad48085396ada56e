"""What a run has read: digests of its data, so that none is skipped, resumed or evaluated over other data.

Imports no torch: to skip a finished run, what was found out at the last start is enough, as long as no file changed.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from srp_exp.errors import UserError
from srp_exp.files import cache_folder, write_atomically
from srp_exp.remembered import keep, known
from srp_exp.runs.folder.layout import DATA, reading

if TYPE_CHECKING:
    from srp_exp.datasets import DataSet

_UNREAD = "unread"

Digests = Mapping[str, str]
"""A digest of each part of the data, by its name for messages, such as "training labels"."""


def digests_of(dataset: "DataSet", without: str | None = None) -> Digests:
    """A digest of each part of the data, by a name for messages, such as "training labels"; none of an empty part.

    without: the path of a file in the set's folder that may change.
    """
    found = {"class names": hashlib.sha256("\0".join(dataset.class_names).encode(errors="surrogateescape")).hexdigest()}
    for name, split in (("training", dataset.train), ("validation", dataset.val), ("test", dataset.test)):
        if split is not None and len(split):
            found |= {f"{name} {part}": value for part, value in split.digests(without).items()}
    return found


def digests_of_data(config: DictConfig, dataset: "DataSet") -> Digests:
    """The digests of what the set of `config` has read, kept until one of its files changes: `known_digests`."""
    digests = digests_of(dataset)
    if len(dataset.train) and dataset.read_from is not None:  # else it is known by its test part alone, or may change
        with suppress(OSError):  # the next start takes them again
            keep(_file(config.dataset), "", list(dataset.read_from), {"digests": dict(digests)})
    return digests


def record_data(folder: Path, digests: Digests) -> None:
    """Note in a run folder what the run reads."""
    write_atomically(folder / DATA, json.dumps(digests, indent=1).encode())


def record_unread(folder: Path, file: str, digests: Digests) -> None:
    """Note that `file` couldn't be read, so that another in its place is no other data; digests: of all but it."""
    known = json.loads((folder / DATA).read_text())
    write_atomically(
        folder / DATA, json.dumps({**known, _UNREAD: {"file": file, "digests": digests}}, indent=1).encode()
    )


def refuse_other_data(
    folder: Path, digests: Digests, digests_without: Callable[[str], Digests] = lambda file: {}
) -> None:
    """Raise UserError if the run in `folder` has read data with different digests.

    Parts missing from `digests` aren't checked. digests_without: of all but a file, which the run couldn't read. A
    folder without a record has read nothing yet.
    """
    if not (folder / DATA).exists():
        return
    with reading(folder / DATA):
        before = dict(json.loads((folder / DATA).read_text()))
    unread = before.pop(_UNREAD, None)
    changed = [part for part, digest in digests.items() if before.get(part) != digest]
    if changed and not (unread and digests_without(unread["file"]) == unread["digests"]):
        raise UserError(
            f"{folder}: was trained on other data ({', '.join(changed)} differ); "
            f"dataset.name=... makes these another run, rerun=true replaces that one"
        )


def known_digests(dataset: DictConfig) -> Digests | None:
    """What was remembered, if no file has changed since; None where the set has to be opened."""
    found = known(_file(dataset), "")
    return None if found is None else dict(found["digests"])


def _file(dataset: DictConfig) -> Path:
    plain: Any = OmegaConf.to_container(dataset, resolve=True, enum_to_str=True)
    reads_files = plain.keys() & {"root", "own"}  # whose places may be relative
    key = json.dumps([os.getcwd() if reads_files else "", plain], sort_keys=True)  # noqa: PTH109
    name = hashlib.sha256(key.encode()).hexdigest()[:20]
    return cache_folder(plain.get("cache_dir")) / "digests" / f"{name}.zip"
