"""What was found out about data, kept in small files so that the next start takes under a second.

They are in `cache_folder()`, and may be deleted at any time. Imports neither torch nor, for what has no arrays, numpy.
"""

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from srp_exp.files import cache_folder, stamp, write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[Any]"]

_LOG = logging.getLogger("srp_exp")
_FORMAT = 3  # of the files: one of another format is made again


def index_file(home: Path, name: str, cache_dir: str | None = None) -> Path:
    """Where the index `name` of the data in `home` is kept."""
    place = hashlib.sha256(str(home.resolve()).encode(errors="surrogateescape")).hexdigest()[:12]
    return cache_folder(cache_dir) / f"{name}-{place}.zip"


def remembered(file: Path, settings: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays that `file` holds, or those that `make` returns, which are then kept in `file`.

    They count as long as `known` says. Where they can't be kept, that is logged and changes nothing else.
    """
    found = known(file, settings)
    if found is not None:
        return found
    arrays = make()
    try:
        keep(file, settings, arrays["read_from"].tolist(), arrays)
    except OSError as error:
        _LOG.warning(
            "%s: the index can't be kept (%s), so the next start checks again; set dataset.cache_dir", file, error
        )
    return arrays


def keep(file: Path, settings: str, read_from: list[str], found: Mapping[str, Any]) -> None:
    """Keep what was found out, arrays or what JSON can hold, by name. read_from: files and folders it depends on."""
    import numpy as np

    def write(opened: BinaryIO) -> None:
        with zipfile.ZipFile(opened, "w") as kept:
            kept.writestr("key", json.dumps([read_from, _key(settings, read_from)]))
            for name, value in found.items():
                if isinstance(value, np.ndarray):
                    with kept.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, value, allow_pickle=False)
                else:
                    kept.writestr(f"{name}.json", json.dumps(value))

    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, write)


def known(file: Path, settings: str) -> dict[str, Any] | None:
    """What `file` keeps; None where it has to be found out: for other `settings`, where a place that it was read from
    has changed its modification time or size, and where the file is missing or damaged."""
    try:
        with zipfile.ZipFile(file) as kept:
            read_from, key = json.loads(kept.read("key"))
            if key != _key(settings, read_from):
                return None
            return {Path(member).stem: _read(kept, member) for member in kept.namelist() if member != "key"}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _read(kept: zipfile.ZipFile, member: str) -> Any:
    if member.endswith(".json"):
        return json.loads(kept.read(member))
    import numpy as np

    with kept.open(member) as opened:
        return np.lib.format.read_array(opened, allow_pickle=False)


def _key(settings: str, read_from: list[str]) -> str:
    return json.dumps([_FORMAT, settings, *(stamp(Path(path)) for path in read_from)])
