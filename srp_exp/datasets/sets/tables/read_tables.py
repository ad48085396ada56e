"""Tables read with Hugging Face's `datasets`, which keeps them as Arrow files, to be mapped into memory.

It takes a second to import, so it is where a table is read, once: of a set that is remembered the Arrow files will do.
"""

import csv
import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from srp_exp.errors import MissingFileError, UserError
from srp_exp.files import stamp
from srp_exp.remembered import keep, known

_LOG = logging.getLogger("srp_exp")
KINDS = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json"}
"""What a table is, by the end of its name, in the words of `datasets`."""


class PictureTable(NamedTuple):
    """A file, or a split of a set of the hub. place: for messages. folder: where the file names in it begin."""

    place: str
    folder: Path
    data: Any  # a datasets.Dataset

    @property
    def files(self) -> list[Path]:
        """The Arrow streams that hold it."""
        return [Path(each["filename"]) for each in self.data.cache_files]


def read_table(file: Path, cache: Path) -> PictureTable:
    """What a file holds, kept in `cache`, where it is made again if its files aren't as they were made; CSV isn't kept.

    Raises UserError where the file is damaged, or `cache` has no room.
    """
    kind = KINDS[file.suffix.lower()]
    kept = cache / f"{file.name}-{hashlib.sha256(json.dumps(stamp(file)).encode()).hexdigest()[:12]}"
    note = kept / "whole.zip"
    options: dict[str, Any] = {"data_files": str(file.absolute()), "cache_dir": str(kept.absolute())}
    with _damage_named(file):
        if kind == "csv":
            return PictureTable(str(file), file.parent, _read_csv(file))
        if known(note, "") is not None:
            return PictureTable(str(file), file.parent, _load(kind, split="train", **options))
        if kind != "json":  # which holds names of files, and is small
            _LOG.info("%s: is put into %s once, to be read at random", file, kept)
        table = PictureTable(
            str(file), file.parent, _load(kind, split="train", download_mode="force_redownload", **options)
        )
        os.sync()  # after a crash it is whole, or not known
        keep(note, "", [str(path) for path in table.files], {})
    return table


def read_hub(path: str, subset: str | None, revision: str | None, cache: Path) -> dict[str, PictureTable]:
    """The splits of a set of the hub, by their names. cache: of its Arrow files.

    Raises UserError where the hub isn't reached, or has no such set.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path) or Path(path).exists():  # of others `datasets` reads files here
        raise UserError(
            f"dataset.path={path}: give the name of a set of the hub, as owner/name; what lies in files here is read "
            f"with dataset=table dataset.root=FOLDER"
        )
    _LOG.info("dataset.path=%s: is fetched from the Hugging Face hub, unless it was before", path)
    settings = {"path": path, "subset": subset, "revision": revision}
    where = " ".join(f"dataset.{name}={value}" for name, value in settings.items() if value is not None)
    try:
        found = _load(path, subset, revision=revision, cache_dir=str(cache.absolute()))
    except Exception as error:  # of many kinds
        told = _reason(error)
        if type(error).__name__ == "DatasetNotFoundError":
            raise MissingFileError(
                f"{where}: {told}; check the name, and for a set that needs an account run `hf auth login`"
            ) from None
        if isinstance(error, ConnectionError):
            raise UserError(
                f"{where}: the Hugging Face hub can't be reached ({told}); run the command once where it can, with the "
                f"same dataset.cache_dir, or download its files and use dataset=table dataset.root=FOLDER"
            ) from None
        raise UserError(f"{where}: can't be read ({told}); mend the setting, or download its files") from None
    return {name: PictureTable(f"{path} {name}", Path(), data) for name, data in found.items()}


def _read_csv(file: Path) -> Any:
    """A datasets.Dataset. All is text, since a class may be called NA, or 007; cells that a line lacks are empty."""
    from datasets import Dataset

    with file.open(newline="", encoding="utf-8-sig") as opened:
        separator = max(",;\t|", key=opened.readline().count)
        opened.seek(0)
        rows = csv.reader(opened, delimiter=separator, strict=True)
        names = next(rows, [])
        if not any(names) or len(set(names)) < len(names):
            raise UserError(f"{file}: its first line has to give each column a name of its own; it has {names}")
        cells = []
        for row in filter(None, rows):
            if len(row) > len(names):  # its label would be that of another column
                raise UserError(
                    f"{file}: line {rows.line_num} has {len(row)} cells and the first line {len(names)}; put texts in "
                    f"which {separator!r} occurs in quotes"
                )
            cells.append(row + [""] * (len(names) - len(row)))
            if "\0" in "".join(row):
                raise UserError(f"{file}: line {rows.line_num} has a NUL byte, as text in UTF-16 has; save it as UTF-8")
    if not cells:
        raise UserError(f"{file}: has no rows; add some, below the names of the columns, or remove it")
    return Dataset.from_dict(dict(zip(names, zip(*cells, strict=True), strict=True)))


def _load(*arguments: Any, **options: Any) -> Any:
    """datasets.load_dataset without progress bars and log lines; nothing is sent to the hub but requests for files."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        library.utils.logging.set_verbosity(logging.CRITICAL + 1)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return datasets.load_dataset(*arguments, **options)


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn whatever the readers of tables raise into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # nearly anything, on damaged files
        behind, reason = _behind(error), _reason(error)
        if isinstance(behind, OSError) and behind.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{file}: no room to keep it ({reason}); make room, or set dataset.cache_dir") from None
        if isinstance(behind, UnicodeError):
            raise UserError(f"{file}: not text in UTF-8 ({reason}); save it as UTF-8") from None
        if "corresponds to no data" in reason or "BatchSize must be greater" in reason:  # of a parquet file
            raise UserError(f"{file}: has no rows; add some, below the names of the columns, or remove it") from None
        raise UserError(f"{file}: not a readable table ({reason}); fetch or write it again") from None


def _behind(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """The first line of what was behind an error."""
    return next(iter(str(_behind(error)).strip().splitlines()), "") or type(_behind(error)).__name__
