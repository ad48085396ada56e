"""Fields of the configuration schemas: their ranges, and whether they belong to the identity of a run."""

import dataclasses
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf


def within(interval: str | None, default: Any = MISSING, **metadata: Any) -> Any:
    """A number, or list of numbers, in an interval such as "(0, 1]" or "[1, inf)"; None where the type allows it."""
    return _field(default, within=interval, **metadata)


def not_identity(default: Any = MISSING, **metadata: Any) -> Any:
    """A setting that can't change the result of a run, so that it has no part in the run's hash."""
    return _field(default, identity=False, **metadata)


def taken_over(interval: str | None, default: Any = MISSING) -> Any:
    """A setting that nothing reads but the settings that refer to it, as ${recipe.lr}: the hash has theirs."""
    return _field(default, within=interval, identity=False, taken_over=True)


def _field(default: Any, **metadata: Any) -> Any:
    """`counts_if=("selection", "best")` puts a setting into the hash only where another of its node is so.

    Elsewhere nothing reads it. counts_unless=(...): only where the other is not so.
    """
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


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
    return {name for name, field in (schema_fields(node) or {}).items() if not _counts(field, node)}


def _counts(field: dataclasses.Field[Any], node: DictConfig) -> bool:
    for condition, wanted in (("counts_if", True), ("counts_unless", False)):
        other, value = field.metadata.get(condition, ("", None))
        if other and (getattr(node[other], "name", node[other]) == value) != wanted:
            return False
    return bool(field.metadata.get("identity", True))
