"""Tables read with Hugging Face's `datasets`, which keeps pictures as Arrow files, to be mapped into memory.

It takes a second to import, so it is where a table is read, once: of a set that is remembered the Arrow files will do.
"""

import csv
import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from srp_exp.datasets.files.table_source import TableSource, read_arrow
from srp_exp.errors import MissingFileError, UserError
from srp_exp.files import stamp, write_atomically

LOG = logging.getLogger("srp_exp")
KINDS = {
    ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json",
}  # fmt: skip
"""What a table is, by the end of its name, in the words of `datasets`."""


class Table(NamedTuple):
    """A file, or a split of a set of the hub. place: for messages. schema: with what it says of its columns."""

    place: str
    folder: Path  # where the file names in it begin
    schema: pa.Schema
    data: pa.Table
    files: tuple[Path, ...] = ()  # Arrow streams that hold `data`
    digests: NDArray[np.uint8] = np.empty((0, 32), np.uint8)  # of the images, as of `image_digests`; none: not taken
    has_types: bool = True  # False: all is text


def read_schema(file: Path) -> pa.Schema:
    """The columns of a table. Raises UserError where it is damaged."""
    kind = KINDS[file.suffix.lower()]
    with _damage_named(file):
        if kind == "parquet":
            schema = pq.read_schema(file)
        elif kind == "arrow":
            with file.open("rb") as opened:
                is_file = opened.read(6) == b"ARROW1"
                opened.seek(0)
                schema = (pa.ipc.open_file if is_file else pa.ipc.open_stream)(opened).schema
        elif kind == "csv":
            schema = pa.schema([(name, pa.string()) for name in _header(file)[0]])
        else:
            schema = _in_memory(file, {}).schema
        features_of(schema)
    return schema


def features_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the hub says of the columns."""
    said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = (said.get("info") or {}).get("features") or {}  # where columns were renamed, of others too
    return {name: told for name, told in features.items() if name in schema.names and isinstance(told, dict)}


def holds_images(kind: pa.DataType) -> bool:
    """Whether values of this type are encoded images: bytes, or structs with such a field."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and holds_images(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def read_table(file: Path, columns: Sequence[str], image: str | None, cache: Path) -> Table:
    """The columns of a table. image: the one of them that holds images, which are kept in `cache`; None: none does.

    What is kept is made again where it isn't what was kept. Raises UserError where the table is damaged, or `cache` has
    no room for its images.
    """
    with _damage_named(file):
        schema = read_schema(file)
        options = _options(file, schema, columns)
        if image is None:
            has_types = KINDS[file.suffix.lower()] != "csv"
            return Table(str(file), file.parent, schema, _in_memory(file, options), has_types=has_types)
        if not holds_images(schema.field(image).type):
            raise UserError(f"{file}: column {image} is {schema.field(image).type}, no images; fetch it again")
        if KINDS[file.suffix.lower()] == "parquet" and not pq.read_metadata(file).num_rows:
            return Table(str(file), file.parent, schema, schema.empty_table())
        key = hashlib.sha256(json.dumps([image, *columns, *stamp(file)]).encode()).hexdigest()[:12]
        kept = cache / f"{file.name}-{key}"
        note = kept / "content"
        known = note.read_text() if note.is_file() else None
        if known is None:
            LOG.info("%s: its images are put into %s once, to be read at random", file, kept)
        for again in (False, True):
            try:
                loaded = _load(file, kept, options | ({"download_mode": "force_redownload"} if again else {}))
                files = tuple(Path(each["filename"]) for each in loaded.cache_files)
                table = Table(str(file), file.parent, schema, loaded.data.table, files)
                table = table._replace(digests=image_digests([table], image))
                content = hashlib.sha256(table.digests.tobytes()).hexdigest()
            except Exception:
                if again or known is None:
                    raise
                continue
            if known in (None, content):
                break
            LOG.warning("%s: what was kept of it in %s is damaged, and is made again", file, kept)
        if known != content:
            for path in files:
                _to_disk(path)
            write_atomically(note, content.encode())
        return table


