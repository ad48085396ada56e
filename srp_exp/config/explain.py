"""One line for what went wrong with a configuration: the value, the place, the nearest valid choice."""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from srp_exp.config.schema import Config
from srp_exp.config.training import RecipeConfig

_DELETION = re.compile(r"Could not delete from config\. '(.*)' does not exist|Error merging override ~(.*)")


def nearest(name: str, choices: Iterable[str]) -> str:
    """ "; did you mean ..." with up to three choices that resemble `name`, else "; valid are ..." with all, if any."""
    valid = sorted(str(choice) for choice in choices if not str(choice).startswith("_"))
    similar = difflib.get_close_matches(name, valid, n=3, cutoff=0.7)
    if similar:
        return f"; did you mean {' or '.join(similar)}?"
    return f"; valid are {', '.join(valid)}" if valid else ""


def explain(error: BaseException) -> str:
    """Describe an error of Hydra, OmegaConf or srp_exp in one line."""
    chain = list(_chain(error))
    for cause in chain:
        match cause:
            case MissingConfigException(missing_cfg_file=str(file)):
                group, _, name = file.rpartition("/")
                return f"{group}={name}: there is no such choice{nearest(name, cause.options or [])}"
            case ConfigCompositionException() if found := _DELETION.match(str(cause)):
                key = found[1] or found[2]
                if found[1]:
                    return f"{key} is not a setting{nearest(key, _all_settings())}"
                return f"{key} can't be deleted: every setting has a value; give another one, as {key}=..."
            case OverrideParseException():
                return (
                    f"{cause.override}: can't be read as an override ({_first_line(cause)}); quote special characters"
                )
            case InstantiationException():
                inner = cause.__cause__
                return explain(inner) if isinstance(inner, ValueError | OSError) else " ".join(str(cause).split())
            case MissingMandatoryValue() | InterpolationToMissingValueError():
                key = str(cause).split("\n")[0].rpartition(": ")[2]
                return f"{key} has no value: give one, as {key}=..."
            case ValidationError(full_key=str(key)) if key:
                return f"{key}={cause.value}: {_first_line(cause)}"
            case OmegaConfBaseException(parent_node=DictConfig() as parent) if isinstance(
                cause, ConfigKeyError | ConfigAttributeError
            ):
                return f"{cause.full_key} is not a setting{_nearest_key(str(cause.key), parent)}"
    return _first_line(chain[0]) if isinstance(error, HydraException) else " ".join(str(error).split("\n"))


def _all_settings() -> list[str]:
    """Dotted names of all settings of all schemas."""
    from srp_exp.config.register import SCHEMAS  # which imports the rest of this package

    groups: dict[str, list[type[Any]]] = {
        "": [Config],
        "recipe.": [RecipeConfig],
        **{f"{group}.": list(s.values()) for group, s in SCHEMAS.items()},
    }
    return [f"{prefix}{f.name}" for prefix, schemas in groups.items() for s in schemas for f in dataclasses.fields(s)]


def _nearest_key(name: str, parent: DictConfig) -> str:
    """The nearest key of `parent`; where none has that very name, a key of that name further down."""
    keys = [str(key) for key in parent if key != "hydra"]
    below = [f"{key}.{name}" for key in keys if isinstance(parent[key], DictConfig) and name in parent[key]]
    return f"; did you mean {' or '.join(below)}?" if below else nearest(name, keys)


def _chain(error: BaseException) -> Iterable[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
