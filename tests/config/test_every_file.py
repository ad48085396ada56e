"""The files of conf/: each is named as it is called, and no default stands in two places."""

import re
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from srp_exp.config import CONF_DIR
from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.training import RecipeConfig

SCHEMA = re.compile(r"/hydra/schema/(\w+)/(\w+)@_here_")
FILES = sorted(path for group in (*SCHEMAS, "recipe") for path in (CONF_DIR / group).glob("*.yaml"))


def schema_of(path: Path) -> type[Any]:
    found = SCHEMA.search(path.read_text())
    if path.parent.name == "recipe":
        assert found is None  # typed by the configuration that it is part of
        return RecipeConfig
    assert found is not None, "a user's typo would pass"
    return SCHEMAS[found[1]][found[2]]


def repeated(values: dict[str, Any], defaults: dict[str, Any], prefix: str = "") -> list[str]:
    """Names of the settings whose value is their default."""
    names = []
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            names += repeated(value, defaults[key], f"{prefix}{key}.")
        elif key in defaults and defaults[key] == value:
            names.append(f"{prefix}{key}")
    return names


def test_a_file_sets_what_differs_from_the_defaults_of_its_schema() -> None:
    assert len(FILES) > 50
    for path in FILES:
        plain = OmegaConf.to_container(OmegaConf.structured(schema_of(path)), enum_to_str=True)
        assert isinstance(plain, dict)
        values = yaml.safe_load(path.read_text())
        assert repeated(values, {str(key): value for key, value in plain.items()}) == [], path
        if path.parent.name == "logger":  # several may be chosen: each has a place of its own
            assert path.read_text().startswith(f"# @package logger.{path.stem}\n")
        else:
            assert plain["name"].startswith("${") or values["name"] == path.stem
