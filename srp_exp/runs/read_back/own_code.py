"""Whose code a dotted name would import, told from files alone: importing a module to find out would run it."""

import ast
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any


def defines_own_class(module: str, name: str) -> bool:
    """Whether the source of `module`, which is srp_exp's or lies outside of installed packages, has a class `name`."""
    source = _source(module)
    if source is None or not (module.startswith("srp_exp.") or _is_users(source)):
        return False
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in tree.body)


def _source(module: str) -> Path | None:
    """The file that importing `module` would run; None where there is none. Nothing is imported to find it."""
    path, spec, parts = None, None, module.split(".")
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        found = (finder.find_spec(name, path) for finder in sys.meta_path if _only_looks(finder))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or (length < len(parts) and spec.submodule_search_locations is None):
            return None
        path = spec.submodule_search_locations
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _only_looks(finder: Any) -> bool:
    """Whether it finds without importing: setuptools' hook replaces distutils when it is asked for pip or distutils."""
    return hasattr(finder, "find_spec") and type(finder).__module__ != "_distutils_hack"


def _is_users(source: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(source.parts) or source.suffix != ".py":
        return False
    return not any(source.resolve().is_relative_to(folder) for folder in _library_folders())


@cache
def _library_folders() -> frozenset[Path]:
    """Where Python's own library lies, and where packages are installed."""
    return frozenset(
        Path(folder).resolve()
        for name, folder in sysconfig.get_paths().items()
        if name in ("stdlib", "platstdlib", "purelib", "platlib")
    )
