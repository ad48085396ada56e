"""The mean over random regions of a feature map.

Source: Stochastic Region Pooling (Luo, Wen, Hu, Dai, Xu; arXiv:1904.09853). The descriptor of a training step is
the mean over a random region R of the map instead of over the whole map:

    z_c = 1/|R| * sum_{(i, j) in R} x_c(i, j)

Differs from the publication: none known; docs/method.md lists what its summary leaves open and what we chose.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from srp_exp.srp.region import RegionPlacement, corner_range


def region_mean(x: Tensor, numbers: Tensor, sides: tuple[Any, Any], placement: RegionPlacement) -> Tensor:
    """Mean of x (N, ..., H, W) over k random regions of sides (h, w), summed in float32 at least: (N, ..., 1, 1).

    `numbers`, uniform in [0, 1), are float32 (2, M, k): N / M samples in a row share their regions. What lies outside
    of the regions doesn't count, be it infinite; a position that is covered twice counts twice. In code that is
    compiled the sides may be 0-d tensors of integers.
    """
    if x.dim() != 4:
        maps = x[:, None] if x.dim() == 3 else x.flatten(0, -4)
        return region_mean(maps, numbers, sides, placement).view(*x.shape[:-2], 1, 1)
    if _is_traced(x) or not (_has_kernel(x) or _has_exact_product(x)):
        return traced_region_mean(x, numbers, sides, placement)
    mean: Tensor = _RegionMean.apply(x, numbers, sides, placement)
    return mean


class _RegionMean(torch.autograd.Function):
    """The mean over regions, with the gradient in one pass over the map, where that of a plain mean takes two.

    The way with setup_context, which torch.func needs, takes as long as the rest of it: see traced_region_mean.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, numbers: Tensor, sides: tuple[int, int], placement: RegionPlacement) -> Tensor:
        ctx.of_map, ctx.settings = (x.shape, x.stride()), (*sides, placement)
        if _has_kernel(x):
            ctx.save_for_backward(numbers, None)
            return _kernels().pool(x, numbers, *sides, placement)  # type: ignore[no-any-return]
        mask = _coverage(numbers, sides, x.shape, placement).to(x.dtype)
        ctx.save_for_backward(numbers, mask)
        return _masked_mean(x, mask, numbers.shape[2] * sides[0] * sides[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (of_mean,), (numbers, mask), (shape, strides) = gradients, ctx.saved_tensors, ctx.of_map
        h, w, placement = ctx.settings
        layout = sorted(range(4), key=strides.__getitem__, reverse=True)
        if mask is None and not torch.is_grad_enabled():  # a kernel can't be differentiated
            return _kernels().spread_mean(of_mean, numbers, shape, layout, h, w, placement), None, None, None
        return _spread(of_mean, numbers, shape, layout, h, w, placement, mask), None, None, None


def _masked_mean(x: Tensor, mask: Tensor, positions: int) -> Tensor:
    """The mean as a product of matrices, of each map and its mask.

    It reads the map once and writes nothing as large, so that on a CPU it takes no longer than the mean over the whole
    map. A product with zero keeps infinity and NaN: where the sum isn't finite, the map is cleared first.
    """
    mean = _product(x, mask, 1 / positions)
    return mean if math.isfinite(mean.sum()) else _product(torch.where(mask > 0, x, 0), mask, 1 / positions)


def _product(x: Tensor, mask: Tensor, factor: float) -> Tensor:
    """`factor` times the sum of x * mask over the positions: (N, C, 1, 1). In place, as autocast leaves that alone.

    A row times the map: the map times a column takes up to ten times as long where the map is contiguous.
    """
    samples, channels, height, width = x.shape
    mean = x.new_empty(samples, channels, 1, 1)
    row = mask.view(-1, 1, height * width).expand(samples, -1, -1)
    x = x.reshape(samples, channels, height * width).transpose(1, 2)
    mean.view(samples, 1, channels).baddbmm_(row, x, beta=0, alpha=factor)
    return mean


def _pool(x: Tensor, numbers: Tensor, h: int, w: int, placement: RegionPlacement) -> Tensor:
    mask = _coverage(numbers, (h, w), x.shape, placement).to(x.dtype)
    return _masked_mean(x, mask, numbers.shape[2] * h * w)


def _spread(
    of_mean: Tensor,
    numbers: Tensor,
    shape: Sequence[int],
    layout: list[int],
    h: int,
    w: int,
    placement: RegionPlacement,
    mask: Tensor | None = None,
) -> Tensor:
    """Gradient of the mean for x of this shape, whose axes lie in memory in the order of `layout`."""
    if mask is None:
        mask = _coverage(numbers, (h, w), shape, placement).to(of_mean.dtype)
    of_mean = of_mean * (1 / (numbers.shape[2] * h * w))
    if torch.is_grad_enabled():
        return of_mean * mask
    return torch.mul(of_mean, mask, out=torch.empty_permuted(shape, layout, dtype=mask.dtype, device=mask.device))


def traced_region_mean(x: Tensor, numbers: Tensor, sides: tuple[Any, Any], placement: RegionPlacement) -> Tensor:
    """`region_mean` of x (N, C, H, W) in plain operations, which a compiler fuses."""
    coverage = _coverage(numbers, sides, x.shape, placement)
    sum_type = torch.promote_types(x.dtype, torch.float32)
    if coverage.dtype == torch.bool:
        kept = torch.where(coverage, x, 0)
    else:
        kept = torch.where(coverage > 0, x, 0).to(sum_type) * coverage
    mean: Tensor = kept.sum((-2, -1), keepdim=True, dtype=sum_type) / (numbers.shape[2] * sides[0] * sides[1])
    return mean.to(x.dtype)


def _coverage(numbers: Tensor, sides: tuple[Any, Any], shape: Sequence[int], placement: RegionPlacement) -> Tensor:
    """How many of its k regions cover a position of x (N, C, H, W): int32 (N or 1, 1, H, W); bool where k = 1."""
    inside = []
    for number, side, length in zip(numbers, sides, shape[-2:], strict=True):
        corner = (number * corner_range(placement, side, length)).to(torch.int32)
        offset = torch.arange(length, dtype=torch.int32, device=numbers.device) - corner[..., None]
        in_region = (offset >= 0) & (offset < side)
        inside.append(in_region | (offset < side - length) if placement == "wrap" else in_region)  # (M, k, H or W)
    coverage: Tensor = inside[0][..., :, None] & inside[1][..., None, :]
    if numbers.shape[2] > 1:
        coverage = coverage.sum(1, keepdim=True, dtype=torch.int32)
    if coverage.shape[0] in (1, shape[0]):
        return coverage
    return coverage.repeat_interleave(shape[0] // coverage.shape[0], 0)


def _is_traced(x: Tensor) -> bool:
    """Whether a compiler, a transform or forward-mode differentiation looks at the operations."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def _has_exact_product(x: Tensor) -> bool:
    """Whether x is in float32 multiplied as float32, and its values can be read: not on a GPU, nor of a fake tensor."""
    of_products = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    exact = x.dtype != torch.float32 or of_products in ("none", "ieee")
    return exact and x.device.type == "cpu" and type(x) is Tensor


def _has_kernel(x: Tensor) -> bool:
    return x.is_cuda and _kernels() is not None


@functools.cache
def _kernels() -> Any:
    """srp_exp.srp.region_kernel, None without Triton. On a CPU its operators are plain operations, as above."""
    try:
        from srp_exp.srp import region_kernel
    except ImportError:
        return None
    region_kernel.pool_op.register_kernel("cpu")(_pool)
    region_kernel.spread_op.register_kernel("cpu")(_spread)
    return region_kernel
