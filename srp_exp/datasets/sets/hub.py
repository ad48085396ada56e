"""Data sets of the Hugging Face hub, by their names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from srp_exp.datasets.on_disk.catalogue import Catalogue
from srp_exp.datasets.sets.table import TableSet, catalogue_of
from srp_exp.datasets.sets.tables.read_tables import read_hub
from srp_exp.datasets.sets.tables.table_files import split_of
from srp_exp.errors import UserError, first_few


class Hub(TableSet):
    """The set `path` of the hub, fetched once; subset, revision: as of `datasets.load_dataset`."""

    set_name = "hub"
    remedy = "choose another dataset.path"

    @classmethod
    def locate(cls, root: Path) -> Path:
        return root  # a name, unless it is a prepared copy

    @classmethod
    def read(
        cls,
        home: Path,
        cache: Path,
        path: str = "",
        subset: str | None = None,
        revision: str | None = None,
        **settings: Any,
    ) -> Catalogue:
        found = read_hub(path, subset, revision, cache.parent / "hub")
        names = {"train": next(iter(found))} if len(found) == 1 else {split_of(name): name for name in found}
        if "train" not in names:
            raise UserError(f"dataset.path={path}: has the splits {first_few(list(found))}, and none for training")
        tables = {split: [found[name]] for split, name in names.items() if split is not None}
        notes = [
            f"{path}: its split {name} isn't read" for name in found if name not in names.values() or not split_of(name)
        ]
        catalogue = catalogue_of(tables, home, **settings)
        return replace(catalogue, notes=(*(notes if len(found) > 1 else ()), *catalogue.notes))
