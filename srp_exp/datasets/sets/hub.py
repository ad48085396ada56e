"""Data sets of the Hugging Face hub, by their names."""

from dataclasses import replace
from pathlib import Path

from srp_exp.datasets.sets.catalogue import Catalogue
from srp_exp.datasets.sets.columns import find_columns
from srp_exp.datasets.sets.read_tables import Table, read_hub
from srp_exp.datasets.sets.table import TableSet, catalogue_of
from srp_exp.datasets.sets.table_files import split_of
from srp_exp.errors import UserError, first_few


class Hub(TableSet):
    """The set `path` of the Hugging Face hub, fetched once; subset, revision: as of `datasets.load_dataset`.

    Its splits and columns are taken as those of tables are.
    """

    set_name = "hub"
    remedy = "choose another dataset.path"

    @classmethod
    def locate(cls, root: Path) -> Path:
        return root  # a name, unless it is a prepared copy

    @classmethod
    def read(  # type: ignore[override]
        cls,
        home: Path,
        cache: Path,
        path: str,
        subset: str | None = None,
        revision: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        test_split: str | None = None,
        test_fraction: float = 0.0,
        split_seed: int = 0,
    ) -> Catalogue:
        found = read_hub(path, subset, revision, cache.parent / "hub")
        tables: dict[str, list[Table]] = {split: [table] for name, table in found.items() if (split := split_of(name))}
        notes = [f"{path}: its split {name} isn't read" for name in found if split_of(name) is None]
        if "train" not in tables and len(found) == 1:
            tables, notes = {"train": list(found.values())}, []
        if "train" not in tables:
            raise UserError(f"dataset.path={path}: has the splits {first_few(list(found))}, and none for training")
        first = tables["train"][0]
        split_column = split_column if len(tables) == 1 else None
        chosen = image_column, label_column, split_column
        columns = find_columns(first.place, first.schema, first.data.select, *chosen)
        catalogue = catalogue_of(tables, columns, home, test_split, test_fraction, split_seed)
        return replace(catalogue, notes=(*notes, *catalogue.notes))
