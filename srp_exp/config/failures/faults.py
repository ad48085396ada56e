"""Whose error is it: the user's, the machine's, or a fault of the program."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from srp_exp.config.failures.explain import explain, shortened
from srp_exp.config.failures.known_failures import known_failure
from srp_exp.errors import UserError

_PACKAGE = Path(__file__).resolve().parents[2]


def is_users(error: BaseException) -> bool:
    """Whether the user can mend `error`, so that one line says all.

    That is what srp_exp, Hydra and OmegaConf refuse, what a class named by the configuration refuses of its arguments,
    and the failures of libraries that have a line; not what goes wrong within srp_exp while Hydra builds an object.
    """
    if known_failure(error):
        return True
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return is_users(error.__cause__) or _place(error.__cause__) is None
    return isinstance(error, UserError | HydraException | OmegaConfBaseException | YAMLError)


def is_one_line(error: BaseException) -> bool:
    """Whether one line is enough: for the user's errors, and for what the system refuses, such as a full disk."""
    cause = _built(error)
    return is_users(error) or (isinstance(cause, OSError) and cause.errno is not None)


@contextmanager
def ending_in_one_line(program: str) -> Iterator[None]:
    """At an error for which one line is enough, end `program` with that line and exit code 1."""
    try:
        yield
    except Exception as error:
        if not is_one_line(error):
            raise
        sys.exit(f"{program}: {describe_error(error)}")


def describe_error(error: BaseException) -> str:
    """One line: for the user's errors that of `explain`, for others also their kind and the place in srp_exp."""
    if line := known_failure(error):
        return shortened(line)
    if is_users(error):
        return explain(error)
    cause = _built(error)
    place = _place(cause)
    said = " ".join(str(cause).split())
    return shortened(f"{type(cause).__name__}: {said}" + (f" (at {place})" if place else ""))


def _built(error: BaseException) -> BaseException:
    """What lies behind Hydra's word for it where an object couldn't be built."""
    return error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ is not None else error


def _place(error: BaseException) -> str | None:
    """The innermost line of srp_exp that `error` passed through, as srp_exp/files.py:25; None where it passed none."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    return f"{_PACKAGE.name}/{Path(inside[-1].filename).relative_to(_PACKAGE)}:{inside[-1].lineno}" if inside else None
