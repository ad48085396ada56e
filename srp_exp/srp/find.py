"""Find the channel attention of a network: modules whose pooled value gates the map that it was pooled from.

No attention type is named: srp_exp.srp.pooling looks at each module's values. Where a module only computes the gate,
its parent is seen to multiply with it. The pooling in front of a classifier multiplies nothing, so it is never found.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from srp_exp.srp.pooling import Inputs, Pooling, trace_poolings
from srp_exp.srp.trace import to_meta
from srp_exp.srp.where import Where, choose

LOOKED_FOR = (
    "a module that averages a map (B, C, H, W) over H and W, in any spelling, and multiplies the map by something "
    "computed from the average, as SE, ESE, ECA, CECA, CBAM, GE, SK and split attention do"
)


def find_attention(model: nn.Module, example_input: Tensor, where: Where | None = None) -> list[Pooling]:
    """Return the poolings of the channel attention modules of `model`, in the order in which they run.

    `example_input` (B, C, H, W) is run through the model once, in evaluation mode: no parameter, statistic or random
    state changes. `where` chooses among the modules: see srp_exp.srp.where. A model on the meta device will do.
    """
    training = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]  # a norm of timm counts the batch while traced
    try:
        with torch.no_grad(), torch.random.fork_rng():
            model.eval()
            calls = _record_calls(model, example_input)
            if where is None:  # nothing gates a map without a product: most modules needn't be traced
                calls = {name: call for name, call in calls.items() if call.multiplies or calls[call.caller].multiplies}
            device = torch.device("cpu") if example_input.is_meta else example_input.device
            return choose(model, _find(model, calls, device), where)
    finally:
        for module, mode in training.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@dataclass
class _Call:
    """First call of a module: its arguments on the meta device, the module that made it, whether it multiplies maps."""

    inputs: Inputs
    caller: str
    multiplies: bool = False


class _MapProducts(TorchDispatchMode):
    """Notes, in the calls, where two tensors (B, ..., H, W) are multiplied, as a map and its gate are."""

    def __init__(self, calls: dict[str, _Call], running: list[str]) -> None:
        super().__init__()
        self.calls, self.running = calls, running

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mul, torch.ops.aten.mul_):
            batches = [factor.shape[0] for factor in args if isinstance(factor, Tensor) and factor.dim() >= 4]
            self.calls[self.running[-1]].multiplies |= len(batches) == 2 and batches[0] == batches[1]
        return func(*args, **(kwargs or {}))


def _record_calls(model: nn.Module, example_input: Tensor) -> dict[str, _Call]:
    """The calls of every module not of torch.nn in one run of the model, by name, in their order."""
    calls: dict[str, _Call] = {}
    running: list[str] = []
    handles = []

    def hook(name: str, module: nn.Module) -> None:
        def begin(_: nn.Module, *call: Any) -> None:
            calls.setdefault(name, _Call(tree_map(to_meta, call), running[-1] if running else name))
            running.append(name)

        def end(*_: Any) -> None:
            running.pop()

        handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        handles.append(module.register_forward_hook(end))

    for name, module in model.named_modules():
        if not name or not type(module).__module__.startswith("torch.nn."):
            hook(name, module)
    try:
        with _MapProducts(calls, running):
            model(example_input)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _find(model: nn.Module, calls: dict[str, _Call], device: torch.device) -> list[Pooling]:
    gating: dict[str, list[Pooling]] = {}
    others: dict[str, list[Pooling]] = {}  # their result may leave the module: its parent may gate with it
    joined: set[str] = set()  # modules of `others` whose result comes back to its map
    for name in sorted(calls, key=lambda name: -len(name.split(".")) if name else 0):  # children before parents
        tracer = trace_poolings(model.get_submodule(name), calls[name].inputs, device)
        if tracer is None:
            continue
        for feature_map, pooled in tracer.poolings:
            pooling = tracer.describe(name, feature_map, pooled)
            if pooled.op == "call_module":  # a child that does nothing but pool: this module is the attention
                others.pop(_path(name, pooled), None)
            (gating if tracer.gates(pooled, feature_map) else others).setdefault(name, []).append(pooling)
            if tracer.joins(pooled, feature_map):
                joined.add(name)
        for node in tracer.graph.find_nodes(op="call_module"):
            child = _path(name, node)
            if child not in others or not node.args or not isinstance(node.args[0], fx.Node):
                continue
            if tracer.gates(node, node.args[0]):
                gating.setdefault(child, []).extend(others.pop(child))
            elif tracer.joins(node, node.args[0]):
                joined.add(child)
        tracer.forget()
    for name in joined:
        gating.setdefault(name, []).extend(replace(pooling, gates=False) for pooling in others.get(name, []))
    return [pooling for name in calls for pooling in gating.get(name, [])]


def _path(parent: str, call: fx.Node) -> str:
    """Path in the model of the child of `parent` that the node `call` calls."""
    return f"{parent}.{call.target}" if parent else str(call.target)
