"""Read and change the regions of a network with SRP: their scale over training time, and where they lie in a step."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from srp_exp.errors import UserError
from srp_exp.srp.pool import Draws, RegionPool
from srp_exp.srp.region import corner_range
from srp_exp.srp.schedule import ramp
from srp_exp.srp.swap import WithSrp


def srp_modules(model: nn.Module) -> dict[str, RegionPool]:
    """The pools of `model` by the name of their attention module, in the order of registration."""
    return {name: module._srp.pool for name, module in model.named_modules() if isinstance(module, WithSrp)}


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

    N is 1 where the batch shares them, and where the region was the whole map. Modules that haven't run are left out.
    """
    regions = {}
    for name, pool in srp_modules(model).items():
        if pool.map_size is None:
            continue
        height, width = pool.region(pool.map_size)
        taken = pool.draws.taken.get(pool.index)
        if taken is not None:
            corners = pool.corners(taken, pool.map_size).cpu()
            regions[name] = torch.cat([corners, torch.tensor([height, width]).expand_as(corners)], -1)
        elif (height, width) == pool.map_size:
            regions[name] = torch.tensor([[[0, 0, height, width]]])
    return regions


def fix_regions(model: nn.Module, regions: Mapping[str, Tensor] | None) -> None:
    """Let every step pool over `regions`, (N, k, 4) or (N, k, 2) by module as `read_regions` gives them; None: draw again.

    Only top and left count, on maps of the size of the last step. No random number is drawn meanwhile.

    Raises:
        ValueError: a module is missing, or a region lies outside of its map.
    """
    pools = srp_modules(model)
    draws: list[Draws] = list(dict.fromkeys(pool.draws for pool in pools.values()))
    for draw in draws:
        draw.begin()
        draw.fixed = None
    if regions is None:
        return
    missing = [name for name, pool in pools.items() if name not in regions and pool.final_scale < 1]
    if missing:
        raise UserError(f"no regions for {missing[0]!r}: give them for every module with a scale below 1")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    for draw in draws:
        numbers = [_numbers(name, pool, regions.get(name)) for name, pool in pools.items() if pool.draws is draw]
        samples = max(number.shape[1] for number in numbers)
        of = {pool.index: number.expand(2, samples, -1) for pool, number in zip(pools.values(), numbers, strict=True)}
        draw.fixed = torch.stack([of[index] for index in range(len(numbers))], 1)[..., None, None].to(device)


def _numbers(name: str, pool: RegionPool, regions: Tensor | None) -> Tensor:
    """The uniform numbers (2, N, k) whose corners are those of `regions`."""
    if regions is None or pool.map_size is None:
        return torch.full((2, 1, pool.draws.regions), 0.5)
    ranges = torch.tensor(
        [
            corner_range(pool.draws.placement, side, map_side)
            for side, map_side in zip(pool.region(pool.map_size), pool.map_size, strict=True)
        ]
    )
    corners = regions[..., :2].cpu()
    if (
        regions.dim() != 3
        or regions.shape[1] != pool.draws.regions
        or bool(((corners < 0) | (corners >= ranges)).any())
    ):
        raise UserError(f"{name}: regions {tuple(regions.shape)} must be (N, {pool.draws.regions}, 4) inside the map")
    return ((corners + 0.5) / ranges).movedim(-1, 0)
