"""Put SRP into the channel attention of any network, in place, and take it out again.

An attention module keeps its object, its children, its parameters and its state_dict keys. Only its class is
exchanged for a subclass of it: in training it runs the module's own torch.fx graph with the pooling replaced by that
over random regions, in evaluation the class's own forward, so that the evaluation is that of the plain network by
construction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, fx, nn

from srp_exp.errors import UserError
from srp_exp.srp.find import LOOKED_FOR, find_attention
from srp_exp.srp.pooling import Pooling
from srp_exp.srp.region import Share, StochasticRegionPool2d
from srp_exp.srp.schedule import Depth, Fixed, Schedule
from srp_exp.srp.trace import CONSTANT, ancestors, descendants
from srp_exp.srp.where import Where

_POOL = "srp_pool"


@dataclass(frozen=True)
class SrpRecord:
    """One attention module with SRP: its path and class, its depth in the network, its region scale in (0, 1]."""

    name: str
    attention: str
    depth: Depth
    scale: float
    map_size: tuple[int, int]
    """(H, W) of the pooled map in the example run."""


def apply_srp(
    model: nn.Module,
    schedule: Schedule | float,
    *,
    share: Share = "sample",
    regions: int = 1,
    where: Where | None = None,
    example_input: Tensor | None = None,
) -> list[SrpRecord]:
    """Let every channel attention module of `model` pool over random regions in training, in place.

    Args:
        model: any network; the pooling of its classifier is left alone.
        schedule: scale by depth (srp_exp.srp.schedule), or one scale in (0, 1] for all.
        share: "sample" draws a region for every image, "batch" one for the whole batch.
        regions: number of regions, >= 1, pooled together.
        where: class, or pattern of the names, of the modules to choose, or several (srp_exp.srp.where); by default all
            whose pooled value multiplies the map that it was pooled from.
        example_input: images (B, C, H, W) to run once in evaluation mode, which shows the order of the modules; by
            default two of the size that a timm model names, or 3 x 224 x 224.

    Returns:
        One record for every attention module, in the order in which they run.

    Raises:
        ValueError: nothing was found to put SRP into, or `where` chooses nothing; the model has SRP already; or a
            setting is out of range.
    """
    if srp_modules(model):
        raise UserError(f"{type(model).__name__} has SRP already: call remove_srp first")
    depth_schedule = Fixed(schedule) if isinstance(schedule, int | float) else schedule
    found = find_attention(model, _default_input(model) if example_input is None else example_input, where)
    if not found:
        raise UserError(
            f"{type(model).__name__} has no channel attention with average pooling; looked for {LOOKED_FOR}"
        )
    modules = [(name, list(poolings)) for name, poolings in groupby(found, key=lambda pooling: pooling.module)]
    stages = _stages([poolings[0].map_size for _, poolings in modules])
    depths = [Depth(index, len(modules), stage, stages[-1] + 1) for index, stage in enumerate(stages)]
    new_regions = [  # all of them, and with them every setting, before the model changes
        StochasticRegionPool2d(depth_schedule(depth), share, regions) for depth in depths
    ]
    records = []
    for depth, region, (name, poolings) in zip(depths, new_regions, modules, strict=True):
        module = model.get_submodule(name)
        records.append(SrpRecord(name, type(module).__name__, depth, region.scale, poolings[0].map_size))
        _inject(module, poolings, region)
    return records


def remove_srp(model: nn.Module) -> None:
    """Turn every attention module of `model` back into the plain one, in place; nothing is left of SRP."""
    for module in list(model.modules()):
        if isinstance(module, _WithSrp):
            delattr(module, _POOL)
            bases = type(module).__mro__  # other code may have put a class of its own on top
            module.__class__ = bases[bases.index(_WithSrp) + 1]


def srp_modules(model: nn.Module) -> dict[str, StochasticRegionPool2d]:
    """The random regions of `model` by the name of their attention module, in the order of registration."""
    return {
        name.removesuffix(_POOL).removesuffix("."): module
        for name, module in model.named_modules()
        if isinstance(module, StochasticRegionPool2d)
    }


class _WithSrp:
    """Marks a class made by `_inject`; its bases are this and the attention module's own class."""


def _inject(module: nn.Module, poolings: list[Pooling], region: StochasticRegionPool2d) -> None:
    region.train(module.training)
    module.add_module(_POOL, region.to(_device(module)))
    graph = poolings[0].graph
    for pooling in poolings:
        with graph.inserting_before(pooling.pooled):
            pooled = graph.call_module(_POOL, (pooling.feature_map,))
            if not pooling.keepdim:
                pooled = graph.call_method("reshape", (pooled, (-1, *pooling.shape)))
        replaced = sorted(descendants(pooling.feature_map) & (ancestors(pooling.pooled) | {pooling.pooled}))
        pooling.pooled.replace_all_uses_with(pooled)
        for node in reversed(replaced):  # all that only the plain pooling needed
            if not node.users:
                graph.erase_node(node)
    for node in graph.find_nodes(op="get_attr"):
        if CONSTANT in node.meta:
            region.register_buffer(str(node.target), node.meta[CONSTANT].to(_device(module)), persistent=False)
            node.target = f"{_POOL}.{node.target}"
    graph.lint()
    own_class = type(module)
    train_forward: Callable[..., Any] = type(fx.GraphModule(module, graph)).forward

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        run = train_forward if self.training else own_class.forward
        return run(self, *args, **kwargs)

    module.__class__ = type(
        own_class.__name__, (_WithSrp, own_class), {"forward": forward, "__doc__": own_class.__doc__}
    )


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _default_input(model: nn.Module) -> Tensor:
    """Two images of zeros of the size that a timm model names, else 3 x 224 x 224, on the model's device."""
    size = getattr(model, "pretrained_cfg", {}).get("input_size", (3, 224, 224))
    reference = next(model.parameters(), torch.empty(0))
    return torch.zeros(2, *size, device=reference.device, dtype=reference.dtype)


def _stages(map_sizes: list[tuple[int, int]]) -> list[int]:
    """Number the runs of equal map sizes: [(8, 8), (8, 8), (4, 4)] gives [0, 0, 1]."""
    return [stage for stage, (_, run) in enumerate(groupby(map_sizes)) for _ in run]
