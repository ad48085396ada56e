"""What each setting means, read from its comment in the schema: for docs/settings.md, `--help` and error messages."""

import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
import typing
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

from omegaconf import OmegaConf

_TYPES = {str: "text", bool: "true, false", int: "integer", float: "number", Any: "any"}
_OF_TOOLS = ("# type:", "# noqa")  # comments that are no description


@dataclass(frozen=True)
class Setting:
    """One setting as a reader sees it; range: its interval or choices, which may be empty."""

    name: str
    type: str
    range: str
    default: str
    meaning: str


def documented(schema: type[Any], prefix: str = "") -> list[Setting]:
    """The settings of a schema and of the schemas in it, under dotted names; keys of Hydra, such as _target_, aside.

    A schema in a list has [] behind its name.
    """
    found = []
    for name, (hint, field) in fields_of(schema).items():
        if name.startswith("_"):
            continue
        inner, in_list = _inner(hint if hint is not Any else field.default_factory)
        if inner is not None:
            found += documented(inner, f"{prefix}{name}{'[]' * in_list}.")
        else:
            kind = "integer or [integer,integer]" if field.metadata.get("is_size") else _type(hint)
            texts = kind, range_of(hint, field), _default(field), meaning(schema, name)
            found.append(Setting(f"{prefix}{name}", *texts))
    return found


def meaning(schema: Any, name: str) -> str:
    """What a setting means: the comment behind its field, or the lines above it, in the nearest class that has one.

    Empty where nothing is known of it, as of a setting of a class of the user's.
    """
    classes = schema.__mro__ if isinstance(schema, type) and dataclasses.is_dataclass(schema) else ()
    return next((text for one in classes if (text := _comments(one).get(name))), "")


def in_brackets(schema: Any, name: str) -> str:
    """The meaning of a setting for the end of an error message; empty where nothing is known."""
    text = meaning(schema, name)
    return f" ({text})" if text else ""


@cache
def _comments(schema: type[Any]) -> dict[str, str]:
    """Field -> comment, of the fields that the class itself defines."""
    try:
        source = textwrap.dedent(inspect.getsource(schema))
    except (OSError, TypeError):  # a class without a file
        return {}
    comments, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(_OF_TOOLS):
            comments[token.start[0]] = token.string.removeprefix("#").strip()
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    found = {}
    (body,) = ast.parse(source).body
    for node in body.body if isinstance(body, ast.ClassDef) else ():
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            behind = [comments[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in comments]
            above: list[str] = []
            line = node.lineno - 1
            while line in alone:
                above.insert(0, comments[line])
                line -= 1
            found[node.target.id] = re.sub(r"(?<!\.)\.$", "", " ".join(behind or above))
    return found


def fields_of(schema: Any) -> dict[str, tuple[Any, "dataclasses.Field[Any]"]]:
    """The fields of a schema with their types; none of what isn't one."""
    if not dataclasses.is_dataclass(schema):
        return {}
    hints = typing.get_type_hints(schema)
    return {field.name: (hints[field.name], field) for field in dataclasses.fields(schema)}


def _inner(hint: Any) -> tuple[type[Any] | None, bool]:
    """The schema that a type is, may be or is a list of, and whether it is a list; None where it holds none."""
    for one in (hint, *typing.get_args(hint)):
        if isinstance(one, type) and dataclasses.is_dataclass(one):
            return one, typing.get_origin(hint) is list
    return None, False


def _type(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if type(None) in arguments:
        return " or ".join([_type(one) for one in arguments if one is not type(None)] + ["null"])
    if origin is list:
        return f"list of {_type(arguments[0])}" + "s" * (arguments[0] is not Any)
    if origin is dict:
        return f"name: {_type(arguments[1])}"
    return "choice" if isinstance(hint, type) and issubclass(hint, Enum) else _TYPES[hint]


def range_of(hint: Any, field: "dataclasses.Field[Any]") -> str:
    """An interval, with the number of values of a list; or the choices of an enumeration."""
    for one in (hint, *typing.get_args(hint)):
        if isinstance(one, type) and issubclass(one, Enum):
            return " | ".join(one.__members__)
    interval, length = field.metadata.get("within"), field.metadata.get("length")
    return " in ".join(filter(None, (length and str(length), interval)))


def _default(field: "dataclasses.Field[Any]") -> str:
    made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return "required" if made == "???" else written(OmegaConf.create({"value": made})._get_node("value"))


def written(node: Any) -> str:
    """The value of a node as the command line takes it, interpolations as they stand."""
    value = OmegaConf.to_container(node, enum_to_str=True) if OmegaConf.is_config(node) else node._value()
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case Enum():
            return value.name
        case list() | dict():
            return str(value).replace("'", "").replace(" ", "")
    return str(value)
