"""Pooling over random regions, in training, in place of the global average pooling of one attention module."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from srp_exp.srp.checkpointing import in_backward
from srp_exp.srp.draws import Draws
from srp_exp.srp.region import Numbers, Size, check_scale, corner_range, in_units, region_side, traced_side
from srp_exp.srp.region_mean import region_mean, traced_region_mean


class RegionPool:
    """Average pooling of maps (N, C, H, W), or (N, P, C, H, W), over random regions, in training.

    Args:
        scale: side of the region over the side of the map, in (0, 1]; 1 is the whole map.
        draws: of the network that it belongs to; by default of its own, with a draw for every call.

    `scale` is the present one; `map_size` is (H, W) of the last map.
    """

    def __init__(self, scale: float = 1.0, draws: Draws | None = None) -> None:
        self.scale = self.final_scale = check_scale(scale)
        self.draws = Draws() if draws is None else draws
        self.index = len(self.draws.pools)
        self.draws.pools.append(self)
        self.map_size: Size | None = None
        self.by_image = False
        """Whether its maps (N, C, H, W) are several of each image, one after another, which share a region."""
        self._units: Tensor | None = None  # what compiled code reads: a number would be compiled in

    def set_ramp(self, weight: float, device: torch.device | str = "cpu") -> None:
        """Move the scale to 1 - (1 - final scale) * `weight`, with `weight` in [0, 1]; no recompilation follows.

        `device` is that of the maps, for compiled code.
        """
        self.scale = 1 - (1 - self.final_scale) * weight
        if self._units is None or self._units.device != torch.device(device):
            self._units = torch.empty((), dtype=torch.int64, device=device)
        self._units.fill_(in_units(self.scale))

    def region(self, map_size: Size) -> Size:
        """(h, w) of a region of the present scale in a map (H, W)."""
        return region_side(self.scale, map_size[0]), region_side(self.scale, map_size[1])

    def is_whole(self, x: Tensor) -> bool:
        """Whether a region of the present scale is the whole map x (..., H, W)."""
        return self.region((x.shape[-2], x.shape[-1])) == (x.shape[-2], x.shape[-1])

    def numbers(self, x: Tensor) -> Numbers | None:
        """The random numbers for the map x (N, ..., H, W); None where all of it is pooled."""
        if torch.compiler.is_compiling():
            if self.final_scale == 1 or x.shape[-2:].numel() == 1 or (self._units is None and self.is_whole(x)):
                return None
            sides = [self._side(side) for side in x.shape[-2:]]
            return self.draws.take(self, x, (sides[0], sides[1]))
        if in_backward():
            return self.draws.kept.again(self.index, x.device, self.is_whole(x))
        if self.is_whole(x):
            return None
        region = self.region((x.shape[-2], x.shape[-1]))
        return self.draws.kept.keep(self.index, x.device, lambda: self.draws.take(self, x, region))

    def _side(self, map_side: int) -> Any:
        return region_side(self.scale, map_side) if self._units is None else traced_side(self._units, map_side)

    def pool(self, x: Tensor, numbers: Numbers) -> Tensor:
        """Mean over the regions, (N, ..., 1, 1)."""
        images = numbers.values.shape[2]
        if self.by_image and 1 < images < x.shape[0]:
            return self.pool(x.unflatten(0, (images, -1)), numbers).flatten(0, 1)
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or _has_tangents(x):
            return traced_region_mean(x, numbers.values[:, numbers.place], numbers.region, self.draws.placement)
        return region_mean(x, self.draws.masks(self, x, numbers), numbers.region, self.draws.regions)

    def __call__(self, x: Tensor) -> Tensor:
        """Mean over regions, or over all of the map, (N, ..., 1, 1)."""
        numbers = self.numbers(x)
        return x.mean((-2, -1), keepdim=True) if numbers is None else self.pool(x, numbers)

    def corners(self, numbers: Numbers, map_size: Size) -> Tensor:
        """The upper left corners that `numbers` mean in a map (H, W): int64 (N, k, 2), top and left."""
        ranges = [
            corner_range(self.draws.placement, side, map_side)
            for side, map_side in zip(numbers.region, map_size, strict=True)
        ]
        own = numbers.values[:, numbers.place, :, :, 0, 0].movedim(0, -1)
        return (own * torch.tensor(ranges, device=own.device)).to(torch.int64)


def _has_tangents(x: Tensor) -> bool:
    """Whether derivatives are taken in forward mode."""
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None
