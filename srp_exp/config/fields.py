"""Fields of the configuration schemas: their ranges, and whether they belong to the identity of a run."""

import dataclasses
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf


def within(interval: str, default: Any = MISSING) -> Any:
    """A number, or list of numbers, in an interval such as "(0, 1]" or "[1, inf)"; None where the type allows it."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"within": interval})
    return dataclasses.field(default=default, metadata={"within": interval})


def not_identity(default: Any = MISSING) -> Any:
    """A setting that can't change the result of a run, so that it has no part in the run's hash."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"identity": False})
    return dataclasses.field(default=default, metadata={"identity": False})


def schema_fields(node: DictConfig) -> dict[str, dataclasses.Field[Any]] | None:
    """The fields of the dataclass that types `node`; None for a node without a schema, such as a user's own."""
    schema = OmegaConf.get_type(node)
    return {f.name: f for f in dataclasses.fields(schema)} if dataclasses.is_dataclass(schema) else None


def is_within(value: float, interval: str) -> bool:
    """Whether `value` lies in an interval written as "(0, 1]": round brackets exclude the bound."""
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    return above and below


def settings(node: DictConfig) -> set[str]:
    """Keys of `node` that can't change the result of a run."""
    fields = schema_fields(node) or {}
    return {name for name, field in fields.items() if not field.metadata.get("identity", True)}
