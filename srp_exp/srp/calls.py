"""Calls of torch functions in the forward of a module, named by their number, and one of them done otherwise.

A forward is Python: nothing in it is rewritten. While it runs under a TorchFunctionMode, every call of a torch function
is seen, in any spelling, and the one whose place was found before (srp_exp.srp.finding) can be answered otherwise.
"""

from dataclasses import dataclass
from typing import Any

from torch.overrides import TorchFunctionMode

Path = tuple[Any, ...]
"""Where a tensor is in a call: keys that lead to it from (args, kwargs)."""


@dataclass(frozen=True)
class Call:
    """The `number`-th call, from 1 on, of `function` in a forward; the `number_there`-th in its checkpointed part."""

    function: Any
    number: int
    number_there: int | None = None

    def is_it(self, function: Any, number: int) -> bool:
        """Whether the `number`-th call of `function` is this."""
        return function is self.function and number == self.number


@dataclass(frozen=True)
class Place:
    """Where a forward pools: the call with the map at `path` among its arguments, and the call that gives its mean.

    The two are mostly one. `shape` is that of the mean without the batch, such as (C, 1, 1).
    """

    map_call: Call
    path: Path
    mean_call: Call
    shape: tuple[int, ...]
    calls: tuple[tuple[int, int], ...] = ()
    """How often a forward may call the functions of `map_call` and of `mean_call`: with random numbers it varies."""


def pick(args: tuple[Any, ...], kwargs: dict[str, Any], path: Path) -> Any:
    """What lies at `path` in the arguments of a call."""
    value: Any = (args, kwargs)
    for key in path:
        value = value[key]
    return value


class CountedCalls(TorchFunctionMode):
    """Counts the calls of some functions, and lets `on_call` answer them."""

    def __init__(self, functions: tuple[Any, ...]) -> None:
        super().__init__()
        self.functions = tuple(dict.fromkeys(functions))
        self.counts = [0] * len(self.functions)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.functions and self.is_active():
            return self.on_call(func, self.count(func), args, kwargs)
        return func(*args, **kwargs)

    def count(self, func: Any) -> int:
        """The number of a new call of `func`."""
        index = self.functions.index(func)
        self.counts[index] += 1
        return self.counts[index]

    def is_active(self) -> bool:
        """Whether the calls are those of the forward."""
        return True

    def on_call(self, func: Any, number: int, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError
