"""Random regions and the mean over them against slow loops, on maps small enough to try every region."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from srp_exp.srp import Draws, RegionPool, region_side
from srp_exp.srp.region import (
    PLACEMENTS,
    MaskPlan,
    Numbers,
    Placement,
    corner_range,
    in_units,
    traced_side,
)
from srp_exp.srp.region_mean import cleared_mean, region_mean, traced_region_mean

Corner = tuple[int, int]
Size = tuple[int, int]

CPU = torch.device("cpu")
MAP_SIZES = [(4, 4), (3, 5), (5, 2), (1, 4)]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
map_sizes = pytest.mark.parametrize("map_size", MAP_SIZES)
placements = pytest.mark.parametrize("placement", PLACEMENTS)


def positions(corner: Corner, region: Size, map_size: Size) -> list[Corner]:
    """The positions of a region, one by one; those beyond the edge come in again at the other side."""
    (top, left), (height, width) = corner, map_size
    inside = []
    for i in range(region[0]):
        for j in range(region[1]):
            row, column = top + i, left + j
            inside.append((row - height if row >= height else row, column - width if column >= width else column))
    return inside


def all_corners(map_size: Size, region: Size, placement: Placement) -> list[Corner]:
    """Every corner that a region may have: with `corner`, those where it lies inside the map."""
    return [
        (top, left)
        for top in range(map_size[0])
        for left in range(map_size[1])
        if placement == "wrap" or (top + region[0] <= map_size[0] and left + region[1] <= map_size[1])
    ]


def slow_coverage(corners: list[Corner], region: Size, map_size: Size) -> list[list[int]]:
    """How many regions cover each position."""
    counts = [[0] * map_size[1] for _ in range(map_size[0])]
    for corner in corners:
        for row, column in positions(corner, region, map_size):
            counts[row][column] += 1
    return counts


def slow_mean(map_: Tensor, corners: list[Corner], region: Size) -> float:
    """Mean of one channel (H, W) over all regions, position by position; overlaps count twice."""
    size = (map_.shape[0], map_.shape[1])
    values = [Fraction(map_[position].item()) for corner in corners for position in positions(corner, region, size)]
    return float(sum(values) / len(values))


def numbers_of(corner_lists: list[list[Corner]], region: Size, map_size: Size, placement: Placement) -> Tensor:
    """Uniform numbers (2, 1, N, k, 1, 1) in the middle of those that mean the N lists of k corners."""
    corners = torch.tensor(corner_lists, dtype=torch.float64).movedim(-1, 0)
    ranges = [side if placement == "wrap" else side - r + 1 for side, r in zip(map_size, region, strict=True)]
    numbers = (corners + 0.5) / torch.tensor(ranges).view(2, 1, 1)
    return numbers[:, None, :, :, None, None].float()


def masks_of(
    corner_lists: list[list[Corner]], region: Size, map_size: Size, placement: Placement, dtype: torch.dtype
) -> Tensor:
    plan = MaskPlan([map_size], [region], placement, CPU)
    return plan.masks(numbers_of(corner_lists, region, map_size, placement), dtype)[0]


def _of_dims(masks: Tensor, x: Tensor) -> Tensor:
    return masks.view(len(masks), *[1] * (x.dim() - 3), *x.shape[-2:])


def all_means(
    x: Tensor, corner_lists: list[list[Corner]], region: Size, placement: Placement
) -> dict[str, Callable[[], Tensor]]:
    """The mean as an eager step makes it, on a CPU and on a GPU, and a compiled one, of regions with these corners."""
    size = (x.shape[-2], x.shape[-1])
    numbers = numbers_of(corner_lists, region, size, placement)
    masks, count = masks_of(corner_lists, region, size, placement, x.dtype), len(corner_lists[0])
    return {
        "eager": lambda: region_mean(x, masks, region, count),
        "eager on a GPU": lambda: cleared_mean(
            x, _of_dims(masks, x), count, math.prod(size) / (count * math.prod(region))
        ),
        "traced": lambda: traced_region_mean(x, numbers[:, 0], region, placement),
    }


class TestRegionSide:
    def test_equals_exact_arithmetic_on_the_decimal_scale(self) -> None:
        for percent, map_side in itertools.product(range(1, 101), range(1, 65)):
            exact = max(1, math.floor(Fraction(percent, 100) * map_side + Fraction(1, 2)))
            assert region_side(percent / 100, map_side) == exact, (percent, map_side)
            assert traced_side(torch.tensor(in_units(percent / 100)), map_side).item() == exact, (percent, map_side)

    @pytest.mark.parametrize(
        ("scale", "map_side", "side"),
        [(0.5, 7, 4), (0.3, 5, 2), (0.7, 45, 32), (0.01, 8, 1), (1.0, 224, 224)],
    )
    def test_literal_values_with_halves_rounded_up(self, scale: float, map_side: int, side: int) -> None:
        assert region_side(scale, map_side) == side


@map_sizes
@placements
class TestEveryRegion:
    """Masks and means of every region of a small map."""

    def test_every_region_of_every_size(self, map_size: Size, placement: Placement) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            corners = all_corners(map_size, region, placement)
            ranges = [corner_range(placement, side, map_side) for side, map_side in zip(region, map_size, strict=True)]
            assert len(corners) == ranges[0] * ranges[1]
            self.check(map_, [[corner] for corner in corners], region, placement)

    def test_overlapping_regions_count_with_multiplicity(self, map_size: Size, placement: Placement) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        region = (min(2, map_size[0]), 2)
        corners = all_corners(map_size, region, placement)
        threes = itertools.islice(itertools.combinations_with_replacement(corners, 3), 0, None, 3)
        self.check(map_, [list(three) for three in threes], region, placement)

    def check(self, map_: Tensor, corner_lists: list[list[Corner]], region: Size, placement: Placement) -> None:
        size = (map_.shape[0], map_.shape[1])
        expected = torch.tensor([[slow_coverage(corners, region, size)] for corners in corner_lists])
        for dtype in DTYPES:
            masks = masks_of(corner_lists, region, size, placement, dtype)
            assert masks.dtype == dtype
            assert torch.equal(masks, expected.to(dtype))  # (N, 1, H, W)
        x = map_.expand(len(corner_lists), 1, *size)
        exact = torch.tensor([slow_mean(map_, corners, region) for corners in corner_lists], dtype=torch.float64)
        for means in all_means(x, corner_lists, region, placement).values():
            assert means().shape == (len(corner_lists), 1, 1, 1)
            torch.testing.assert_close(means().flatten(), exact, rtol=1e-12, atol=1e-14)


class TestCoverage:
    """How often a position lies in a region when all corners are equally likely."""

    @map_sizes
    def test_wrap_covers_every_position_alike_and_is_unbiased(self, map_size: Size) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        exact_map = [[Fraction(value) for value in row] for row in map_.tolist()]
        average = sum(itertools.chain(*exact_map)) / math.prod(map_size)
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            corners = all_corners(map_size, region, "wrap")
            counts = self.counts([[corner] for corner in corners], region, map_size, "wrap")
            assert {count for row in counts for count in row} == {math.prod(region)}
            pairs = zip(itertools.chain(*counts), itertools.chain(*exact_map), strict=True)
            total = sum(count * value for count, value in pairs)
            assert total / (math.prod(region) * len(corners)) == average  # E[z] = GAP, in exact arithmetic

    @map_sizes
    def test_corner_covers_as_the_formula_says(self, map_size: Size) -> None:
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            corners = all_corners(map_size, region, "corner")
            counts = self.counts([[corner] for corner in corners], region, map_size, "corner")
            assert counts == slow_coverage(corners, region, map_size)
            rows, columns = (self.formula(side, r) for side, r in zip(map_size, region, strict=True))
            assert counts == [[row * column for column in columns] for row in rows]

    def test_corner_is_biased_towards_the_centre(self) -> None:
        """Of a 4 x 4 map with regions of 3 x 3, the centre is in all four regions and a corner in one."""
        corners = [[corner] for corner in all_corners((4, 4), (3, 3), "corner")]
        counts = self.counts(corners, (3, 3), (4, 4), "corner")
        assert counts == [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]

    @staticmethod
    def formula(map_side: int, side: int) -> list[int]:
        """Corners t in 0..R-1 with t <= i < t + side, R = map_side - side + 1: min(i, R-1) - max(0, i-side+1) + 1."""
        last = map_side - side
        return [min(i, last) - max(0, i - side + 1) + 1 for i in range(map_side)]

    @staticmethod
    def counts(corner_lists: list[list[Corner]], region: Size, map_size: Size, placement: Placement) -> list[list[int]]:
        masks = masks_of(corner_lists, region, map_size, placement, torch.float64)
        return [[int(count) for count in row] for row in masks.sum((0, 1)).tolist()]


class TestMaskPlan:
    @placements
    def test_largest_random_number_stays_inside(self, placement: Placement) -> None:
        """A region of 1 x 1 in maps of 1 to 1,024 rows, with the largest float32 below 1: the last row."""
        largest = 1 - 2**-24
        maps = [(rows, 1) for rows in range(1, 1025)]
        numbers = torch.full((2, len(maps), 1, 1, 1, 1), largest)
        assert float(numbers[0, 0]) == largest
        planned = MaskPlan(maps, [(1, 1)] * len(maps), placement, CPU).masks(numbers, torch.float32)
        pool = RegionPool(0.0001, Draws(placement=placement))
        for masks, (rows, _) in zip(planned, maps, strict=True):
            x = torch.arange(rows, dtype=torch.float64).view(1, 1, rows, 1)
            assert masks.flatten().nonzero().flatten().tolist() == [rows - 1]
            assert traced_region_mean(x, numbers[:, 0], (1, 1), placement).item() == pytest.approx(rows - 1, 1e-12)
        for rows in (1, 3, 1000, 1024):
            taken = Numbers(numbers[:, :1], 0, True, (1, 1))
            assert pool.corners(taken, (rows, 1)).tolist() == [[[rows - 1, 0]]]

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("regions", [1, 2])
    @placements
    def test_planned_together_equal_those_made_alone(
        self, placement: Placement, regions: int, dtype: torch.dtype
    ) -> None:
        """Maps of equal size in a row, the same size again later, non-square ones, whole maps, and a 1 x 1 map."""
        maps = [(8, 8), (8, 8), (4, 6), (8, 8), (6, 4), (6, 4), (1, 1), (2, 9)]
        sizes = [(4, 4), (2, 7), (2, 3), (8, 8), (6, 1), (3, 3), (1, 1), (1, 5)]
        numbers = torch.rand(2, len(maps), 3, regions, 1, 1, generator=torch.Generator().manual_seed(0))
        together = MaskPlan(maps, sizes, placement, CPU).masks(numbers, dtype)
        assert len(together) == len(maps)
        for index, (map_size, region) in enumerate(zip(maps, sizes, strict=True)):
            (alone,) = MaskPlan([map_size], [region], placement, CPU).masks(numbers[:, index : index + 1], dtype)
            assert torch.equal(together[index], alone)
            assert together[index].shape == (3, 1, *map_size)
            assert int(alone.sum()) == 3 * regions * math.prod(region)


NOT_FINITE = [math.inf, -math.inf, math.nan]


class TestNotFinite:
    """Infinity and NaN count where they lie in a region, and nowhere else."""

    @pytest.mark.parametrize("value", NOT_FINITE)
    @pytest.mark.parametrize("regions", [1, 2])
    @pytest.mark.parametrize("dtype", DTYPES)
    @placements
    def test_outside_has_no_influence(
        self, placement: Placement, dtype: torch.dtype, regions: int, value: float
    ) -> None:
        corner_lists = [[(0, 0), (2, 1)][:regions], [(3, 2), (3, 1)][:regions]]
        coverage = torch.tensor([[slow_coverage(corners, (2, 3), (5, 6))] for corners in corner_lists])
        finite = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
        results = []
        for outside in (0.0, value):
            x = torch.where(coverage > 0, finite, outside).requires_grad_()
            for name, mean in all_means(x, corner_lists, (2, 3), placement).items():
                pooled = mean()
                (gradient,) = torch.autograd.grad(pooled.sum(), x)
                results.append((name, pooled, gradient))
                assert pooled.isfinite().all(), name
                assert gradient.isfinite().all() and not gradient[(coverage == 0).expand_as(x)].any(), name
        for (name, *expected), (_, *actual) in zip(results[:3], results[3:], strict=True):
            assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True)), name

    @pytest.mark.parametrize("value", NOT_FINITE)
    @pytest.mark.parametrize("regions", [1, 2])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_inside_is_not_hidden(self, dtype: torch.dtype, regions: int, value: float) -> None:
        x = torch.ones(1, 2, 5, 6, dtype=dtype)
        x[0, 1, 1, 2] = value
        for name, mean in all_means(x, [[(0, 0), (0, 1)][:regions]], (2, 3), "corner").items():
            expected = torch.tensor([[1.0, value]], dtype=dtype)
            torch.testing.assert_close(mean().flatten(1), expected, equal_nan=True, msg=name)


class TestGradient:
    @pytest.mark.parametrize(
        ("x_shape", "drawn"),
        [((3, 2, 4, 5), 3), ((3, 2, 4, 5), 1), ((3, 2, 2, 4, 5), 3), ((3, 2, 2, 4, 5), 1)],
        ids=["sample", "batch", "five-axes", "five-axes-batch"],
    )
    @pytest.mark.parametrize("regions", [1, 2])
    @placements
    def test_is_that_of_the_formula_in_plain_autograd(
        self, placement: Placement, regions: int, x_shape: tuple[int, ...], drawn: int
    ) -> None:
        torch.manual_seed(0)
        x = torch.randn(x_shape, dtype=torch.float64, requires_grad=True)
        corners = [[(0, 2), (1, 1)][:regions], [(2, 0), (2, 1)][:regions], [(1, 2), (1, 2)][:regions]][:drawn]
        coverage = torch.tensor([slow_coverage(c, (2, 3), (4, 5)) for c in corners])
        coverage = coverage.view(drawn, *[1] * (x.dim() - 3), 4, 5)
        upstream = torch.randn(*x_shape[:-2], 1, 1, dtype=torch.float64)
        plain = (x * coverage).sum((-2, -1), keepdim=True) / (6 * regions)
        (expected,) = torch.autograd.grad(plain, x, upstream)
        for name, mean in all_means(x, corners, (2, 3), placement).items():
            pooled = mean()
            (gradient,) = torch.autograd.grad(pooled, x, upstream)
            torch.testing.assert_close(pooled, plain, rtol=1e-13, atol=1e-15, msg=name)
            torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=0, msg=name)


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_mask_is_exact(self, dtype: torch.dtype) -> None:
        """What lies outside the region has no influence, what lies inside is not rounded: as float32 takes it."""
        x = torch.randn(3, 4, 6, 5).to(dtype)
        corners = [[(0, 0)], [(2, 1)], [(3, 2)]]
        for name, mean in all_means(x, corners, (3, 3), "corner").items():
            crops = [x[b, :, t : t + 3, c : c + 3].double().mean((1, 2)) for b, [(t, c)] in enumerate(corners)]
            expected = torch.stack(crops)[..., None, None]
            error = (mean().double() - expected).abs()
            ulp = torch.finfo(dtype).eps * expected.abs()
            assert (error <= 0.5001 * ulp).all(), name  # rounded once, from float32

    def test_lower_precision_of_matrix_products_is_not_that_of_a_mean(self) -> None:
        """torch.set_float32_matmul_precision("medium") lets a product of float32 round its factors to bfloat16."""
        x = torch.randn(64, 64, 32, 32, generator=torch.Generator().manual_seed(0)) + 3
        masks = masks_of([[(4, 7)]] * 64, (20, 20), (32, 32), "corner", torch.float32)
        expected = x[:, :, 4:24, 7:27].double().mean((2, 3), keepdim=True)
        before = torch.get_float32_matmul_precision()
        try:
            for precision in ("highest", "high", "medium"):
                torch.set_float32_matmul_precision(precision)
                mean = region_mean(x, masks, (20, 20), 1).double()
                torch.testing.assert_close(mean, expected, rtol=2e-6, atol=0, msg=precision)
        finally:
            torch.set_float32_matmul_precision(before)
