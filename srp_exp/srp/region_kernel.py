# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return"
"""The mean over random regions on CUDA: a Triton kernel that reads the regions alone, and one that writes the gradient.

Corners are computed from the random numbers where they are needed; sums are in float32 or float64; any strides will do.
The operators srp::region_mean and srp::region_mean_backward are for tensors that only stand for others (fake, traced,
counted). Plain tensors are launched directly, since Triton and an operator of Python take longer to call than to run.
"""

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import triton_op, wrap_triton
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


@triton.jit
def _corner(number, side, length, WRAP: tl.constexpr):
    corners = length if WRAP else length - side + 1
    return (tl.load(number) * corners).to(tl.int32)


@triton.jit
def _is_inside(offset, side, length, WRAP: tl.constexpr):
    inside = (offset >= 0) & (offset < side)
    return inside | (offset < side - length) if WRAP else inside


@triton.jit(do_not_specialize=["group", "height", "width", "h", "w"], do_not_specialize_on_alignment=["numbers"])
def pool_kernel(
    x, numbers, mean, group, channels, height, width, h, w, x_n, x_c, x_h, x_w, number_axis, number_m, number_k,
    REGIONS: tl.constexpr, WRAP: tl.constexpr, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """mean (N, C) of x (N, C, H, W) over its regions of h x w; `group` samples in a row share theirs."""
    sum_type: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    n, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    in_channel = x + n * x_n + channel.to(tl.int64) * x_c
    total = tl.zeros([CHANNELS, POSITIONS], sum_type)
    for region in range(REGIONS):
        number = numbers + n // group * number_m + region * number_k
        top = _corner(number, h, height, WRAP)
        left = _corner(number + number_axis, w, width, WRAP)
        for first in range(0, h * w, POSITIONS):
            position = first + tl.arange(0, POSITIONS)
            row, column = top + position // w, left + position % w
            if WRAP:
                row = tl.where(row < height, row, row - height)
                column = tl.where(column < width, column, column - width)
            valid = (channel < channels)[:, None] & (position < h * w)[None, :]
            place = row.to(tl.int64) * x_h + column.to(tl.int64) * x_w
            total += tl.load(in_channel[:, None] + place[None, :], mask=valid, other=0).to(sum_type)
    tl.store(mean + n * channels + channel, tl.sum(total, 1) / (REGIONS * h * w), mask=channel < channels)


@triton.jit(
    do_not_specialize=["group", "height", "width", "h", "w", "of_n", "of_c"],
    do_not_specialize_on_alignment=["numbers", "of_mean"],
)
def spread_kernel(
    of_mean, numbers, of_x, of_n, of_c, group, channels, height, width, h, w, x_n, x_c, x_h, x_w,
    number_axis, number_m, number_k,
    REGIONS: tl.constexpr, WRAP: tl.constexpr, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr, FLAT: tl.constexpr,
):  # fmt: skip
    """of_x (N, C, H, W), the gradient of x, of of_mean (N, C). FLAT: 16 positions in a row are written at once."""
    sum_type: tl.constexpr = tl.float64 if of_x.dtype.element_ty == tl.float64 else tl.float32
    size = tl.multiple_of(height * width, 16) if FLAT else height * width
    tiles = tl.cdiv(size, POSITIONS)
    n, channel = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    position = tl.program_id(0) % tiles * POSITIONS + tl.arange(0, POSITIONS)
    row, column = position // width, position % width
    count = tl.zeros([POSITIONS], tl.int32)
    for region in range(REGIONS):
        number = numbers + n // group * number_m + region * number_k
        rows = _is_inside(row - _corner(number, h, height, WRAP), h, height, WRAP)
        columns = _is_inside(column - _corner(number + number_axis, w, width, WRAP), w, width, WRAP)
        count += (rows & columns).to(tl.int32)
    value = tl.load(of_mean + n * of_n + channel.to(tl.int64) * of_c, mask=channel < channels, other=0)
    value = (value.to(sum_type) / (REGIONS * h * w))[:, None] * count[None, :]
    place = position.to(tl.int64) * x_w if FLAT else row.to(tl.int64) * x_h + column.to(tl.int64) * x_w
    in_channel = of_x + n * x_n + channel.to(tl.int64) * x_c
    valid = (channel < channels)[:, None] & (position < size)[None, :]
    tl.store(in_channel[:, None] + place[None, :], tl.where(count[None, :] > 0, value, 0), mask=valid)


def _pool_launch(x: Tensor, numbers: Tensor, mean: Tensor, h: int, w: int, placement: str) -> tuple[Any, Any, Any]:
    """Grid, integers and constants of the kernel."""
    return _launch_over(h * w, x, numbers, h, w, placement)


def _spread_launch(of_mean: Tensor, numbers: Tensor, of_x: Tensor, *settings: Any) -> tuple[Any, Any, Any]:
    size = of_x.shape[2] * of_x.shape[3]
    (samples, blocks, _), integers, constants = _launch_over(size, of_x, numbers, *settings)
    tiles = triton.cdiv(size, constants["POSITIONS"])
    constants["FLAT"] = of_x.stride(2) == of_x.shape[3] * of_x.stride(3) and size % 16 == 0
    return (samples * tiles, blocks, 1), (of_mean.stride(0), of_mean.stride(1), *integers), constants


def _launch_over(size: int, x: Tensor, numbers: Tensor, h: int, w: int, placement: str) -> tuple[Any, Any, Any]:
    """Programs have 2,048 values of `size` positions and some channels, those that are neighbours in memory."""
    samples, channels, height, width = x.shape
    positions = min(128 if x.stride(1) < x.stride(3) else 256, max(16, triton.next_power_of_2(size)))
    block = min(2048 // positions, triton.next_power_of_2(channels))
    integers = (samples // max(1, numbers.shape[1]), channels, height, width, h, w, *x.stride(), *numbers.stride())
    constants = {"REGIONS": numbers.shape[2], "WRAP": placement == "wrap", "CHANNELS": block, "POSITIONS": positions}
    return (samples, triton.cdiv(channels, block), 1), integers, constants


@triton_op("srp::region_mean", mutates_args=())
def pool_op(x: Tensor, numbers: Tensor, h: int, w: int, placement: str) -> Tensor:
    """Mean (N, C, 1, 1) of x (N, C, H, W) over regions of h x w, of which `numbers` (2, M, k) choose the corners."""
    mean = x.new_empty(x.shape[0], x.shape[1], 1, 1)
    grid, integers, constants = _pool_launch(x, numbers, mean, h, w, placement)
    wrap_triton(pool_kernel)[grid](x, numbers, mean, *integers, **constants)
    return mean


@triton_op("srp::region_mean_backward", mutates_args=())
def spread_op(
    of_mean: Tensor, numbers: Tensor, shape: list[int], layout: list[int], h: int, w: int, placement: str
) -> Tensor:
    """Gradient of `pool_op` for x of this shape, whose axes lie in memory in the order of `layout`."""
    of_x = torch.empty_permuted(shape, layout, dtype=of_mean.dtype, device=of_mean.device)
    grid, integers, constants = _spread_launch(of_mean, numbers, of_x, h, w, placement)
    wrap_triton(spread_kernel)[grid](of_mean, numbers, of_x, *integers, **constants)
    return of_x


def pool(x: Tensor, numbers: Tensor, *settings: Any) -> Tensor:
    """`pool_op`."""
    if not _is_plain(x):
        return pool_op(x, numbers, *settings)
    mean = x.new_empty(x.shape[0], x.shape[1], 1, 1)
    _launch(pool_kernel, _pool_launch, (x, numbers, mean), settings)
    return mean


def spread_mean(of_mean: Tensor, numbers: Tensor, shape: list[int], layout: list[int], *settings: Any) -> Tensor:
    """`spread_op`."""
    if not _is_plain(of_mean):
        return spread_op(of_mean, numbers, shape, layout, *settings)
    of_x = torch.empty_permuted(shape, layout, dtype=of_mean.dtype, device=of_mean.device)
    _launch(spread_kernel, _spread_launch, (of_mean, numbers, of_x), settings)
    return of_x


def _is_plain(x: Tensor) -> bool:
    return x.is_cuda and type(x) is Tensor and not is_in_torch_dispatch_mode()


_launchers: dict[Any, tuple[Callable[..., None], tuple[Any, ...]]] = {}


def _launch(kernel: Any, plan: Callable[..., Any], tensors: tuple[Tensor, Tensor, Tensor], settings: Any) -> None:
    """Launch `kernel` on its tensors' device: on what Triton has compiled for tensors and settings like these."""
    first, numbers, last = tensors
    device = first.get_device()
    if device != torch.cuda.current_device():
        with torch.cuda.device(device):
            _launch(kernel, plan, tensors, settings)
        return
    of_tensors = first.shape, first.stride(), first.data_ptr() % 16, numbers.shape, numbers.stride(), last.stride()
    key = plan, device, first.dtype, of_tensors, last.shape, settings
    if key not in _launchers:
        grid, integers, constants = plan(*tensors, *settings)
        compiled = kernel.warmup(*tensors, *integers, **constants, grid=grid)
        _launchers[key] = compiled[grid], (*integers, *constants.values())
    launcher, others = _launchers[key]
    launcher(first, numbers, last, *others)
