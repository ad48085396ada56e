"""Read and change the regions of a network with SRP: their scale over training time, and where they lie in a step."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srp_exp.errors import UserError
from srp_exp.srp.pool import RegionPool, Regions
from srp_exp.srp.region import corner_range
from srp_exp.srp.schedule import ramp
from srp_exp.srp.with_srp import WithSrp


def srp_modules(model: nn.Module) -> dict[str, RegionPool]:
    """The pools of `model` by the name of their attention module, in the order of registration."""
    modules = ((name, module) for name, module in model.named_modules() if isinstance(module, WithSrp))
    return {name: module._srp.pool for name, module in modules if module._srp is not None}


def set_progress(model: nn.Module, progress: float, until: float = 1.0) -> None:
    """Move every scale to 1 - (1 - scale) * min(1, progress / until): the time ramp of `model`, in place.

    `progress` in training, in [0, 1]; the ramp ends at `until`, in (0, 1]. Compiled code isn't compiled again.
    """
    if not (0 <= progress <= 1 and 0 < until <= 1):
        raise UserError(f"progress={progress}, until={until}: give numbers in [0, 1], until above 0")
    device = _device(model)
    for pool in srp_modules(model).values():
        pool.set_ramp(ramp(progress, until), device)


def read_regions(model: nn.Module) -> dict[str, Tensor]:
    """The regions of the last step, by module: int64 (N, k, 4) on the CPU, top, left, height, width in positions.

    N is 1 where the batch shares them. They are those of the last time that a module pooled; modules that pooled all of
    their map, or haven't run, are left out.
    """
    regions = {}
    for name, pool in srp_modules(model).items():
        if pool.last is not None:
            corners = pool.corners(pool.last).cpu()
            sides = torch.tensor([int(side) for side in pool.last.sides])
            regions[name] = torch.cat([corners, sides.expand_as(corners)], -1)
    return regions


def fix_regions(model: nn.Module, regions: Mapping[str, Tensor] | None) -> None:
    """Let every step pool over `regions`, by module as `read_regions` gives them; None: draw again.

    They are for maps of the size of the last step and for the present scales. No random number is drawn meanwhile.

    Raises:
        UserError: a module is missing or unknown, or a region isn't of the module's size or lies outside of its map.
    """
    pools = srp_modules(model)
    fixed = {} if regions is None else _checked(pools, regions, _device(model))
    for name, pool in pools.items():
        pool.fix(fixed.get(name))


def _checked(pools: dict[str, RegionPool], regions: Mapping[str, Tensor], device: torch.device) -> dict[str, Regions]:
    several = [name for name, pool in pools.items() if pool.pools_several]
    if several:
        raise UserError(
            f"{several[0]!r} pools more than once in a step, over regions of its own each time: they can't be fixed"
        )
    unknown = sorted(set(regions) - set(pools))
    if unknown:
        raise UserError(f"regions: {unknown[0]!r} has no SRP; it has {', '.join(pools)}")
    samples = {len(given) for given in regions.values()} - {1}
    if len(samples) > 1:
        raise UserError(f"regions: {sorted(samples)} samples; give as many for every module, or 1")
    fixed = {}
    for name, pool in pools.items():
        map_size = pool.map_size if pool.last is None else pool.last.map_size
        sides = pool.sides(map_size)
        given = regions.get(name)
        if given is None:
            if sides != map_size:
                raise UserError(f"no regions for {name!r}: give them for every module whose region isn't the whole map")
            continue
        if given.dim() != 3 or given.shape[1:] != (pool.regions, 4):
            raise UserError(f"{name}: regions {tuple(given.shape)} must be (N, {pool.regions}, 4)")
        ranges = torch.tensor([corner_range(pool.placement, *pair) for pair in zip(sides, map_size, strict=True)])
        corners = given[..., :2].cpu()
        if bool((given[..., 2:].cpu() != torch.tensor(sides)).any() | (corners < 0).any() | (corners >= ranges).any()):
            raise UserError(f"{name}: regions must be of {sides} and inside the map {map_size}")
        numbers = ((corners + 0.5) / ranges).movedim(-1, 0)  # in the middle of those that mean the corner
        fixed[name] = Regions(numbers.to(device, torch.float32), sides, map_size)
    return fixed


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
