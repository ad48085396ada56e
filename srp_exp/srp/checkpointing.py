"""Activation checkpointing (torch.utils.checkpoint): blocks whose forward runs again, in the backward pass.

They must pool over the regions of their first run. Which pass that was is told by the state of the random generator,
which checkpointing restores.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any, TypeAlias

import torch
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from srp_exp.srp.region import Numbers

_PASSES_KEPT = 64

Function: TypeAlias = Callable[..., Any]


def in_backward() -> bool:
    """Whether autograd runs: a forward in it is one that is computed again. False in compiled code, which can't ask."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


@dataclass
class _Kept:
    """What a module took in a forward pass that may be computed again; None: not to be told from another pass."""

    numbers: Numbers | None
    is_used: bool = False

    def is_told_from(self, numbers: Numbers) -> bool:
        """Whether a later pass with the same random state, which took `numbers`, leaves no doubt which is meant."""
        if self.is_used:
            return True
        own = self.numbers
        return own is not None and own.region == numbers.region and torch.equal(own.values, numbers.values)


class KeptPasses:
    """What one module took in its last forward passes. A copy of it is empty."""

    def __init__(self) -> None:
        self._passes: OrderedDict[bytes, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._passes)

    def __reduce__(self) -> Any:
        return type(self), ()

    def keep(self, device: torch.device, take: Callable[[], Numbers]) -> Numbers:
        """What `take` returns, kept where checkpointing may compute the block again; `device` is that of the map."""
        if _saved_tensors_hooks() is None and torch.is_grad_enabled():  # no checkpointing around this call
            return take()
        state = _random_state(device)
        numbers, known = take(), self._passes.pop(state, None)
        self._passes[state] = _Kept(numbers if known is None or known.is_told_from(numbers) else None)
        if len(self._passes) > _PASSES_KEPT:
            self._passes.popitem(last=False)
        return numbers

    def again(self, device: torch.device, is_whole: bool) -> Numbers | None:
        """What the module took in the forward pass that is computed again; None where it pooled all of the map.

        is_whole: whether it does now. Raises RuntimeError where the pass isn't known.
        """
        kept = self._passes.get(_random_state(device))
        if kept is None and is_whole:
            return None
        if kept is None or kept.numbers is None:
            raise RuntimeError(
                "SRP: a block is computed again, and its regions are unknown; let torch.utils.checkpoint preserve the "
                "random state of its inputs' device, and call backward before regions or scales are changed by hand"
            )
        kept.is_used = True
        if kept.numbers.drawn:  # what follows in the block must find the generator as it did
            torch.rand(kept.numbers.values.shape, device=device, dtype=torch.float32)
        return kept.numbers


def checkpointed_parts(forward: CodeType) -> int:
    """In how many torch.utils.checkpoint the present call is, below the innermost frame of `forward`."""
    parts = 0
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not forward:
        parts += frame.f_code is checkpoint.__code__
        frame = frame.f_back
    return parts


def innermost_part(forward: CodeType) -> Any:
    """Python's frame of the innermost torch.utils.checkpoint that the present call is in, below that of `forward`."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not forward:
        if frame.f_code.co_filename == checkpoint.__code__.co_filename:
            return frame
        frame = frame.f_back
    return None


def follow_checkpoint(forward: CodeType, around: Callable[[Function], Function]) -> bool:
    """Put `around` on the part that the present call is in, below the frame of `forward`, for when it runs again.

    False where it will, and this version of torch shows no way.
    """
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not forward:
        if frame.f_code is CheckpointFunction.forward.__code__:
            context = frame.f_locals["ctx"]
            context.run_function = around(context.run_function)
            return True
        frame = frame.f_back
    hooks = _saved_tensors_hooks()
    for cell in getattr(hooks and hooks[0], "__closure__", None) or ():
        if hasattr(cell.cell_contents, "recompute_fn"):
            part = cell.cell_contents
            part.recompute_fn = around(part.recompute_fn)
            return True
    return not torch.is_grad_enabled()


def _saved_tensors_hooks() -> Any:
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


def _random_state(device: torch.device) -> bytes:
    if device.type in ("cpu", "meta"):  # where nothing is drawn
        return torch.get_rng_state().numpy().tobytes()
    state: torch.Tensor = torch.get_device_module(device).get_rng_state(device)
    return state.numpy().tobytes()
