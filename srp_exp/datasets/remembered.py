"""What was found out about a data set, kept in a small file so that the next start takes under a second.

An index file is an .npz of arrays in `cache_folder()`. It may be deleted at any time.
"""

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp_exp.files import cache_folder, stamp, write_atomically

Arrays = Mapping[str, NDArray[Any]]

LOG = logging.getLogger("srp_exp")
_FORMAT = 2  # of the index files: a file of another format is made afresh


def index_file(home: Path, name: str, cache_dir: str | None = None) -> Path:
    """Where the index `name` of the data in `home` is kept."""
    place = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return cache_folder(cache_dir) / f"{name}-{place}.npz"


def remembered(file: Path, settings: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays that `file` holds, or those that `make` returns, which are then kept in `file`.

    They count as long as they were made with the same `settings`, and nothing has changed at the places, modification
    times and sizes of the files and folders that their array `read_from` names. Otherwise, and where the file is
    missing or damaged, they are made again. Where it can't be written, that is logged and changes nothing else.
    """
    known = _load(file, settings)
    if known is not None:
        return known
    arrays = make()
    kept = {**arrays, "_key": np.array(_key(settings, arrays["read_from"]))}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda opened: np.savez(opened, allow_pickle=False, **kept))
    except OSError as error:
        LOG.warning(
            "%s: the index can't be kept (%s), so the next start checks again; set dataset.cache_dir", file, error
        )
    return arrays


def _key(settings: str, read_from: NDArray[np.str_]) -> str:
    return json.dumps([_FORMAT, settings, *(stamp(Path(path)) for path in read_from.tolist())])


def _load(file: Path, settings: str) -> Arrays | None:
    try:
        # Opened here, as numpy leaves a damaged file open.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as content:
            if str(content["_key"]) != _key(settings, content["read_from"]):
                return None
            return {name: content[name] for name in content.files if name != "_key"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
