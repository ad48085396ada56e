"""Random regions of a feature map, and the mean over them.

Source: Stochastic Region Pooling (Luo, Wen, Hu, Dai, Xu; arXiv:1904.09853). The descriptor of a training step is
the mean over a random region R of the map instead of over the whole map:

    z_c = 1/|R| * sum_{(i, j) in R} x_c(i, j)

Differs from the publication: none known; docs/method.md lists what its summary leaves open and what we chose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypeAlias

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
_INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def check_scale(scale: float, where: str = "scale") -> float:
    """Return `scale` as a float; raise ValueError, naming `where`, unless it lies in (0, 1]."""
    if not 0 < scale <= 1:
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


@dataclass(frozen=True)
class Masks:
    """Where the regions of one module lie: `inside` (N, 1, H, W) integers, all bits set in a region and none elsewhere.

    `coverage` (N, 1, H, W), of the map's type, is minus the number of regions that cover a position.
    """

    inside: Tensor
    coverage: Tensor


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

    def masks(self, numbers: Tensor, dtype: torch.dtype) -> list[Masks]:
        """The masks of each module for maps of `dtype`."""
        corners = (numbers * self._ranges).to(torch.int32).unbind(0)
        lengths = [length for _, length in self._groups]
        # A negative number has its sign bit set, so a shift by 31 sets all of its bits: no comparison is needed.
        rows, columns = (
            ((((positions - corner) % map_side) - side) >> 31).split(lengths)
            for corner, (positions, map_side, side) in zip(corners, self._axes, strict=True)
        )
        masks = []
        for (height, width), in_rows, in_columns in zip([size for size, _ in self._groups], rows, columns, strict=True):
            inside = _first(in_rows, height, -2) & _first(in_columns, width, -1)  # (L', N, k, H, W)
            if inside.shape[2] > 1:
                inside = inside.sum(2, keepdim=True, dtype=torch.int32)
            coverage = inside.to(dtype)
            inside = (inside.sign() if numbers.shape[3] > 1 else inside).to(_INTEGERS[dtype.itemsize])
            masks += [Masks(*both) for both in zip(inside.unbind(0), coverage.unbind(0), strict=True)]
        return masks


def _first(values: Tensor, length: int, axis: int) -> Tensor:
    return values if values.shape[axis] == length else values.narrow(axis, 0, length)


def region_mean(x: Tensor, masks: Masks, region: Size, regions: int) -> Tensor:
    """Mean of x (N, ..., H, W) over the k = `regions` regions, of (h, w) = `region` each: (N, ..., 1, 1).

    What lies outside of them doesn't count, be it infinite; a position that is covered twice counts twice.
    """
    shape = (masks.inside.shape[0], *[1] * (x.dim() - 3), *x.shape[-2:])
    inside, coverage = (mask if x.dim() == 4 else mask.view(shape) for mask in (masks.inside, masks.coverage))
    mean: Tensor = _RegionMean.apply(x, inside, coverage, regions, regions * region[0] * region[1])
    return mean


class _RegionMean(torch.autograd.Function):
    """The mean over regions, with the gradient in one pass over the map, where that of a plain mean takes two.

    Bits are cleared, since a product with zero keeps infinity and NaN, and `where` is several times slower on a CPU.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, inside: Tensor, coverage: Tensor, regions: int, positions: int) -> Tensor:
        masked = (x.view(inside.dtype) & inside).view(x.dtype)
        factor = x.shape[-2] * x.shape[-1] / positions
        if regions > 1:
            masked, factor = masked * coverage, -factor
        return scaled_mean(masked, factor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, _, coverage, _, ctx.positions = inputs
        ctx.save_for_backward(coverage)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (coverage,) = ctx.saved_tensors
        return gradients[0] * (-1 / ctx.positions) * coverage, None, None, None, None


def scaled_mean(x: Tensor, factor: float | Tensor) -> Tensor:
    """Mean of x (..., H, W) times `factor`: (..., 1, 1) of its type; in half nothing under- or overflows between."""
    if x.dtype.itemsize >= 4:
        return x.mean((-2, -1), keepdim=True) * factor
    return (x.mean((-2, -1), keepdim=True, dtype=torch.float32) * factor).to(x.dtype)


def traced_region_mean(x: Tensor, numbers: Tensor, region: tuple[Any, Any], placement: Placement) -> Tensor:
    """`region_mean` for a compiler, which fuses its parts: `numbers` (2, N, k, 1, 1), sides ints or 0-d tensors."""
    axes = []
    for corner_number, side, map_side, shape in zip(numbers, region, x.shape[-2:], ((-1, 1), (1, -1)), strict=True):
        corner = (corner_number * corner_range(placement, side, map_side)).to(torch.int64)
        positions = torch.arange(map_side, device=x.device).view(shape)
        axes.append((positions - corner) % map_side < side)
    coverage = (axes[0] & axes[1]).sum(1)  # (N, H, W)
    coverage = coverage.view(coverage.shape[0], *[1] * (x.dim() - 3), *x.shape[-2:])
    positions_pooled = numbers.shape[2] * region[0] * region[1]
    factor = (
        x.shape[-2]
        * x.shape[-1]
        / (positions_pooled.to(torch.float64) if isinstance(positions_pooled, Tensor) else positions_pooled)
    )
    if isinstance(factor, Tensor):
        factor = factor.to(torch.promote_types(x.dtype, torch.float32))
    return scaled_mean(torch.where(coverage > 0, x, 0) * coverage.to(x.dtype), factor)
