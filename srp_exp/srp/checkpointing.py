"""Activation checkpointing (torch.utils.checkpoint): blocks whose forward runs again, in the backward pass.

They must pool over the regions of their first run. Which pass that was is told by the state of the random generator,
which checkpointing restores.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointFunction, checkpoint

from srp_exp.srp.region import Numbers

_PASSES_KEPT = 64
"""Forward passes, each of all modules, whose regions are kept."""


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
    """What `modules` took in their last forward passes; each is named by its index."""

    def __init__(self, modules: Sized) -> None:
        self._modules = modules
        self._passes: OrderedDict[tuple[int, bytes], _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._passes)

    def keep(self, index: int, device: torch.device, take: Callable[[], Numbers]) -> Numbers:
        """What `take` returns, kept where checkpointing may compute the block again; `device` is that of the map."""
        if _saved_tensors_hooks() is None and torch.is_grad_enabled():  # no checkpointing around this call
            return take()
        key = (index, _random_state(device))
        numbers, known = take(), self._passes.pop(key, None)
        self._passes[key] = _Kept(numbers if known is None or known.is_told_from(numbers) else None)
        while len(self._passes) > _PASSES_KEPT * len(self._modules):
            self._passes.popitem(last=False)
        return numbers

    def again(self, index: int, device: torch.device, is_whole: bool) -> Numbers | None:
        """What a module took in the forward pass that is computed again; None where it pooled all of the map.

        is_whole: whether it does now. Raises RuntimeError where the pass isn't known.
        """
        kept = self._passes.get((index, _random_state(device)))
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
    return sum(frame.f_code is checkpoint.__code__ for frame in _frames(forward))


def innermost_part(forward: CodeType) -> Any:
    """Python's frame of the innermost torch.utils.checkpoint that the present call is in, below that of `forward`."""
    of_torch = checkpoint.__code__.co_filename
    return next((frame for frame in _frames(forward) if frame.f_code.co_filename == of_torch), None)


def follow_checkpoint(forward: CodeType, around: Callable[[Any], Any]) -> bool:
    """Put `around` on the part that the present call is in, below the frame of `forward`, for when it runs again.

    False where it will, and this version of torch shows no way.
    """
    for frame in _frames(forward):
        if frame.f_code is CheckpointFunction.forward.__code__:
            context = frame.f_locals["ctx"]
            context.run_function = around(context.run_function)
            return True
    hooks = _saved_tensors_hooks()
    for cell in getattr(hooks and hooks[0], "__closure__", None) or ():
        if hasattr(cell.cell_contents, "recompute_fn"):
            part = cell.cell_contents
            part.recompute_fn = around(part.recompute_fn)
            return True
    return not torch.is_grad_enabled()


def _frames(forward: CodeType) -> Iterator[FrameType]:
    """Python's frames from that of the caller up to that of `forward`, which isn't among them."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not forward:
        yield frame
        frame = frame.f_back


def _saved_tensors_hooks() -> Any:
    return torch._C._autograd._top_saved_tensors_default_hooks(False)


def _random_state(device: torch.device) -> bytes:
    if device.type in ("cpu", "meta"):  # where nothing is drawn
        return torch.get_rng_state().numpy().tobytes()
    state: torch.Tensor = torch.get_device_module(device).get_rng_state(device)
    return state.numpy().tobytes()
