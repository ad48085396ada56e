"""What settings mean is read from the comments of the schemas, and every setting has a meaning."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from srp_exp.config.documented import Setting, documented, meaning
from srp_exp.config.register import SCHEMAS
from srp_exp.config.schemas.fields import within
from srp_exp.config.schemas.run import Config


class Side(Enum):
    left = "left"
    right = "right"


@dataclass
class Inner:
    width: float = within("(0, 1]", 0.5)  # of the map


@dataclass
class Base:
    _target_: str = "a.b"
    both: int = 1  # in the base
    of_base: int = 1  # kept


@dataclass
class Derived(Base):
    # Above, in
    # two lines.
    above: list[int] = within("[0, 9]", [1, 2], length=2)  # type: ignore[assignment]
    none: str | None = None
    no_side: Side | None = None

    both: int = 2  # here: a # b...
    side: Side = Side.left  # which
    inner: Inner = field(default_factory=Inner)
    many: list[Inner] = field(default_factory=list)
    wide: float = within("(0, inf)", "${.both}")
    needed: Any = within(None)  # given


def test_a_schema_is_told_setting_by_setting() -> None:
    assert documented(Derived, "x.") == [
        Setting("x.both", "integer", "", "2", "here: a # b..."),
        Setting("x.of_base", "integer", "", "1", "kept"),
        Setting("x.above", "list of integers", "2 in [0, 9]", "[1,2]", "Above, in two lines"),
        Setting("x.none", "text or null", "", "null", ""),
        Setting("x.no_side", "choice or null", "left | right", "null", ""),
        Setting("x.side", "choice", "left | right", "left", "which"),
        Setting("x.inner.width", "number", "(0, 1]", "0.5", "of the map"),
        Setting("x.many[].width", "number", "(0, 1]", "0.5", "of the map"),
        Setting("x.wide", "number", "(0, inf)", "${.both}", ""),
        Setting("x.needed", "any", "", "required", "given"),
    ]


def test_every_setting_has_a_meaning() -> None:
    """A comment behind the field or above it; it is what docs/settings.md, --help and errors say."""
    schemas = [("", Config)]
    schemas += [(f"{group}.", schema) for group, schemas in SCHEMAS.items() for schema in schemas.values()]
    assert [setting for group, schema in schemas for setting in documented(schema, group) if not setting.meaning] == []


def test_nothing_is_known_of_what_is_no_schema() -> None:
    assert meaning(dict, "keys") == meaning(None, "x") == meaning(Base, "unknown") == ""


def test_an_error_says_what_the_setting_means(command_line) -> None:
    for override in ("recipe.epochs=many", "recipe.epochs=0"):
        outcome = command_line(override)
        assert outcome.code == 1
        assert outcome.err.startswith(f"srp-exp: {override}") and "(passes over the training part)" in outcome.err
