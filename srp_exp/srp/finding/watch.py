"""What happens while a module runs, passed through functions: calls of modules and of torch functions, operations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

Through = Callable[[Any, Any, dict[str, Any]], Any]
"""Maps a function, its args and its kwargs to what the call returns."""


@contextmanager
def watched(on_module: Callable[..., Any], on_function: Through, on_operation: Through) -> Iterator[None]:
    """Let calls of modules (module, its call, args, kwargs), of torch functions and the operations below go through.

    The function mode sees the calls that a forward makes; the dispatch mode also what TorchScript or a
    torch.autograd.Function does.
    """
    own_call = nn.Module.__call__

    def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return on_module(module, own_call, args, kwargs)

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        with _Operations(on_operation), _Functions(on_function):
            yield
    finally:
        nn.Module.__call__ = own_call  # type: ignore[method-assign]


@contextmanager
def unseen() -> Iterator[None]:
    """What is done here goes through nothing."""
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


class _Functions(TorchFunctionMode):
    def __init__(self, through: Through) -> None:
        super().__init__()
        self._through = through

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._through(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __init__(self, through: Through) -> None:
        super().__init__()
        self._through = through

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunction():
            return self._through(func, args, kwargs or {})
