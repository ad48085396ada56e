"""Read and change the regions of a network with SRP: their scale over training time, and where they lie in a step."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srp_exp.errors import UserError
from srp_exp.srp.draws import Draws
from srp_exp.srp.pool import RegionPool
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
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    for pool in srp_modules(model).values():
        pool.set_ramp(ramp(progress, until), device)


def read_regions(model: nn.Module) -> dict[str, Tensor]:
    """The regions of the last step, by module: int64 (N, k, 4) on the CPU, top, left, height, width in positions.

    N is 1 where the batch shares them. Modules that pooled all of their map, or haven't run, are left out.
    """
    regions = {}
    for name, pool in srp_modules(model).items():
        taken = pool.draws.taken.get(pool.index)
        if taken is not None and pool.map_size is not None:
            corners = pool.corners(taken, pool.map_size).cpu()
            sides = torch.tensor([int(side) for side in taken.region])
            regions[name] = torch.cat([corners, sides.expand_as(corners)], -1)
    return regions


def fix_regions(model: nn.Module, regions: Mapping[str, Tensor] | None) -> None:
    """Let every step pool over `regions`, by module as `read_regions` gives them; None: draw again.

    They are for maps of the size of the last step and for the present scales. No random number is drawn meanwhile.

    Raises:
        UserError: a module is missing or unknown, or a region isn't of the module's size or lies outside of its map.
    """
    pools = srp_modules(model)
    fixed = {} if regions is None else _checked(pools, regions)
    for draws in dict.fromkeys(pool.draws for pool in pools.values()):
        draws.begin()
        draws.fixed = None
        if regions is not None:
            _fix(draws, {pool.index: fixed[name] for name, pool in pools.items() if pool.draws is draws}, model)


def _checked(pools: dict[str, RegionPool], regions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The uniform numbers (2, N, k) of every module."""
    twice = [name for name, pool in pools.items() if pool.index in pool.draws.pooled_twice]
    if twice:
        raise UserError(
            f"{twice[0]!r} pools more than once in a step, over regions of its own each time: not to be fixed"
        )
    unknown = sorted(set(regions) - set(pools))
    if unknown:
        raise UserError(f"regions: {unknown[0]!r} has no SRP; it has {', '.join(pools)}")
    samples = {len(given) for given in regions.values()} - {1}
    if len(samples) > 1:
        raise UserError(f"regions: {sorted(samples)} samples; give as many for every module, or 1")
    numbers = {}
    for name, pool in pools.items():
        assert pool.map_size is not None
        region, given = pool.region(pool.map_size), regions.get(name)
        if given is None and region != pool.map_size:
            raise UserError(f"no regions for {name!r}: give them for every module whose region isn't the whole map")
        given = torch.tensor([[[0, 0, *region]] * pool.draws.regions]) if given is None else given.cpu()
        ranges = torch.tensor([corner_range(pool.draws.placement, *s) for s in zip(region, pool.map_size, strict=True)])
        if given.dim() != 3 or given.shape[1:] != (pool.draws.regions, 4):
            raise UserError(f"{name}: regions {tuple(given.shape)} must be (N, {pool.draws.regions}, 4)")
        corners = given[..., :2]
        if bool((given[..., 2:] != torch.tensor(region)).any() | (corners < 0).any() | (corners >= ranges).any()):
            raise UserError(f"{name}: regions must be of {region} and inside the map {pool.map_size}")
        numbers[name] = ((corners + 0.5) / ranges).movedim(-1, 0)
    return numbers


def _fix(draws: Draws, numbers: dict[int, Tensor], model: nn.Module) -> None:
    samples = max(number.shape[1] for number in numbers.values())
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    stacked = torch.stack([numbers[index].expand(2, samples, -1) for index in range(len(numbers))], 1)
    draws.fixed = stacked[..., None, None].to(device, torch.float32)
    sizes = [pool.map_size or (1, 1) for pool in draws.pools]
    draws.fixed_for = {index: (size, draws.pools[index].region(size)) for index, size in enumerate(sizes)}
