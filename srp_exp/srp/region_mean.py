"""The mean over random regions of a feature map.

Source: Stochastic Region Pooling (Luo, Wen, Hu, Dai, Xu; arXiv:1904.09853). The descriptor of a training step is
the mean over a random region R of the map instead of over the whole map:

    z_c = 1/|R| * sum_{(i, j) in R} x_c(i, j)

Differs from the publication: none known; docs/method.md lists what its summary leaves open and what we chose.
"""

import math
from typing import Any

import torch
from torch import Tensor

from srp_exp.srp.region import Placement, Size, corner_range


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
