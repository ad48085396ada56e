"""What passes through the channel attention of a network on real images: the pooled maps and the gates.

No attention type is named, as in srp_exp.srp.find, which finds the poolings: the module's torch.fx graph is run
beside the module, and the values of its nodes are read. With SRP or without, the plain network is looked at, in
evaluation mode.
"""

import copy
import inspect
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from srp_exp.errors import UserError
from srp_exp.evaluation.evaluators import Subject
from srp_exp.srp import find_attention, remove_srp
from srp_exp.srp.pooling import MULTIPLY, Pooling
from srp_exp.srp.trace import ancestors, descendants

Pool = Callable[[Tensor], Tensor]
"""Pools a map (B, ..., H, W) to (B, ..., 1, 1)."""


@dataclass(frozen=True)
class AttentionCall:
    """One batch in one attention module.

    feature_map: (B, ..., H, W), what is pooled. gate: (B, G), what multiplies the map, without axes along which it is
    spread; one value for each channel, and for each branch where the module has several. gate_with: the gate that the
    module would make of another pooling.
    """

    feature_map: Tensor
    gate: Tensor
    gate_with: Callable[[Pool], Tensor]


class Measure(Protocol):
    """Sums something up over the batches of one attention module."""

    def add(self, call: AttentionCall, labels: Tensor) -> None:
        """Take in a batch; labels: (B,) int64."""

    def values(self) -> dict[str, float]:
        """The measures, NaN where one is undefined."""


def measure_attention(subject: Subject, new: Callable[[], Measure]) -> dict[str, Any]:
    """Measure every channel attention module over all batches, each with a Measure of its own.

    Returns {"summary": the mean over the modules, "modules": {name of the module: values}}, in the order in which the
    modules run; a second pooling of a module is named <module>#2. Raises ValueError where the network has none.
    """
    model = copy.deepcopy(subject.model).eval()
    remove_srp(model)
    measures: dict[str, Measure] = {}
    labels = torch.empty(0)

    def observe(name: str, call: AttentionCall) -> None:
        measures[name].add(call, labels)

    with torch.no_grad():
        for batch in subject.batches():
            if not measures:
                measures = {name: new() for name in _watch(model, batch.images[:2], observe)}
            labels = batch.labels
            with subject.autocast:
                model(batch.images)
    modules = {name: measure.values() for name, measure in measures.items()}
    return {"summary": _means(list(modules.values())), "modules": modules}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each value over the rows in which it is defined."""
    columns = {key: [row[key] for row in rows if row[key] == row[key]] for key in rows[0]}
    return {key: statistics.fmean(column) if column else float("nan") for key, column in columns.items()}


def _watch(model: nn.Module, example: Tensor, observe: Callable[[str, AttentionCall], None]) -> list[str]:
    """Let every attention module of `model` tell `observe` of its calls, from now on; returns the names."""
    poolings = find_attention(model, example)
    if not poolings:
        raise UserError(f"{type(model).__name__} has no channel attention with average pooling that could be measured")
    names, seen = [], Counter[str]()
    for pooling in poolings:
        seen[pooling.module] += 1
        number = seen[pooling.module]
        names.append(pooling.module if number == 1 else f"{pooling.module}#{number}")
        _watch_pooling(model.get_submodule(pooling.module), pooling, names[-1], observe)
    return names


def _watch_pooling(
    module: nn.Module, pooling: Pooling, name: str, observe: Callable[[str, AttentionCall], None]
) -> None:
    own_forward = module.forward
    signature = inspect.signature(own_forward)

    @wraps(own_forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()

        def run(pool: Pool | None = None) -> "_Reader":
            inputs = tree_map(lambda a: a.clone() if isinstance(a, Tensor) else a, dict(bound.arguments))
            return _Reader(module, pooling, inputs, pool)  # on copies: modules may work in place

        reader = run()
        observe(name, AttentionCall(reader.feature_map, reader.gate, lambda pool: run(pool).gate))
        output = own_forward(*args, **kwargs)
        _check_same(name, reader.result, output)
        return output

    module.forward = forward


def _check_same(name: str, traced: Any, output: Any) -> None:
    """The graph is that of training: raise ValueError where it doesn't compute what the module does in evaluation."""
    if isinstance(output, Tensor) and not torch.allclose(traced, output, rtol=1e-2, atol=1e-3, equal_nan=True):
        raise UserError(f"{name}: computes otherwise in training than in evaluation, so it can't be measured")


class _Reader(fx.Interpreter):
    """Runs the graph of a pooling, with another `pool` if one is given, and keeps the pooled map, gate and result.

    The gate is the first thing computed from the pooled value that multiplies the map, or a map of its size that
    belongs to it; where the module multiplies nothing itself, it is the module's output, as its parent multiplies.
    """

    def __init__(self, module: nn.Module, pooling: Pooling, inputs: dict[str, Any], pool: Pool | None) -> None:
        super().__init__(module, graph=pooling.graph)
        self.feature_map, self.gate = torch.empty(0), torch.empty(0)
        self._pooling, self._pool = pooling, pool
        self._computed = {pooling.pooled} | descendants(pooling.pooled)
        start = pooling.feature_map
        self._related = ({start} | ancestors(start) | descendants(start)) - self._computed
        self._has_gate = False
        placeholders = pooling.graph.find_nodes(op="placeholder")
        self.result = self.run(*[inputs[str(node.target)] for node in placeholders])

    def run_node(self, n: fx.Node) -> Any:
        if not self._has_gate and (gate := self._gate_of(n)) is not None:
            self._keep_gate(gate)
        value = super().run_node(n)
        if n is self._pooling.feature_map:
            self.feature_map = value.clone()  # before anything works on it in place
        if n is self._pooling.pooled and self._pool is not None:
            value = self._pool(self.feature_map).reshape(value.shape)
        return value

    def _gate_of(self, node: fx.Node) -> fx.Node | None:
        """The input of `node` that gates the map; of the output the one that was computed from the pooled value."""
        sources = [n for n in node.all_input_nodes if n in self._computed]
        if not sources:
            return None
        if node.op == "output":
            return sources[-1]
        maps = [self.env[n] for n in node.all_input_nodes if n in self._related]
        sized = [m for m in maps if isinstance(m, Tensor) and m.dim() >= 4]
        gates = node.target in MULTIPLY and any(m.shape[-2:] == self.feature_map.shape[-2:] for m in sized)
        return sources[0] if gates else None

    def _keep_gate(self, node: fx.Node) -> None:
        gate = self.env[node]
        spread = gate.dim() >= 4 and self.feature_map.dim() >= 4
        self.gate = (gate.mean((-2, -1)) if spread else gate.clone()).flatten(1)
        self._has_gate = True
