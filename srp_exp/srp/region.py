"""Random regions of a feature map: how large they are, and where they lie."""

from collections.abc import Sequence
from itertools import groupby
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from srp_exp.errors import UserError

Share: TypeAlias = Literal["sample", "batch"]
SHARES: tuple[Share, ...] = ("sample", "batch")
Placement: TypeAlias = Literal["corner", "wrap"]
PLACEMENTS: tuple[Placement, ...] = ("corner", "wrap")
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


def corner_range(placement: Placement, side: Any, map_side: int) -> Any:
    """How many corners a region has along an axis: those that keep it inside the map, or all where it wraps around."""
    return map_side if placement == "wrap" else map_side - side + 1


class Numbers(NamedTuple):
    """Uniform numbers (2, L, N, k, 1, 1), of which a module has those at `place` of L, for regions of size `region`.

    `drawn`: they were drawn as the module asked for them.
    """

    values: Tensor
    place: int
    drawn: bool
    region: tuple[Any, Any]


class MaskPlan:
    """Makes the masks of several modules at once, from uniform numbers (2, L, N, k, 1, 1) for L modules and k regions.

    A number u in [0, 1) is the corner floor(u * R) of the R possible ones: a float32 u <= 1 - 2**-24 never rounds u * R
    up to R, so no region falls outside. Runs of modules with maps of equal size share their operations.
    """

    def __init__(self, maps: Sequence[Size], regions: Sequence[Size], placement: Placement, device: torch.device):
        axes = [list(axis) for axis in zip(*maps, strict=True)], [list(axis) for axis in zip(*regions, strict=True)]
        ranges = [
            [corner_range(placement, side, map_side) for side, map_side in zip(sides, map_sides, strict=True)]
            for map_sides, sides in zip(*axes, strict=True)
        ]
        self._ranges = torch.tensor(ranges, dtype=torch.float32, device=device).view(2, -1, 1, 1, 1, 1)
        self._axes = []
        for map_sides, sides, shape in zip(*axes, ((-1, 1), (1, -1)), strict=True):
            positions = torch.arange(max(map_sides), dtype=torch.int32, device=device).view(shape)
            of_modules = [
                torch.tensor(n, dtype=torch.int32, device=device).view(-1, 1, 1, 1, 1) for n in (map_sides, sides)
            ]
            self._axes.append((positions, *of_modules))
        self._groups = [(size, len(list(run))) for size, run in groupby(maps)]

    def masks(self, numbers: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """For each module (N, 1, H, W) of `dtype`: how many of the k regions cover a position."""
        corners = (numbers * self._ranges).to(torch.int32).unbind(0)
        lengths = [length for _, length in self._groups]
        rows, columns = (
            ((positions - corner) % map_side < side).split(lengths)
            for corner, (positions, map_side, side) in zip(corners, self._axes, strict=True)
        )
        masks: list[Tensor] = []
        for (height, width), in_rows, in_columns in zip([size for size, _ in self._groups], rows, columns, strict=True):
            inside = _first(in_rows, height, -2) & _first(in_columns, width, -1)  # (L', N, k, H, W)
            if inside.shape[2] > 1:
                inside = inside.sum(2, keepdim=True, dtype=torch.int32)
            masks += inside.to(dtype).unbind(0)
        return masks


def _first(values: Tensor, length: int, axis: int) -> Tensor:
    return values if values.shape[axis] == length else values.narrow(axis, 0, length)
