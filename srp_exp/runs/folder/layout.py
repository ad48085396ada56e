"""A run folder: the names of its files, and what can be read from outside."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from yaml import YAMLError

from srp_exp.errors import MissingFileError, UserError
from srp_exp.files import TEMPORARY, remove

RESULTS = "results.json"
"""Written after everything else of the training: if it exists, the run is finished."""

CONFIG = "config.yaml"
PROVENANCE = "provenance.json"
DATA = "data.json"
"""Digests of the data that the run has read."""

CHECKPOINTS = "checkpoints"

EVALUATION = Path("evaluation") / "test"
"""What was found on the test split: metrics, predictions, and a file of each evaluator."""

_FAILURE = "failure"


def failure_file(folder: Path, rank: int = 0) -> Path:
    """Where process `rank` of a training says why the last start of the run failed; the first line is for a table."""
    return folder / (f"{_FAILURE}.txt" if rank == 0 else f"{_FAILURE}-rank{rank}.txt")


def failure_files(folder: Path) -> list[Path]:
    """The failure files of all processes; first that of the process that failed first."""
    return sorted(folder.glob(f"{_FAILURE}*.txt"), key=lambda file: (file.stat().st_mtime_ns, file.name))


def remove_unfinished(folder: Path) -> None:
    """Remove what a process that died has left half-written, and why the last start failed."""
    for parent in (folder, folder / EVALUATION):
        for entry in parent.glob(f"*{TEMPORARY}"):
            remove(entry)
    for entry in failure_files(folder):
        remove(entry)


def clear(folder: Path, keep: str) -> None:
    """Remove what an earlier training left, but for the file `keep`; of links the link alone.

    Killed at any point it leaves a run that isn't finished, and whose checkpoints are all there or all gone.
    """
    remove(folder / RESULTS)
    doomed = folder / f".{CHECKPOINTS}{TEMPORARY}"
    remove(doomed)
    with suppress(FileNotFoundError):
        (folder / CHECKPOINTS).rename(doomed)
    for entry in [*folder.iterdir()]:
        if entry.name != keep:
            remove(entry)


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """Where each start of a run came from, as `provenance` tells it, in their order; none before the first.

    The file holds the last start, and under `earlier_starts` those before.
    """
    file = folder / PROVENANCE
    if not file.exists():
        return []
    with reading(file):
        last = dict(json.loads(file.read_text()))
        return [*last.pop("earlier_starts", []), last]


def differences(starts: Sequence[dict[str, Any]]) -> list[str]:
    """How the starts of one run differ in what may change its numbers: code, packages, device; [] where they don't."""
    found = []
    for name in ("commit", "python", "device", "driver", "processes", "threads"):
        values = list(dict.fromkeys(str(start.get(name)) for start in starts))
        if len(values) > 1:
            found.append(f"{name} {' -> '.join(value[:12] if name == 'commit' else value for value in values)}")
    if len({start.get("diff") for start in starts}) > 1:
        found.append("uncommitted changes")
    for package in sorted({name for start in starts for name in start.get("packages", {})}):
        versions = list(dict.fromkeys(str(start.get("packages", {}).get(package)) for start in starts))
        if len(versions) > 1:
            found.append(f"{package} {' -> '.join(versions)}")
    return found


def refuse_other_run(file: Path, folder: Path, run: str) -> None:
    """Raise UserError where `file`, which lies in the run folder `folder`, says that it is of another `run`.

    The hashes at the end of the names are compared: a folder may have been moved, or renamed.
    """
    of_folder, of_file = (re.search("-([0-9a-f]{10})$", name) for name in (folder.resolve().name, run))
    if of_folder and of_file and of_folder[1] != of_file[1]:
        raise UserError(f"{file} is that of {run}: put it back there, or remove {folder} and give its command again")


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Name `file` where reading it fails: MissingFileError if it doesn't exist, UserError if it is damaged."""
    remedy = "restore it, or remove the run folder and give the command of the run again"
    try:
        yield
    except FileNotFoundError:
        raise MissingFileError(f"{file} is not there: {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError, YAMLError) as error:
        said = next(iter(str(error).splitlines()), "")
        why = {KeyError: f"no {said}", TypeError: "other content", AttributeError: "other content"}.get(
            type(error), said
        )
        raise UserError(f"{file} is damaged ({why}): {remedy}") from error
