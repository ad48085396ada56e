"""Random regions of a feature map: how large they are, and where they lie."""

from numbers import Real
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from srp_exp.errors import UserError

Share: TypeAlias = Literal["sample", "batch"]
SHARES: tuple[Share, ...] = ("sample", "batch")
RegionPlacement: TypeAlias = Literal["corner", "wrap"]
PLACEMENTS: tuple[RegionPlacement, ...] = ("corner", "wrap")
Size: TypeAlias = tuple[int, int]
"""(height, width) in positions."""

_UNITS = 10**9
"""Scales are counted in billionths, so that a decimal such as 0.3 is exact and halves round up as written."""


def check_scale(scale: float, where: str = "scale") -> float:
    """Return `scale` as a float; raise ValueError, naming `where`, unless it lies in (0, 1]."""
    if not (isinstance(scale, Real) and 0 < scale <= 1):
        raise UserError(f"{where}={scale} is not in (0, 1]: it is the region's side over the map's side")
    return float(scale)


def in_units(scale: float) -> int:
    """`scale` in billionths."""
    return round(scale * _UNITS)


def region_side(scale: float, map_side: int) -> int:
    """Side of a region in positions: max(1, floor(scale * map_side + 0.5)), a half rounding up."""
    return max(1, (in_units(scale) * map_side + _UNITS // 2) // _UNITS)


def traced_side(units: Tensor, map_side: int) -> Tensor:
    """`region_side` of a scale in billionths, 0-d int64, that may change without recompilation."""
    return ((units * map_side + _UNITS // 2) // _UNITS).clamp(min=1)


def corner_range(placement: RegionPlacement, side: Any, map_side: int) -> Any:
    """How many corners a region has along an axis: those that keep it inside the map, or all where it wraps around."""
    return map_side if placement == "wrap" else map_side - side + 1


def corners(numbers: Tensor, sides: Size, map_size: Size, placement: RegionPlacement) -> Tensor:
    """The upper left corners of regions: int64 (N, k, 2), top and left, of uniform numbers (2, N, k).

    A number u in [0, 1) is the corner floor(u * R) of the R possible ones: a float32 u <= 1 - 2**-24 never rounds u * R
    up to R, so no region falls outside.
    """
    ranges = [corner_range(placement, side, map_side) for side, map_side in zip(sides, map_size, strict=True)]
    return (numbers.movedim(0, -1) * torch.tensor(ranges, device=numbers.device)).to(torch.int64)
