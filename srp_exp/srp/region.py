"""Random regions of a feature map, and the mean over them.

Source: Stochastic Region Pooling (Luo, Wen, Hu, Dai, Xu; arXiv:1904.09853). The descriptor of a training step is
the mean over a random region R of the map instead of over the whole map:

    z_c = 1/|R| * sum_{(i, j) in R} x_c(i, j)

Differs from the publication: none known; docs/method.md lists what its summary leaves open and what we chose.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from numbers import Real
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


def region_mean(x: Tensor, mask: Tensor, region: Size, regions: int) -> Tensor:
    """Mean of x (N, ..., H, W) over the k = `regions` regions of `mask` (N or 1, 1, H, W), of (h, w) = `region` each.

    Returns (N, ..., 1, 1). What lies outside of the regions doesn't count, be it infinite; a position that is covered
    twice counts twice.
    """
    mask = mask.view(mask.shape[0], *[1] * (x.dim() - 3), *x.shape[-2:])
    mean: Tensor = _RegionMean.apply(x, mask, regions, regions * region[0] * region[1])
    return mean


class _RegionMean(torch.autograd.Function):
    """The mean over regions, with the gradient in one pass over the map, where that of a plain mean takes two.

    The way with setup_context, which torch.func needs, takes as long as the rest of it: see traced_region_mean.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, regions: int, positions: int) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.positions, ctx.channels_last = positions, _is_channels_last(x)
        if not _has_exact_product(x):
            return cleared_mean(x, mask, regions, x.shape[-2] * x.shape[-1] / positions)
        mean = _product(x, mask, 1 / positions)
        return mean if math.isfinite(mean.sum()) else _product(_cleared(x, mask), mask, 1 / positions)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (mask,) = ctx.saved_tensors
        of_mean = gradients[0] * (1 / ctx.positions)
        if not ctx.channels_last:
            return of_mean * mask, None, None, None
        return (of_mean.movedim(1, -1) * mask.movedim(1, -1)).movedim(-1, 1), None, None, None  # laid out as the map is


def cleared_mean(x: Tensor, mask: Tensor, regions: int, factor: float | Tensor) -> Tensor:
    """`scaled_mean` of the map times its mask: as a GPU makes it, to which no number has to come back."""
    x = _cleared(x, mask)
    return scaled_mean(x if regions == 1 else x * mask, factor)


def _cleared(x: Tensor, mask: Tensor) -> Tensor:
    """Zero outside of the regions: a product alone would keep infinity and NaN."""
    return torch.where(mask > 0, x, 0)


def _product(x: Tensor, mask: Tensor, factor: float) -> Tensor:
    """`factor` times the sum of x * mask over the positions, as a product of matrices: (N, ..., 1, 1).

    It reads the map once and writes nothing as large, so that on a CPU it takes no longer than the mean over the whole
    map. It is done in place, since autocast leaves that alone.
    """
    samples, side = x.shape[0], x.shape[-2] * x.shape[-1]
    mask = mask.view(-1, side).expand(samples, -1)
    mean = x.new_empty(*x.shape[:-2], 1, 1)
    if _is_channels_last(x):
        x = x.permute(0, 2, 3, 1).view(samples, side, -1)
        mean.view(samples, 1, x.shape[2]).baddbmm_(mask[:, None], x, beta=0, alpha=factor)
    else:
        x = x.reshape(samples, x.shape[1:-2].numel(), side)
        mean.view(samples, x.shape[1], 1).baddbmm_(x, mask[:, :, None], beta=0, alpha=factor)
    return mean


def _has_exact_product(x: Tensor) -> bool:
    """Whether x is in float32 multiplied as float32, and its values can be read: not on a GPU, nor of a fake tensor."""
    of_products = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    exact = x.dtype != torch.float32 or of_products in ("none", "ieee")
    return exact and x.device.type == "cpu" and type(x) is Tensor


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


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
    return cleared_mean(x, coverage.to(x.dtype), numbers.shape[2], factor)
