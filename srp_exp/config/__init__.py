"""Configuration: typed schemas of everything in conf/, their rules, and the identity of a run."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent

CONF_DIR = next(folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir())
"""Folder of the config files: inside the package where it was installed from a wheel, beside it in a checkout."""