def read_hub(path: str, subset: str | None, revision: str | None, cache: Path) -> dict[str, Table]:
    """The splits of a set of the hub, by their names. cache: of its Arrow files.

    Raises UserError where the hub isn't reached, or has no such set.
    """
    if Path(path).exists():
        raise UserError(
            f"dataset.path={path}: is a file or folder here; read it with dataset=table dataset.root={path}"
        )
    LOG.info("dataset.path=%s: is fetched from the Hugging Face hub, unless it was before", path)
    import datasets

    _quiet()
    where = f"dataset.path={path}" + "".join(
        f" dataset.{name}={value}" for name, value in (("subset", subset), ("revision", revision)) if value is not None
    )
    try:
        found = datasets.load_dataset(path, subset, revision=revision, cache_dir=os.fspath(cache))
    except (ConnectionError, datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        told = _reason(error)
        if isinstance(error, datasets.exceptions.DatasetNotFoundError):
            raise MissingFileError(
                f"{where}: {told}; check the name, and for a set that needs an account run `hf auth login`"
            ) from None
        if isinstance(error, ConnectionError):
            raise UserError(
                f"{where}: the Hugging Face hub can't be reached ({told}); run the command once where it can, with the "
                f"same dataset.cache_dir, or download its files and use dataset=table dataset.root=FOLDER"
            ) from None
        raise UserError(f"{where}: can't be read ({told}); mend the setting, or download its files") from None
    return {
        name: Table(
            f"{path} {name}",
            Path(),
            split.features.arrow_schema,
            split.data.table,
            tuple(Path(each["filename"]) for each in split.cache_files),
        )
        for name, split in found.items()
    }


def cells_of(tables: Sequence[Table]) -> tuple[list[Path], list[str], NDArray[np.int64]]:
    """Where the rows of `tables` are, as a TableSource takes it. Raises UserError where a file is damaged."""
    files: list[Path] = []
    places: list[str] = []
    cells = [np.empty((0, 2), np.int64)]
    for table in tables:
        first = 0
        for file in table.files:
            count = len(read_arrow(file))
            cells.append(np.stack([np.full(count, len(files)), np.arange(count)], 1))
            files.append(file)
            places.append(f"{table.place}#{first}")
            first += count
    return files, places, np.concatenate(cells)


def image_digests(tables: Sequence[Table], column: str) -> NDArray[np.uint8]:
    """SHA-256 of every image, (N, 32)."""
    source = TableSource(*cells_of(tables), column)
    found = b"".join(hashlib.sha256(source.read(row)).digest() for row in range(len(source)))
    return np.frombuffer(found, np.uint8).reshape(-1, 32)


def _options(file: Path, schema: pa.Schema, columns: Sequence[str]) -> dict[str, Any]:
    """What `datasets` is told. Types are as they are stored: what they mean is told by `schema`."""
    from datasets import Features

    kind = KINDS[file.suffix.lower()]
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise UserError(f"{file}: has no column {missing[0]}, but {', '.join(schema.names)}; fetch or mend it")
    chosen = pa.schema([schema.field(name) for name in columns])
    if kind == "parquet":
        return {"features": Features.from_arrow_schema(chosen), "columns": list(columns)}
    if kind == "arrow":
        return {"features": Features.from_arrow_schema(schema.remove_metadata())}
    if kind == "csv":  # as texts: a class may be called NA, or 007
        return {"features": Features.from_arrow_schema(schema), "sep": _header(file)[1], "keep_default_na": False}
    return {}


def _header(file: Path) -> tuple[list[str], str]:
    """The names of the columns of a CSV file, and what separates them."""
    with file.open(newline="", encoding="utf-8-sig") as opened:
        line = opened.readline()
        separator = max(",;\t|", key=line.count)
        opened.seek(0)
        rows = csv.reader(opened, delimiter=separator)
        names = next(rows, [])
        twice = [name for name in names if names.count(name) > 1]
        if twice or not any(names):
            what = f"two columns {twice[0]!r}" if twice else "no names of columns in its first line"
            raise UserError(f"{file}: has {what}; give each column a name of its own")
        for row in rows:  # whose labels would be those of other columns
            if len(row) > len(names):
                raise UserError(
                    f"{file}: line {rows.line_num} has {len(row)} cells and the first line {len(names)}; put texts in "
                    f"which {separator!r} occurs in quotes"
                )
    return names, separator


def _in_memory(file: Path, options: dict[str, Any]) -> pa.Table:
    with TemporaryDirectory() as cache:
        return _load(file, Path(cache), options | {"keep_in_memory": True}).data.table


def _load(file: Path, cache: Path, options: dict[str, Any]) -> Any:
    import datasets

    _quiet()
    try:
        return datasets.load_dataset(
            KINDS[file.suffix.lower()],
            data_files={"train": [str(file.absolute())]},
            split="train",
            cache_dir=os.fspath(cache.absolute()),
            **options,
        )
    except ValueError as error:
        if "corresponds to no data" in str(error):
            raise UserError(f"{file}: has no rows; add some, below a line with the names of the columns") from None
        raise


def _quiet() -> None:
    """No progress bars, no log lines, and nothing sent to the hub but requests for files."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    for library in (datasets, huggingface_hub):
        library.utils.logging.set_verbosity(logging.CRITICAL + 1)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True


@contextmanager
def _damage_named(file: Path) -> Iterator[None]:
    """Turn whatever the readers of tables raise into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # nearly anything, on damaged files
        behind = _behind(error)
        if isinstance(behind, OSError) and behind.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{file}: no room to keep its images ({behind}); make room, or set dataset.cache_dir"
            ) from None
        if isinstance(behind, UnicodeError):
            raise UserError(f"{file}: not text in UTF-8 ({behind}); save it as UTF-8") from None
        raise UserError(f"{file}: not a readable table ({_reason(error)}); fetch or write it again") from None


def _behind(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    """The first line of what was behind an error."""
    return next(iter(str(_behind(error)).strip().splitlines()), "") or type(_behind(error)).__name__


def _to_disk(file: Path) -> None:
    """Wait until the file is on the disk: after a crash it is whole, or not known."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
