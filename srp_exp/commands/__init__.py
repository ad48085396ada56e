"""What the command line does: one module for each `mode`, and `report`, which is srp-report."""

from collections.abc import Callable
from importlib import import_module

from omegaconf import DictConfig

_MODULES = {
    "train": "train", "eval": "evaluate", "predict": "predict", "export": "export", "compare": "compare",
    "cost": "cost",
}  # fmt: skip


def command(mode: str) -> Callable[[DictConfig], None]:
    """What `mode` says, as a function. Only its own module is imported: torch and timm take seconds."""
    execute: Callable[[DictConfig], None] = import_module(f"srp_exp.commands.{_MODULES[mode]}").execute
    return execute
