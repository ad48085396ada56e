"""Why what a dotted name stands for can't be imported or called, in one line: the cause, and where it lies."""

import traceback
from pathlib import Path

import hydra

_MACHINERY = ("<frozen importlib", "<frozen runpy", str(Path(hydra.__file__).parent), str(Path(__file__).parents[2]))
"""Whose lines of a traceback the user has no part in: Python's importing, Hydra's, and srp_exp's own."""


def import_failure(name: str, error: BaseException) -> str:
    """One line for `error`, which came up while the dotted `name` was imported and looked up."""
    cause = _first_cause(error)
    module, _, last = name.rpartition(".")
    if isinstance(cause, ModuleNotFoundError) and cause.name == name and module:
        return f"{name} can't be imported ({module} has no {last}): is its name right, and is it the file you mean?"
    if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
        return (
            f"{name} can't be imported (there is no module {cause.name}): is it installed, or its folder in PYTHONPATH?"
        )
    place = own_place(cause)
    if isinstance(cause, AttributeError) and not place:
        return f"{name} can't be imported ({cause}): is its name right, and is it installed or in PYTHONPATH?"
    return (
        f"{name} can't be imported: {type(cause).__name__}: {cause}{f' (at {place})' if place else ''}; mend that file"
    )


def own_place(error: BaseException) -> str:
    """The innermost line of the user's code that `error` passed through, as nets.py:25; empty where it passed none."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_MACHINERY)]
    users = [frame for frame in own if "site-packages" not in Path(frame.filename).parts] or own[:1]
    return f"{users[-1].filename}:{users[-1].lineno}" if users else ""


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
