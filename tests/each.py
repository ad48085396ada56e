"""One test for many cases that cost little each: without the set-up of a test of its own for each of them."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import Any


def each(**choices: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test for all combinations of `choices`, which are its arguments; a failure says of which."""
    combinations = list(itertools.product(*choices.values()))

    def of_all(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(*args: Any, **fixtures: Any) -> None:
            for values in combinations:
                case = dict(zip(choices, values, strict=True))
                try:
                    test(*args, **fixtures, **case)
                except BaseException as error:
                    error.add_note(f"in the case {case}")
                    raise

        signature = inspect.signature(test)
        others = [parameter for name, parameter in signature.parameters.items() if name not in choices]
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return run

    return of_all
