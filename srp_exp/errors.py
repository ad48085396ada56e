"""Errors that the user can mend: their line says all. Whatever else is raised is a fault, and keeps its traceback."""

from collections.abc import Sequence

_SHOWN = 3  # offenders named in a message


class UserError(ValueError):
    """Input that can't be right: the message names the value, its place, and what to do."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that the user named, or has to provide, doesn't exist."""


class UnreachableError(UserError, ConnectionError):
    """What had to be fetched from the network couldn't be."""


class CorruptImageError(UserError):
    """An image file that is cut short, damaged, too large, or no image. file: its path in the set's folder."""

    file: str | None = None


STOPPED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""


def first_few(names: Sequence[object]) -> str:
    """Up to three names, and how many more there are."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"{', '.join(str(name) for name in names[:_SHOWN])}{more}"
