"""Put SRP into the channel attention of any network, in place, and take it out again."""

from dataclasses import dataclass
from itertools import groupby
from numbers import Real
from typing import Any

from torch import Tensor, nn

from srp_exp.errors import UserError
from srp_exp.srp.choose import Where, choose
from srp_exp.srp.control import srp_modules
from srp_exp.srp.finding.find import LOOKED_FOR, find_attention
from srp_exp.srp.finding.findings import LeftOut, Pooling
from srp_exp.srp.pool import RegionPool
from srp_exp.srp.region import RegionPlacement, Share
from srp_exp.srp.schedule import Depth, Fixed, Linear, Schedule
from srp_exp.srp.with_srp import WithSrp, is_parametrized_since, put_into, take_out_of

OTHER_WAY = "brings its mean back to the map in another way than by a product: where=... chooses it by name or class"


@dataclass(frozen=True)
class SrpRecord:
    """One attention module with SRP: its path and class, its depth in the network, its region scale in (0, 1]."""

    name: str
    attention: str
    depth: Depth
    scale: float
    map_size: tuple[int, int]
    """(H, W) of the pooled map in the example run."""


class SrpRecords(list[SrpRecord]):
    """The attention modules with SRP, in the order in which they run.

    `left_out`: what multiplies a map by something smaller too, but has no SRP, each with the reason.
    """

    def __init__(self, records: list[SrpRecord], left_out: list[LeftOut]) -> None:
        super().__init__(records)
        self.left_out = left_out


def apply_srp(
    model: nn.Module,
    schedule: Schedule | float | None = None,
    *,
    share: Share = "sample",
    regions: int = 1,
    placement: RegionPlacement = "corner",
    where: Where | None = None,
    example_input: Tensor | None = None,
) -> SrpRecords:
    """Let every channel attention module of `model` pool over random regions in training, in place.

    Args:
        model: any network; the pooling of its classifier is left alone.
        schedule: scale by depth (srp_exp.srp.schedule), or one scale in (0, 1] for all; by default Linear(1.0, 0.5).
        share: "sample" draws a region for every image, "batch" one for the whole batch.
        regions: number of regions, >= 1, pooled together.
        placement: "corner" puts regions anywhere inside the map, "wrap" lets them continue at the opposite edge, so
            that every position is covered alike.
        where: class, or pattern of the names, of the modules to choose, or several (srp_exp.srp.choose); by default all
            whose pooled value multiplies the map that it was pooled from.
        example_input: images (B, C, H, W) of the size to train on; by default of the size that a timm model names, or
            the first usual size that the model takes.

    Returns:
        One record for every attention module, in the order in which they run; `left_out` lists what looked like it.

    Raises:
        UserError: nothing was found to put SRP into, or `where` chooses nothing; the model has SRP already; it can't be
            run on the example; or a setting is out of range.

    Example:
        >>> import timm, torch
        >>> network = timm.create_model("seresnet18")
        >>> records = apply_srp(network, Linear(1.0, 0.5), example_input=torch.zeros(2, 3, 64, 64))
        >>> [(record.name, record.scale) for record in records][-1]
        ('layer4.1.se', 0.5)
    """
    if srp_modules(model):
        raise UserError(f"{type(model).__name__} has SRP already: call remove_srp first")
    RegionPool(1.0, share, regions, placement)  # refuses settings before the search
    findings = find_attention(model, example_input)
    chosen = choose(model, findings.poolings, where)
    left_out = findings.left_out + [
        LeftOut(pooling.module, pooling.kind, OTHER_WAY)
        for pooling in findings.poolings
        if not pooling.gates and pooling not in chosen
    ]
    by_module: dict[str, list[Pooling]] = {}
    for pooling in chosen:
        by_module.setdefault(pooling.module, []).append(pooling)
    if not by_module:
        seen = "".join(f"; left out: {one}" for one in left_out[:3])
        raise UserError(
            f"{type(model).__name__} has no channel attention with average pooling; looked for {LOOKED_FOR}{seen}"
        )
    scale_of = _schedule(schedule)
    stages = _stages([poolings[0].map_size for poolings in by_module.values()])
    depths = [Depth(index, len(stages), stage, stages[-1] + 1) for index, stage in enumerate(stages)]
    pools = [
        RegionPool(scale_of(depth), share, regions, placement) for depth in depths
    ]  # all, before the model changes
    if len(pools) == 1 and pools[0].scale == 1 and isinstance(scale_of, Linear) and scale_of.last != 1:
        raise UserError(
            f"{scale_of}: the only attention module, {next(iter(by_module))!r}, has the scale first=1.0, so that SRP "
            f"would do nothing: give one scale, such as 0.5"
        )
    records = []
    for depth, pool, (name, poolings) in zip(depths, pools, by_module.items(), strict=True):
        pool.map_size, pool.is_folded = poolings[0].map_size, all(pooling.is_folded for pooling in poolings)
        pool.pools_several = any(pooling.pools_several for pooling in poolings)
        records.append(SrpRecord(name, poolings[0].kind, depth, pool.scale, poolings[0].map_size))
        try:
            put_into(model.get_submodule(name), pool, tuple(pooling.place for pooling in poolings))
        except Exception as error:  # of a metaclass, say
            remove_srp(model)
            raise UserError(
                f"{name or 'the model'} is a {poolings[0].kind}, a class from which none with SRP can be derived "
                f"({error}): let nn.Module come first among its bases, or choose others with where=..."
            ) from error
    folded = [pool for pool in pools if pool.is_folded]
    if folded:
        model.register_forward_pre_hook(_CountImages(folded))
    return SrpRecords(records, left_out)


class _CountImages:
    """A hook of the model that tells its `pools` how many images it is given."""

    def __init__(self, pools: list[RegionPool]) -> None:
        self._pools = pools

    def __call__(self, _: nn.Module, args: Any) -> None:
        for pool in self._pools:
            pool.images = args[0].shape[0] if args and isinstance(args[0], Tensor) else 0


def remove_srp(model: nn.Module) -> None:
    """Turn every attention module of `model` back into the plain one, in place.

    A model without SRP stays as it is.

    Args:
        model: a network that apply_srp has changed; its weights and buffers are kept.

    Raises:
        UserError: a module was parametrized since apply_srp, which would be lost.

    Example:
        >>> import timm, torch
        >>> network = timm.create_model("seresnet18")
        >>> _ = apply_srp(network, 0.5, example_input=torch.zeros(2, 3, 64, 64))
        >>> remove_srp(network)
        >>> srp_modules(network)
        {}
    """
    for name, module in model.named_modules():
        if is_parametrized_since(module):
            raise UserError(
                f"{name or 'the model'} was parametrized since apply_srp: undo that first, by "
                f"torch.nn.utils.parametrize.remove_parametrizations"
            )
    for module in list(model.modules()):
        if isinstance(module, WithSrp):
            take_out_of(module)
        for number, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _CountImages):
                del module._forward_pre_hooks[number]


def _schedule(schedule: Schedule | float | None) -> Schedule:
    if schedule is None:
        return Linear()
    if isinstance(schedule, Real):
        return Fixed(float(schedule))
    if not callable(schedule):
        raise UserError(f"schedule={schedule!r} is neither a scale in (0, 1] nor a schedule, such as Linear(1.0, 0.5)")
    return schedule


def _stages(map_sizes: list[tuple[int, int]]) -> list[int]:
    """Number the runs of equal map sizes: [(8, 8), (8, 8), (4, 4)] gives [0, 0, 1]."""
    return [stage for stage, (_, run) in enumerate(groupby(map_sizes)) for _ in run]
