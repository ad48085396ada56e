"""Random regions of a feature map, and the average pooling over them.

Source: Stochastic Region Pooling (Luo, Wen, Hu, Dai, Xu; arXiv:1904.09853). The descriptor of a training step is
the mean over a random region R of the map instead of over the whole map:

    z_c = 1/|R| * sum_{(i, j) in R} x_c(i, j)

Differs from the publication: none known; docs/method.md lists what its summary leaves open and what we chose.
"""

import operator
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from srp_exp.errors import UserError

Share: TypeAlias = Literal["sample", "batch"]
SHARES: tuple[Share, ...] = ("sample", "batch")
Side: TypeAlias = int | Tensor
"""A side length in positions: a Python int, or a 0-dim int64 tensor where it may change without recompilation."""

_UNITS = 10**9
"""Scales are counted in billionths, so that a decimal such as 0.3 is exact and halves round up as written."""


def check_scale(scale: float, where: str = "scale") -> float:
    """Return `scale` as a float; raise ValueError, naming `where`, unless it lies in (0, 1]."""
    if not 0 < scale <= 1:
        raise UserError(f"{where}={scale} is not in (0, 1]: it is the region's side over the map's side")
    return float(scale)


def region_side(scale: float, map_side: int) -> int:
    """Side of a region in positions: max(1, floor(scale * map_side + 0.5)), a half rounding up."""
    return int(_side_from_units(round(scale * _UNITS), map_side))


