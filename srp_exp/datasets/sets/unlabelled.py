"""Pictures without labels, to predict: those of a folder, those that a table holds or names, or one."""

import logging
from pathlib import Path

import numpy as np

from srp_exp.datasets.files.source import FolderSource, ImageSource
from srp_exp.datasets.on_disk.catalogue import listing_of_rows
from srp_exp.datasets.sets.folder import ENDINGS, files_below, is_picture
from srp_exp.datasets.sets.tables.columns import image_column, names_in_column
from srp_exp.datasets.sets.tables.read_tables import KINDS, read_table
from srp_exp.errors import MissingFileError, UserError, first_few

_LOG = logging.getLogger("srp_exp")


def unlabelled(place: Path, column: str | None, cache: Path) -> ImageSource:
    """The pictures at `place`: in a folder at any depth, in the order of their paths; in a table, in that of its rows.

    Any other file is taken for a picture. column: of a table, which holds images or names of files relative to it;
    None: the only one. cache: where a table is kept as it was read. Raises MissingFileError if `place` doesn't
    exist, and UserError if it has no picture or no such column.
    """
    if place.is_dir():
        files = files_below(place)
        pictures = [path for path in files if is_picture(path)]
        if not pictures:
            raise UserError(f"source={place}: no file in it is named as a picture ({', '.join(ENDINGS[:5])}...)")
        if others := [path.relative_to(place).as_posix() for path in files if path not in set(pictures)]:
            _LOG.warning("%s: %d files aren't pictures and are skipped (%s)", place, len(others), first_few(others))
        return FolderSource(place, [path.relative_to(place).as_posix() for path in pictures])
    if not place.is_file():
        raise MissingFileError(f"source={place}: there is no such folder, table or picture")
    if place.suffix.lower() not in KINDS:
        return FolderSource(place.parent, [place.name])
    table = read_table(place, cache)
    column = image_column(table, "source_column", column)
    names = names_in_column(table, column)
    if names is not None:
        return FolderSource(place.parent, names)
    rows = listing_of_rows([(table.place, table.files)], column, np.zeros(len(table.data), np.int64))
    return rows.source(place.parent)
