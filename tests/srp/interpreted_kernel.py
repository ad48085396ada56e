"""TRITON_INTERPRET=1 python tests/srp/interpreted_kernel.py: the kernels in Triton's interpreter and a slow loop."""

import itertools
from collections.abc import Callable, Iterator

import torch
from slow_regions import DTYPES, Corner, Size, all_corners, numbers_of, positions
from torch import Tensor

from srp_exp.srp import region_kernel
from srp_exp.srp.region import PLACEMENTS, RegionPlacement

Kernel = Callable[..., Tensor]


def slow_step(x: Tensor, upstream: Tensor, corners: list[list[Corner]], region: Size) -> tuple[Tensor, Tensor]:
    """Mean and gradient in float64, position by position; samples in a row share the lists of corners."""
    mean, gradient = torch.zeros(x.shape[:2], dtype=torch.float64), torch.zeros(x.shape, dtype=torch.float64)
    for n in range(len(x)):
        of_sample = corners[n // (len(x) // len(corners))]
        count = len(of_sample) * region[0] * region[1]
        for corner in of_sample:
            for row, column in positions(corner, region, (x.shape[2], x.shape[3])):
                mean[n] += x[n, :, row, column].double() / count
                gradient[n, :, row, column] += upstream[n, :, 0, 0].double() / count
    return mean[..., None, None], gradient


def cases() -> Iterator[tuple[Tensor, list[list[Corner]], Size, RegionPlacement]]:
    """Maps, the corners of their regions, and the regions' size."""
    torch.manual_seed(0)
    for placement, region in itertools.product(PLACEMENTS, ((1, 1), (2, 2), (3, 2), (5, 3))):  # every corner of a map
        corners = [[corner] for corner in all_corners((5, 3), region, placement)]
        yield torch.randn(len(corners), 3, 5, 3), corners, region, placement
    three = [[(0, 0), (1, 1), (1, 1)], [(3, 2), (0, 2), (2, 0)]]
    for number, placement in enumerate(PLACEMENTS):  # k = 1, 2, 3, shared by two samples or by all
        maps = [torch.randn(4, 5, 7, 6).to(dtype) for dtype in (*DTYPES[number:], *DTYPES[:number])]
        yield maps[0], three, (4, 3), placement
        yield maps[1].contiguous(memory_format=torch.channels_last), [c[:2] for c in three], (4, 3), placement
        yield maps[2][:, 1:, ::2, 1:], [[(1, 3)]], (2, 2), placement
        yield maps[3].permute(0, 2, 3, 1), [[(0, 0)], [(1, 1)], [(0, 1)], [(2, 0)]], (3, 2), placement
    yield torch.randn(1, 1, 4, 4), [[(1, 0)]], (2, 4), "corner"
    yield torch.randn(2, 19, 17, 23), [[(5, 20)], [(16, 3)]], (16, 21), "wrap"  # several blocks of both axes
    yield torch.randn(2, 19, 16, 23).contiguous(memory_format=torch.channels_last), [[(1, 0)]], (14, 21), "corner"


def check(name: str, actual: Tensor, expected: Tensor) -> None:
    tolerance = {"rtol": 2 * torch.finfo(actual.dtype).eps, "atol": 1e-15 if actual.dtype == torch.float64 else 1e-7}
    torch.testing.assert_close(actual.double(), expected, **tolerance, msg=lambda message: f"{name}: {message}")


def compare(
    x: Tensor, corners: list[list[Corner]], region: Size, placement: RegionPlacement, pool: Kernel, spread: Kernel
) -> None:
    numbers = numbers_of(corners, region, (x.shape[2], x.shape[3]), placement)
    upstream = torch.randn(x.shape[:2]).to(x.dtype)[..., None, None]
    mean, gradient = slow_step(x, upstream, corners, region)
    x[gradient == 0] = torch.nan  # what the kernel reads although it lies outside of the regions
    layout = sorted(range(4), key=x.stride().__getitem__, reverse=True)
    name = f"{tuple(x.shape)}, {x.dtype}, regions {region}, {placement}"
    settings = (*region, placement)
    check(f"mean of {name}", pool(x, numbers, *settings), mean)
    of_x = spread(upstream, numbers, x.shape, layout, *settings)
    assert of_x.stride() == torch.empty_like(x).stride(), name
    check(f"gradient of {name}", of_x, gradient)
    assert not of_x[gradient == 0].any(), name


def main() -> None:
    """Every case by the direct launch: of what is compiled, and of what was compiled; and some by the operators."""
    for kernel in (region_kernel.pool_kernel, region_kernel.spread_kernel):
        kernel.warmup = lambda *_, kernel=kernel, **__: kernel  # the interpreter compiles nothing
    region_kernel._is_plain = lambda x: True
    torch.cuda.current_device = lambda: -1  # as a tensor on a CPU says
    for number, case in enumerate(cases()):
        compare(*case, region_kernel.pool, region_kernel.spread_mean)
        if number % 8 == 0:
            compiled = len(region_kernel._launchers)
            compare(*case, region_kernel.pool, region_kernel.spread_mean)
            assert len(region_kernel._launchers) == compiled
            compare(*case, region_kernel.pool_op, region_kernel.spread_op)


if __name__ == "__main__":
    main()
