"""What a run of a module consists of: values, calls of modules and functions, means of maps, products of maps."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.utils._pytree import tree_map

from srp_exp.srp.calls import Path


class Node:
    """A value. `before` has a bit for each value that it was computed from; `data`: it depends on the input.

    `near`: those of `before` that no sum over positions or channels of a map that varies over H and W lies between.
    """

    __slots__ = ("before", "data", "frame", "index", "mean", "near", "shape", "spread", "squares")

    def __init__(self, index: int, before: int, data: bool, shape: torch.Size, frame: "Frame | None") -> None:
        self.index, self.before, self.data, self.shape, self.frame = index, before, data, shape, frame
        self.near = before
        self.mean: Tensor | None = None  # of a map that a function was called with, over H and W, flattened
        self.squares: list[Tensor] = []  # of a map that is multiplied: the means of its square and centred square
        self.spread = 0.0

    def comes_from(self, other: "Node") -> bool:
        return self is other or bool(self.before >> other.index & 1)

    def is_related_to(self, other: "Node") -> bool:
        return self.comes_from(other) or other.comes_from(self)


@dataclass(eq=False)
class Frame:
    """A call of a module, in the call of another one; `args` and `kwargs` are copies of its own from before it ran."""

    module: nn.Module
    name: str
    outer: "Frame | None"
    args: Any = ()
    kwargs: Any = None
    only_pools: bool = False
    """Whether its result is a mean that was taken in it."""

    def chain(self) -> "list[Frame]":
        """This and the frames around it, innermost first."""
        return [self, *(self.outer.chain() if self.outer else [])]

    def common(self, other: "Frame") -> "Frame":
        """The innermost frame around both."""
        around = other.chain()
        return next(frame for frame in self.chain() if frame in around)


@dataclass(eq=False)
class FunctionCall:
    function: Any
    frame: Frame
    tensors: list[tuple[Path, Node]]
    checkpointed: Any
    """Python's frame of the checkpointed part of the forward that the call is made in, or None."""


@dataclass(eq=False)
class Mean:
    """A value that holds the mean of a map; `call` is None where no call of a torch function in Python made it."""

    map: Node
    value: Node
    call: FunctionCall | None
    frame: Frame
    shape: tuple[int, ...] = ()
    """Of what the call returns."""


@dataclass(eq=False)
class Product:
    """A map times a factor. `number` counts the products of the run."""

    number: int
    map: Node
    factor: Node
    call: FunctionCall | None
    frame: Frame
    is_smaller: bool
    divides: bool
    value: Tensor | None = None
    """Of the factor, where the run keeps it."""


def gates(mean: Mean, product: Product) -> bool:
    """Whether the factor comes from the mean, and the map that it multiplies doesn't but belongs to the pooled one.

    What a convolution makes of maps and the mean together, as behind ASPP, is a gate of these maps.
    """
    return (
        (product.factor is mean.value or bool(product.factor.near >> mean.value.index & 1))
        and not product.map.comes_from(mean.value)
        and product.map.is_related_to(mean.map)
        and (product.map.shape[-2:] == mean.map.shape[-2:] or product.map.shape.numel() == mean.map.shape.numel())
    )


def pools_square(mean: Mean, product: Product) -> bool:
    """Whether what was pooled is the square of the map that is multiplied, centred or not: a norm does so."""
    pooled = mean.map.mean
    return pooled is not None and any(
        pooled.shape == square.shape and close(pooled, square, 1e-6 * float(square.abs().amax()))
        for square in product.map.squares
    )


def is_of_torch(module: nn.Module) -> bool:
    return type_before_parametrizations(module).__module__.startswith("torch.nn.")


def is_map(value: Any) -> bool:
    """Whether `value` is a float tensor (N, ..., H, W), with H and W above 1: (N, C, 1, H*W) has no regions."""
    is_tensor = isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0
    return is_tensor and value.dim() >= 4 and min(value.shape[-2:]) > 1


def copies(values: Any) -> Any:
    """`values`, with tensors cloned, in the containers that they are in."""
    return tree_map(lambda value: value.detach().clone() if isinstance(value, Tensor) else value, values)


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool((one - other).abs().amax() <= tolerance)


def tensors_in(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """The tensors in tuples, lists and dictionaries, each with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors_in(inner, (*path, key))
    elif isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from tensors_in(inner, (*path, index))
