"""The global poolings of a module, and whether their values gate the map that they were pooled from.

A node of the traced module that holds the mean over the last two axes of an earlier map is a global pooling, however it
is spelled. Where its result multiplies the map, it gates it; but a map that is multiplied by something of its own mean
square is normalized, not attended to.
"""

import operator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from srp_exp.srp.trace import ValueTracer, ancestors, descendants, random_like

MULTIPLY = {operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"}

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a call."""


@dataclass(frozen=True)
class Pooling:
    """A global pooling that gates its own map: in `graph`, `pooled` is the spatial mean of `feature_map`.

    `module` names the pooling module in the network, `shape` is that of `pooled` without the batch, such as (C, 1, 1),
    `keepdim` tells whether its axes are those of the map, `map_size` is (H, W) in the example run. Where `gates` is
    False, something else than a product brings the pooled value back to the map: it is attention if the user says so.
    """

    module: str
    graph: fx.Graph
    feature_map: fx.Node
    pooled: fx.Node
    shape: tuple[int, ...]
    keepdim: bool
    map_size: tuple[int, int]
    gates: bool = True


def trace_poolings(module: nn.Module, inputs: Inputs, device: torch.device) -> "PoolingTracer | None":
    """Trace on random input of the recorded shapes, and of maps of 5 x 7 or more; None if torch.fx can't.

    A small example makes small maps. On one of 1 x 1 every value would be its own mean: the larger shows the poolings.
    On one of 2 x 2 a local pooling is the mean too: the value of a global one is of the same shape on a larger map.
    """
    traced = _trace(module, inputs, device)
    enlarged = tree_map(_enlarged, inputs)
    larger = None if _shapes(enlarged) == _shapes(inputs) else _trace(module, enlarged, device)
    if larger is None:
        return traced
    if traced is None or not traced.poolings:
        larger.example = traced
        return larger
    shapes = {node.name: _shapes(value) for node, value in larger.values.items()}
    traced.poolings = [
        (map_, pooled)
        for map_, pooled in traced.poolings
        if shapes.get(pooled.name) in (None, _shapes(traced.values[pooled]))
    ]
    larger.forget()
    return traced


def _trace(module: nn.Module, inputs: Inputs, device: torch.device) -> "PoolingTracer | None":
    generator = torch.Generator().manual_seed(0)
    tracer = PoolingTracer()
    if tracer.run(module, *tree_map(partial(_random, generator=generator, device=device), inputs)):
        return tracer
    tracer.forget()
    return None


def _enlarged(value: Any) -> Any:
    """`value`; where it is a map (B, ..., H, W), of at least 5 x 7."""
    if not _is_float(value) or value.dim() < 4:
        return value
    return value.new_empty(*value.shape[:-2], max(value.shape[-2], 5), max(value.shape[-1], 7))


def _random(value: Any, generator: torch.Generator, device: torch.device) -> Any:
    return random_like(value, generator).to(device) if isinstance(value, Tensor) else value


def _shapes(values: Any) -> list[torch.Size]:
    return [leaf.shape for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class PoolingTracer(ValueTracer):
    """Notes each `(feature_map, pooled)` where the value of `pooled` is the mean of `feature_map` over H and W."""

    def __init__(self) -> None:
        super().__init__()
        self.poolings: list[tuple[fx.Node, fx.Node]] = []
        self.example: PoolingTracer | None = None
        """The tracer of the same module on the maps of the example run, where this one's are enlarged."""

    def forget(self) -> None:
        super().forget()
        if self.example is not None:
            self.example.forget()

    def observe(self, node: fx.Node) -> None:
        if node.op in ("placeholder", "get_attr") or not _is_float(self.values[node]):
            return
        before = ancestors(node)
        for candidate in sorted(before, reverse=True):  # the last map before the pooling
            if _is_map(self.values[candidate]) and _is_mean(self.values[node], self.values[candidate]):
                if not any(m is candidate and p in before for m, p in self.poolings):  # not a mere view of it
                    self.poolings.append((candidate, node))
                return

    def gates(self, source: fx.Node, feature_map: fx.Node) -> bool:
        """Whether something computed from `source` multiplies `feature_map` or a map that belongs to it."""
        computed = {source} | descendants(source)
        related = {feature_map} | ancestors(feature_map) | descendants(feature_map)
        pooled = self.values[feature_map]
        for node in computed:
            if node.target in MULTIPLY:
                multiplied = [self.values[n] for n in node.all_input_nodes if n in related - computed]
                if any(_is_map_as(pooled, value) and not _is_square(pooled, value) for value in multiplied):
                    return True
        return False

    def joins(self, source: fx.Node, feature_map: fx.Node) -> bool:
        """Whether something computed from `source` is a map of the size of `feature_map` again."""
        pooled = self.values[feature_map]
        return any(_is_map_as(pooled, self.values.get(node)) for node in descendants(source))

    def describe(self, name: str, feature_map: fx.Node, pooled: fx.Node) -> Pooling:
        values = self.values if self.example is None else self.example.values
        in_example = {node.name: value for node, value in values.items()}
        height, width = in_example.get(feature_map.name, self.values[feature_map]).shape[-2:]
        shape = self.values[pooled].shape
        keepdim = shape == (*self.values[feature_map].shape[:-2], 1, 1)
        return Pooling(name, self.graph, feature_map, pooled, tuple(shape[1:]), keepdim, (height, width))


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_map(value: Any) -> bool:
    """Whether `value` is a float tensor (B, ..., H, W), with H and W above 1: (B, C, 1, H*W) has no regions."""
    return _is_float(value) and value.dim() >= 4 and min(value.shape[-2:]) > 1


def _is_map_as(feature_map: Tensor, value: Any) -> bool:
    """Whether `value` is a map of the height and width of `feature_map`."""
    return _is_map(value) and value.shape[-2:] == feature_map.shape[-2:]


def _is_square(value: Tensor, feature_map: Tensor) -> bool:
    """Whether `value` is the square of `feature_map`, or of what is left of it without its mean over H and W."""
    if value.shape != feature_map.shape or not value.any():
        return False
    centred = feature_map - feature_map.mean((-2, -1), keepdim=True)
    return any(torch.allclose(value, map_.square(), rtol=1e-2, atol=1e-4) for map_ in (feature_map, centred))


def _is_mean(value: Tensor, feature_map: Tensor) -> bool:
    """Whether `value` holds, in any shape that begins with B, the mean of `feature_map` (B, ..., H, W) over H and W."""
    if value.shape[:1] != feature_map.shape[:1] or value.numel() != feature_map.shape[:-2].numel():
        return False
    mean = feature_map.mean((-2, -1))
    return torch.allclose(value.flatten().float(), mean.flatten().float(), rtol=1e-2, atol=1e-4)
