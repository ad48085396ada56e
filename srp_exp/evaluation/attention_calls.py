"""What passes through the channel attention of a network on real images: the pooled maps and the gates.

No attention type is named, as in srp_exp.srp.finding, which tells in which calls a forward pools its map and multiplies
it: there the values are read while the network runs. With SRP or without, the plain network is looked at, in
evaluation mode.
"""

import copy
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from srp_exp.errors import UserError
from srp_exp.evaluation.evaluators import Subject
from srp_exp.srp import find_attention, remove_srp
from srp_exp.srp.calls import NamedCalls, pick
from srp_exp.srp.finding.findings import Gate

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
    poolings = [pooling for pooling in find_attention(model, example, training=False).poolings if pooling.gates]
    unseen = [pooling.module for pooling in poolings if pooling.gate is None]
    if not poolings or unseen:
        what = f"{unseen[0]}: its product isn't a call of a torch function" if unseen else type(model).__name__
        raise UserError(f"{what} has no channel attention with average pooling that could be measured")
    seen = Counter[str]()
    gates: dict[str, dict[str, Gate]] = {}  # of each module that gates, by name
    names = []
    for pooling in poolings:
        seen[pooling.module] += 1
        number = seen[pooling.module]
        names.append(pooling.module if number == 1 else f"{pooling.module}#{number}")
        assert pooling.gate is not None
        gates.setdefault(pooling.gate.home, {})[names[-1]] = pooling.gate
    for home, of_home in gates.items():
        _watch_gates(model.get_submodule(home), of_home, observe)
    return names


def _watch_gates(module: nn.Module, gates: dict[str, Gate], observe: Callable[[str, AttentionCall], None]) -> None:
    own_forward = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        inputs = _copies((args, kwargs))  # modules may work in place

        def gate_with(gate: Gate, pool: Pool) -> Tensor:
            again = _Reading(gate, pool)
            again_args, again_kwargs = _copies(inputs)
            _read([again], own_forward, again_args, again_kwargs)
            return again.gate

        readings = {name: _Reading(gate) for name, gate in gates.items()}
        output = _read(readings.values(), own_forward, args, kwargs)
        for name, reading in readings.items():
            observe(name, AttentionCall(reading.feature_map, reading.gate, partial(gate_with, gates[name])))
        return output

    module.forward = forward


def _copies(values: Any) -> Any:
    """`values`, with tensors cloned, in the containers that they are in."""
    return tree_map(lambda value: value.detach().clone() if isinstance(value, Tensor) else value, values)


class _Reading(NamedCalls):
    """Reads the pooled map and the gate of a forward, which may be given a `pool` of its own."""

    def __init__(self, gate: Gate, pool: Pool | None = None) -> None:
        calls = (gate.place.map_call, gate.call, gate.place.mean_call)
        super().__init__(0, calls, tuple(call.function for call in calls))
        self.feature_map, self.gate = torch.empty(0), torch.empty(0)
        self._gate, self._pool = gate, pool

    def on_call(self, index: int, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        place = self._gate.place
        if index == 0:
            self.feature_map = pick(args, kwargs, place.path).detach().clone()
        elif index == 1:
            self.gate = self._values(pick(args, kwargs, self._gate.path).detach())
        elif self._pool is not None:
            return self._pool(self.feature_map).reshape(self.feature_map.shape[0], *place.shape)
        return None

    def _values(self, factor: Tensor) -> Tensor:
        """The gate (B, G) of a factor (B, ...), which may be spread over the map."""
        batch, channels = self.feature_map.shape[0], self.feature_map.shape[1:-2].numel()
        gate = factor.mean((-2, -1)) if factor.numel() > batch * channels else factor.clone()
        return (1 / gate if self._gate.divides else gate).flatten(1)


def _read(readings: Collection[_Reading], forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Run the forward once, read by all of them."""
    with ExitStack() as modes:
        for reading in readings:
            reading.around = id(sys._getframe())
            modes.enter_context(reading)
        return forward(*args, **kwargs)
