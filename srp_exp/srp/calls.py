"""Calls of torch functions in the forward of a module, named by their place in the code.

A forward is Python, and nothing in it is rewritten: under a TorchFunctionMode every call of a torch function is seen,
in any spelling. Its name is the stack of instructions that led to it, so a random branch, a hook or a child that pools
too never shifts it. A compiler can't ask for that stack: in compiled code the calls of a function are counted.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path as FilePath
from types import FrameType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint as torch_checkpoint

Path: TypeAlias = tuple[Any, ...]
"""Where a tensor is in a call: keys that lead to it from (args, kwargs)."""
Site: TypeAlias = tuple[tuple[str, int, int], ...]
"""The instructions of the user's code that led to a call, innermost first: function, its first line, offset."""

_HIDDEN = tuple(str(FilePath(file).parent) for file in (torch.__file__, __file__))
CHECKPOINT = torch_checkpoint.__file__


@dataclass(frozen=True)
class Call:
    """The `number`-th call, from 1 on, of `function` at `site`; the `count`-th of `total` calls in the forward.

    `count` and `total` are what compiled code goes by; None where they differ from run to run.
    """

    function: Any
    site: Site
    number: int
    count: int | None
    total: int | None


@dataclass(frozen=True)
class Place:
    """Where a forward pools: the call with the map at `path` of its arguments, and the call that gives its mean.

    The two are mostly one. `shape` is that of the mean without the batch, such as (C, 1, 1). `may_skip`: whether the
    forward draws random numbers, so that it may do without.
    """

    map_call: Call
    path: Path
    mean_call: Call
    shape: tuple[int, ...]
    may_skip: bool = False

    @property
    def channels(self) -> int:
        """How many means there are of a map of the batch."""
        return prod(self.shape)


def pick(args: tuple[Any, ...], kwargs: dict[str, Any], path: Path) -> Any:
    """What lies at `path` in the arguments of a call."""
    value: Any = (args, kwargs)
    for key in path:
        value = value[key]
    return value


@cache
def is_code_of_user(file: str) -> bool:
    """Whether the code of a file is neither torch's nor of this package."""
    return not file.startswith(_HIDDEN)


def instruction(frame: FrameType) -> tuple[str, int, int]:
    """The instruction that a frame of Python is at."""
    return frame.f_code.co_qualname, frame.f_code.co_firstlineno, frame.f_lasti


class NamedCalls(TorchFunctionMode):
    """Lets `on_call` answer some `calls` of their `functions`, below the frame of Python that has the id `around`."""

    def __init__(self, around: int, calls: Sequence[Call], functions: tuple[Any, ...]) -> None:
        super().__init__()
        self.around, self._calls, self._functions = around, calls, functions
        self._is_compiled = torch.compiler.is_compiling()  # and so is what follows a graph break
        self._seen = [0] * len(calls)  # how often each was made at its site; by its function, in compiled code
        self.is_done = False
        """Whether no call is waited for any more."""
        self.checkpointed = False
        """Whether the last call was made inside of a checkpoint(...) of the forward."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._functions and not (self.is_done and not self._is_compiled):
            site = () if self._is_compiled else self._site(sys._getframe(1))
            answer = None
            for index, call in enumerate(self._calls):
                if call.function is func and (self._is_compiled or call.site == site):
                    self._seen[index] += 1
                    if self._seen[index] == (call.count if self._is_compiled else call.number):
                        own = self.on_call(index, func, args, kwargs or {})
                        answer = own if answer is None else answer
            if answer is not None:
                return answer
        return func(*args, **kwargs) if kwargs else func(*args)

    def on_call(self, index: int, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """The answer to the call of this index; None to let it be made."""
        raise NotImplementedError

    def _site(self, frame: FrameType | None) -> Site:
        site, self.checkpointed = [], False
        while frame is not None and id(frame) != self.around:
            file = frame.f_code.co_filename
            if is_code_of_user(file):
                site.append(instruction(frame))
            elif file == CHECKPOINT:
                self.checkpointed = True
            frame = frame.f_back
        return tuple(site)
