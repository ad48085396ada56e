"""Where the data of a run are now: as the run has it, or as the command line says, which looks at the run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from srp_exp.config.failures.explain import nearest
from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.run import Config
from srp_exp.errors import UserError

_SCHEMAS = {
    field.name: schema
    for schema in SCHEMAS["dataset"].values()
    for field in dataclasses.fields(schema)
    if field.metadata.get("identity") is False
}
"""A schema of each setting of data sets that says where and how they are read, not which they are."""


def place_data(trained: DictConfig, config: DictConfig, given: Mapping[str, str]) -> None:
    """Write into the stored configuration `trained` where its data are now.

    given: the overrides of the command line, by their key. dataset.root and the like replace what the run has;
    data_root replaces the run's own at the beginning of its root, and moves nothing where it isn't given, or where the
    data don't lie in it. Raises UserError for a setting that the run's data set lacks.
    """
    for key, override in given.items():
        group, _, name = key.partition(".")
        if group == "dataset":
            trained.dataset[name] = _value(trained, config, name, override)
    if "dataset.root" in given or "root" not in trained.dataset:
        return
    root, old, new = Path(trained.dataset.root), Path(trained.data_root), Path(config.data_root)
    if root.is_relative_to(old) and ("data_root" in given or config.data_root != Config.data_root):
        trained.dataset.root = str(new / root.relative_to(old))


def says_where(key: str) -> bool:
    """Whether a setting, as dataset.root, says where or how data are read."""
    group, _, name = key.partition(".")
    return group == "dataset" and name in _SCHEMAS


def _value(trained: DictConfig, config: DictConfig, name: str, override: str) -> Any:
    known = [f"dataset.{name}" for name in _SCHEMAS if name in trained.dataset]
    if name not in trained.dataset:
        raise UserError(
            f"{override.lstrip('+')}: {trained.dataset.name} has no such setting{nearest(f'dataset.{name}', known)}"
        )
    typed = OmegaConf.create({"dataset": OmegaConf.structured(_SCHEMAS[name])})
    typed.dataset[name] = config.dataset[name]  # raises where it is of another type
    plain: Any = OmegaConf.to_container(OmegaConf.create({"value": typed.dataset[name]}), enum_to_str=True)
    return plain["value"]
