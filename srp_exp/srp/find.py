"""Find the channel attention of a network: modules whose pooled value gates the map that it was pooled from.

No attention type is named. A module is run on random input while torch.fx traces it; a node that holds the mean
over the last two axes of an earlier map is a global pooling, however it is spelled; and where its result multiplies
the map, it is attention. The pooling in front of a classifier multiplies nothing, so it is never found.
"""

import operator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from srp_exp.srp.trace import ValueTracer, ancestors, descendants

LOOKED_FOR = (
    "a module that averages a map (B, C, H, W) over H and W, in any spelling, and multiplies the map by something "
    "computed from the average, as SE, ESE, ECA, CECA, CBAM, GE, SK and split attention do"
)
_MULTIPLY = {operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"}


Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a call."""


@dataclass(frozen=True)
class Pooling:
    """A global pooling that gates its own map: in `graph`, `pooled` is the spatial mean of `feature_map`.

    `module` names the pooling module in the network, `shape` is that of `pooled` without the batch, such as (C, 1, 1),
    `keepdim` tells whether its axes are those of the map, `map_size` is (H, W) in the example run.
    """

    module: str
    graph: fx.Graph
    feature_map: fx.Node
    pooled: fx.Node
    shape: tuple[int, ...]
    keepdim: bool
    map_size: tuple[int, int]


def find_attention(model: nn.Module, example_input: Tensor) -> list[Pooling]:
    """Return the poolings of the channel attention modules of `model`, in the order in which they run.

    `example_input` (B, C, H, W) is run through the model once, in evaluation mode: no parameter, statistic or random
    state changes.
    """
    training = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # a norm of timm counts the batch while traced
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model.eval()
            inputs = _record_inputs(model, example_input)
            return _find(model, inputs, example_input.device)
    finally:
        for module, mode in training.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _record_inputs(model: nn.Module, example_input: Tensor) -> dict[str, Inputs]:
    """Arguments, on the meta device, of every module not of torch.nn, in the order of the calls in one run."""
    inputs: dict[str, Inputs] = {}

    def hook(name: str) -> Any:
        def record(_: nn.Module, *call: Any) -> None:
            inputs.setdefault(name, tree_map(lambda a: a.to("meta") if isinstance(a, Tensor) else a, call))

        return record

    handles = [
        module.register_forward_pre_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
        if not type(module).__module__.startswith("torch.nn.")
    ]
    try:
        model(example_input)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


def _find(model: nn.Module, inputs: dict[str, Inputs], device: torch.device) -> list[Pooling]:
    found: dict[str, list[Pooling]] = {}
    ungated: dict[str, list[Pooling]] = {}  # their result leaves the module: its parent may gate with it
    for name in sorted(inputs, key=lambda name: -len(name.split(".")) if name else 0):  # children before parents
        tracer = _trace(model.get_submodule(name), inputs[name], device)
        if tracer is None:
            continue
        for feature_map, pooled in tracer.poolings:
            pooling = tracer.describe(name, feature_map, pooled)
            (found if tracer.gates(pooled, feature_map) else ungated).setdefault(name, []).append(pooling)
        for node in tracer.graph.find_nodes(op="call_module"):
            child = f"{name}.{node.target}" if name else node.target
            if child in ungated and node.args and tracer.gates(node, node.args[0]):
                found.setdefault(child, []).extend(ungated.pop(child))
    return [pooling for name in inputs for pooling in found.get(name, [])]


def _trace(module: nn.Module, inputs: Inputs, device: torch.device) -> "_PoolingTracer | None":
    """Trace on random input of the recorded shapes; where that shows no pooling, with maps of 5 x 7 or more.

    On a 1 x 1 map, such as a deep stage makes of a small example, every value would be its own mean.
    """
    generator = torch.Generator().manual_seed(0)

    def random(height: int, width: int, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        shape = list(value.shape)
        if len(shape) >= 4:
            shape[-2:] = max(shape[-2], height), max(shape[-1], width)
        return torch.randn(shape, generator=generator).to(device, value.dtype)

    traced = None
    for smallest in ((1, 1), (5, 7)):
        tracer = _PoolingTracer(example=traced)
        if tracer.run(module, *tree_map(partial(random, *smallest), inputs)):
            traced = tracer
            if tracer.poolings:
                break
    return traced


class _PoolingTracer(ValueTracer):
    """Notes each `(feature_map, pooled)` where the value of `pooled` is the mean of `feature_map` over H and W."""

    def __init__(self, example: ValueTracer | None = None) -> None:
        """`example` traced the same module on the maps of the example run, where this one's are enlarged."""
        super().__init__()
        self.poolings: list[tuple[fx.Node, fx.Node]] = []
        self.example = self if example is None else example

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
        size = self.values[feature_map].shape[-2:]
        for node in computed:
            if node.target in _MULTIPLY:
                others = [n for n in node.all_input_nodes if n not in computed]
                maps = [self.values[n] for n in others if n in related and _is_map(self.values[n])]
                if any(m.shape[-2:] == size for m in maps):
                    return True
        return False

    def describe(self, name: str, feature_map: fx.Node, pooled: fx.Node) -> Pooling:
        in_example = {node.name: value for node, value in self.example.values.items()}
        height, width = in_example.get(feature_map.name, self.values[feature_map]).shape[-2:]
        shape = self.values[pooled].shape
        keepdim = shape == (*self.values[feature_map].shape[:-2], 1, 1)
        return Pooling(name, self.graph, feature_map, pooled, tuple(shape[1:]), keepdim, (height, width))


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_map(value: Any) -> bool:
    """Whether `value` is a float tensor (B, ..., H, W), with H and W above 1: (B, C, 1, H*W) has no regions."""
    return _is_float(value) and value.dim() >= 4 and min(value.shape[-2:]) > 1


def _is_mean(value: Tensor, feature_map: Tensor) -> bool:
    """Whether `value` holds, in any shape that begins with B, the mean of `feature_map` (B, ..., H, W) over H and W."""
    if value.shape[:1] != feature_map.shape[:1] or value.numel() != feature_map.shape[:-2].numel():
        return False
    mean = feature_map.mean((-2, -1))
    return torch.allclose(value.flatten().float(), mean.flatten().float(), rtol=1e-2, atol=1e-4)