def _side_from_units(units: Side, map_side: int) -> Side:
    side = (units * map_side + _UNITS // 2) // _UNITS
    return side.clamp(min=1) if isinstance(side, Tensor) else max(1, side)


def draw_offsets(shape: tuple[int, ...], range_: Side, device: torch.device) -> Tensor:
    """Draw offsets uniformly from {0, ..., range_ - 1} as an int64 tensor of `shape`, from the device's default RNG.

    A float32 uniform number u <= 1 - 2**-24 never rounds u * range_ up to range_, so no offset falls outside.
    """
    return (torch.rand(shape, device=device, dtype=torch.float32) * range_).to(torch.int64)


def region_coverage(
    top: Tensor, left: Tensor, region: tuple[Side, Side], map_size: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """How many of k regions cover each position of a map: whole numbers (N, 1, H, W) of `dtype`.

    `top` and `left` (N, k) are the regions' upper left corners, `region` their (h, w), `map_size` the map's (H, W).
    """
    (height, width), (map_height, map_width) = region, map_size
    rows = torch.arange(map_height, device=top.device)
    columns = torch.arange(map_width, device=left.device)
    in_rows = ((rows >= top[..., None]) & (rows < top[..., None] + height)).to(dtype)  # (N, k, H)
    in_columns = ((columns >= left[..., None]) & (columns < left[..., None] + width)).to(dtype)  # (N, k, W)
    inside = in_rows[..., :, None] * in_columns[..., None, :]  # (N, k, H, W), in floats: ten times faster than in bools
    return inside if inside.shape[1] == 1 else inside.sum(1, keepdim=True)


def region_mean(x: Tensor, coverage: Tensor, factor: float | Tensor) -> Tensor:
    """Mean of x (..., H, W) over regions, (..., 1, 1): the mean of x * coverage over the whole map, times `factor`.

    `coverage` broadcasts against x; `factor` is H*W / (k*h*w). With one region, the whole map, both are exactly 1, and
    the result and its gradient have the bits of global average pooling.
    """
    if torch.compiler.is_compiling():  # which fuses the product into the mean, and the passes of the gradient
        return _mean(x, coverage, factor)
    mean: Tensor = _RegionMean.apply(x, coverage, factor)
    return mean


def _mean(x: Tensor, coverage: Tensor, factor: float | Tensor) -> Tensor:
    # In half, the mean of a small region over the whole map may underflow until the factor brings it back.
    dtype = torch.promote_types(x.dtype, torch.float32)
    return ((x * coverage).mean((-2, -1), keepdim=True, dtype=dtype) * factor).to(x.dtype)


class _RegionMean(torch.autograd.Function):
    """The formula of `region_mean` with the gradient written in one pass over the map, as that of `mean` is.

    Autograd's own would spread the gradient over the map first and multiply it after, in a second pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, coverage: Tensor, factor: float | Tensor) -> Tensor:
        ctx.factor, ctx.positions = factor, x.shape[-2] * x.shape[-1]
        ctx.save_for_backward(coverage)
        shared = coverage.numel() == ctx.positions
        if not (shared and x.is_contiguous() and x.dtype == coverage.dtype in (torch.float32, torch.float64)):
            return _mean(x, coverage, factor)
        # One region for all: a matrix times a vector, which reads the map once and makes no product as large as it.
        sums = x.view(-1, coverage.numel()) @ coverage.view(-1)
        return sums.view(*x.shape[:-2], 1, 1) * (factor / coverage.numel())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (coverage,) = ctx.saved_tensors
        return gradients[0] / (ctx.positions / ctx.factor) * coverage, None, None  # in half, g * factor may overflow


class StochasticRegionPool2d(nn.Module):
    """Average pooling of a map (B, C, H, W), or (B, P, C, H, W), over random regions in training, over all of it else.

    The output is (B, C, 1, 1), or (B, P, C, 1, 1), as that of nn.AdaptiveAvgPool2d(1). It draws from torch's default
    RNG, in evaluation never.

    Args:
        scale: side of the region over the side of the map, in (0, 1]; 1 is the whole map.
        share: "sample" draws for every image, "batch" once for the whole batch.
        regions: number of regions, >= 1, whose positions are pooled together; one that is covered twice counts twice.
    """

    scale_units: Tensor

    def __init__(self, scale: float = 1.0, share: Share = "sample", regions: int = 1) -> None:
        super().__init__()
        if share not in SHARES:
            raise UserError(f"share={share!r} is not one of {', '.join(SHARES)}")
        if regions < 1:
            raise UserError(f"regions={regions} is below 1: at least one region is pooled")
        self.share = share
        self.regions = operator.index(regions)
        self.final_scale = check_scale(scale)
        self.scale = self.final_scale
        # Compiled code reads the scale from this tensor, since a number would be compiled in. Integers survive
        # model.half(); the buffer isn't persistent, so the state_dict is that of the plain model.
        self.register_buffer("scale_units", torch.tensor(round(scale * _UNITS)), persistent=False)

    def set_ramp(self, ramp: float) -> None:
        """Move the scale to 1 - (1 - final_scale) * ramp, with `ramp` in [0, 1]; no recompilation follows."""
        self.scale = 1 - (1 - self.final_scale) * ramp
        self.scale_units.fill_(round(self.scale * _UNITS))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x.mean((-2, -1), keepdim=True)
        height, width = x.shape[-2:]
        units = self.scale_units if torch.compiler.is_compiling() else round(self.scale * _UNITS)
        region = (_side_from_units(units, height), _side_from_units(units, width))
        if not torch.compiler.is_compiling() and region == (height, width):
            return x.mean((-2, -1), keepdim=True)
        top, left = self.draw(x.shape[0], (height, width), region, x.device)
        coverage = region_coverage(top, left, region, (height, width), x.dtype)
        coverage = coverage.view(coverage.shape[0], *[1] * (x.dim() - 3), height, width)
        return region_mean(x, coverage, height * width / (self.regions * region[0] * region[1]))

    def draw(
        self, batch: int, map_size: tuple[int, int], region: tuple[Side, Side], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Draw the upper left corners (top, left), each int64 (N, k), N = `batch`, or 1 where the batch shares."""
        shape = (batch if self.share == "sample" else 1, self.regions)
        top = draw_offsets(shape, map_size[0] - region[0] + 1, device)
        left = draw_offsets(shape, map_size[1] - region[1] + 1, device)
        return top, left

    def extra_repr(self) -> str:
        return f"scale={self.scale:.4g}, share={self.share}, regions={self.regions}"
