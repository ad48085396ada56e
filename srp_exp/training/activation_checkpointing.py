"""Activation checkpointing: blocks compute their activations again in the backward pass instead of keeping them."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(model: nn.Module, every: int = 1) -> int:
    """Let every n-th block of `model`, from the first, keep no activations in training, in place; return how many do.

    A block is a module, not of torch.nn, in an nn.Sequential, such as the residual blocks of a stage. The numbers stay
    the same to the bit: random draws are repeated, and batch statistics are counted once. arXiv:1604.06174.
    """
    dynamo: Any = torch._dynamo.config  # what SRP notes of a step belongs to the forward pass alone
    if hasattr(dynamo, "skip_fwd_side_effects_in_bwd_under_checkpoint"):
        dynamo.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    chosen: list[str] = []
    for name, parent in model.named_modules():
        if isinstance(parent, nn.Sequential) and not any(name.startswith(f"{block}.") for block in chosen):
            inside = [f"{name}.{child}" for child, module in parent.named_children() if _is_block(module)]
            chosen += [path.removeprefix(".") for path in inside]
    for path in chosen[::every]:
        _recompute(model.get_submodule(path))
    return len(chosen[::every])


def _is_block(module: nn.Module) -> bool:
    return not type(module).__module__.startswith("torch.nn.")


def _recompute(block: nn.Module) -> None:
    own_class: Any = type(block)
    block.__class__ = _recomputing(own_class)


@cache
def _recomputing(own_class: Any) -> Any:
    """One class for all blocks of a class, so that they share what is compiled."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not (self.training and torch.is_grad_enabled()):
            return own_class.forward(self, *args, **kwargs)
        if torch.compiler.is_compiling():  # its graph has the changes of buffers once, and takes no context
            return checkpoint(own_class.forward, self, *args, use_reentrant=False, **kwargs)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _unchanged_buffers(self)

        return checkpoint(own_class.forward, self, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return type(own_class.__name__, (own_class,), {"forward": forward, "__doc__": own_class.__doc__})


@contextmanager
def _unchanged_buffers(block: nn.Module) -> Iterator[None]:
    """Undo what the second forward pass does to buffers, such as the running statistics of batch norm."""
    before = [(buffer, buffer.clone()) for buffer in block.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)
