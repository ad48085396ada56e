"""What was found out about a data set, remembered in a small file so that the next start takes under a second.

An index file is an .npz of arrays next to the data (`<folder>/.srp_exp`), or in the user's cache folder where the
data can't be written to. It holds a key made of the modification times of the lists and folders it was read from: it
counts only as long as they are unchanged. It may be deleted at any time.
"""

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srp_exp.files import write_atomically

Arrays = Mapping[str, NDArray[Any]]

LOG = logging.getLogger("srp_exp")
_FORMAT = 1  # of the index files: a file of another format is made afresh


def index_file(home: Path, name: str, cache_dir: str | None = None) -> Path:
    """Where the index `name` of the data in `home` is kept: in `cache_dir`, beside the data, or in the user's cache."""
    if cache_dir is not None:
        folder = Path(cache_dir).expanduser()
    elif os.access(home, os.W_OK):
        return home / ".srp_exp" / f"{name}.npz"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srp_exp"
    place = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:12]
    return folder / f"{name}-{place}.npz"


def stamps(paths: Iterable[Path]) -> str:
    """A key that changes with the place, the modification time or the size of any of `paths`, which may be absent."""
    return json.dumps([_FORMAT, *(_stamp(path) for path in paths)])


def remembered(file: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays that `file` holds under `key`, or those that `make` returns, which are then kept in `file`.

    A missing, damaged or outdated file is replaced. Where it can't be written, that is logged and changes nothing else.
    """
    known = _load(file, key)
    if known is not None:
        return known
    arrays = make()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda opened: np.savez(opened, allow_pickle=False, **{**arrays, "_key": np.array(key)}))
    except OSError as error:
        LOG.warning(
            "%s: the index can't be kept (%s), so the next start checks again; set dataset.cache_dir", file, error
        )
    return arrays


def _stamp(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return [str(path.absolute())]
    return [str(path.absolute()), status.st_mtime_ns, status.st_size]


def _load(file: Path, key: str) -> Arrays | None:
    try:
        # Opened here, as numpy leaves a damaged file open.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as content:
            if str(content["_key"]) != key:
                return None
            return {name: content[name] for name in content.files if name != "_key"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
