"""Random regions and the pooling over them against slow loops, on maps small enough to try every region."""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from srp_exp.srp.region import (
    SHARES,
    Share,
    StochasticRegionPool2d,
    draw_offsets,
    region_coverage,
    region_mean,
    region_side,
)

Corner = tuple[int, int]
Size = tuple[int, int]

CPU = torch.device("cpu")
MAP_SIZES = [(4, 4), (3, 5)]
map_sizes = pytest.mark.parametrize("map_size", MAP_SIZES)
shares = pytest.mark.parametrize("share", SHARES)


def training_pool(scale: float, share: Share = "sample", regions: int = 1) -> StochasticRegionPool2d:
    return StochasticRegionPool2d(scale, share, regions).train()


def slow_coverage(corners: list[Corner], region: Size, map_size: Size) -> list[list[int]]:
    """How many regions cover each position, position by position."""
    (height, width), rows, columns = region, range(map_size[0]), range(map_size[1])
    return [
        [sum(top <= i < top + height and left <= j < left + width for top, left in corners) for j in columns]
        for i in rows
    ]


def slow_mean(map_: Tensor, corners: list[Corner], region: Size) -> float:
    """Mean of one channel (H, W) over all regions, position by position; overlaps count twice."""
    values = [
        Fraction(map_[top + i, left + j].item())
        for top, left in corners
        for i, j in itertools.product(range(region[0]), range(region[1]))
    ]
    return float(sum(values) / len(values))


def all_corners(map_size: Size, region: Size) -> list[Corner]:
    height, width = map_size
    return [
        (top, left)
        for top in range(height)
        for left in range(width)
        if top + region[0] <= height and left + region[1] <= width
    ]


def corner_tensors(corner_lists: list[list[Corner]]) -> tuple[Tensor, Tensor]:
    """N lists of k corners as (top, left), each (N, k)."""
    top, left = torch.tensor(corner_lists).unbind(-1)
    return top, left


def factor(corner_list: list[Corner], region: Size, map_size: Size) -> float:
    return math.prod(map_size) / (len(corner_list) * math.prod(region))


def seen_by(pool: StochasticRegionPool2d, shape: tuple[int, ...]) -> Tensor:
    """Gradient of the sum of the pooled values: not 0 where a position of the map enters the pooling."""
    x = torch.randn(shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    return gradient


def rectangle(map_: Tensor) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the positions of (H, W) that are not 0, which must fill a rectangle."""
    rows, columns = map_.nonzero(as_tuple=True)
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    assert len(rows) == height * width
    return top, left, height, width


def assert_uniform(counts: Counter[Corner], corners: list[Corner]) -> None:
    """Chi-square test over the corners: uniform draws exceed the bound once in a million seeds."""
    assert set(counts) == set(corners)
    expected = counts.total() / len(corners)
    assert expected >= 20  # the chi-square distribution holds
    statistic = sum((counts[corner] - expected) ** 2 / expected for corner in corners)
    assert statistic < stats.chi2.ppf(1 - 1e-6, df=len(corners) - 1)


class TestRegionSide:
    def test_equals_exact_arithmetic_on_the_decimal_scale(self) -> None:
        for percent, map_side in itertools.product(range(1, 101), range(1, 65)):
            exact = max(1, math.floor(Fraction(percent, 100) * map_side + Fraction(1, 2)))
            assert region_side(percent / 100, map_side) == exact, (percent, map_side)

    @pytest.mark.parametrize(
        ("scale", "map_side", "side"),
        [(0.5, 7, 4), (0.3, 5, 2), (0.7, 45, 32), (0.01, 8, 1), (1.0, 224, 224)],
    )
    def test_literal_values_with_halves_rounded_up(self, scale: float, map_side: int, side: int) -> None:
        assert region_side(scale, map_side) == side


@map_sizes
class TestEveryRegion:
    """region_coverage and region_mean on every region of a small map."""

    def test_every_region_of_every_size(self, map_size: Size) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            corners = all_corners(map_size, region)
            assert len(corners) == (map_size[0] - region[0] + 1) * (map_size[1] - region[1] + 1)
            self.check(map_, [[corner] for corner in corners], region)

    def test_overlapping_regions_count_with_multiplicity(self, map_size: Size) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        threes = itertools.combinations_with_replacement(all_corners(map_size, (2, 2)), 3)
        self.check(map_, [list(three) for three in threes], (2, 2))

    def check(self, map_: Tensor, corner_lists: list[list[Corner]], region: Size) -> None:
        height, width = map_.shape
        coverage = region_coverage(*corner_tensors(corner_lists), region, (height, width), torch.int64)
        expected = [[slow_coverage(corners, region, (height, width))] for corners in corner_lists]
        assert torch.equal(coverage, torch.tensor(expected))  # (N, 1, H, W), int64
        means = region_mean(map_, coverage, factor(corner_lists[0], region, (height, width)))
        expected_means = [slow_mean(map_, corners, region) for corners in corner_lists]
        assert means.shape == (len(corner_lists), 1, 1, 1)
        torch.testing.assert_close(
            means.flatten(), torch.tensor(expected_means, dtype=torch.float64), rtol=1e-12, atol=1e-14
        )


class TestPlacement:
    def test_largest_random_number_stays_inside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        largest = 1 - 2**-24
        monkeypatch.setattr(torch, "rand", lambda shape, **kwargs: torch.full(shape, largest, **kwargs))
        for range_ in range(1, 1025):
            assert draw_offsets((1, 1), range_, CPU).item() == range_ - 1

    @pytest.mark.parametrize("scale", [0.25, 0.5, 0.75])
    @map_sizes
    @shares
    def test_every_corner_is_drawn_equally_often(self, map_size: Size, scale: float, share: Share) -> None:
        torch.manual_seed(0)
        pool = training_pool(scale, share)
        batch, steps = (2000, 1) if share == "sample" else (1, 500)
        maps = torch.cat([seen_by(pool, (batch, 1, *map_size)) for _ in range(steps)])
        rectangles = [rectangle(map_) for map_ in maps[:, 0]]
        region = (region_side(scale, map_size[0]), region_side(scale, map_size[1]))
        assert {sides[2:] for sides in rectangles} == {region}
        assert_uniform(Counter((top, left) for top, left, *_ in rectangles), all_corners(map_size, region))

    def test_the_two_regions_of_one_image_are_independent(self) -> None:
        torch.manual_seed(0)
        top, left = training_pool(0.5, regions=2).draw(20_000, (3, 3), (2, 2), CPU)
        pairs = Counter((a * 2 + b, c * 2 + d) for (a, c), (b, d) in zip(top.tolist(), left.tolist(), strict=True))
        assert_uniform(pairs, [divmod(pair, 4) for pair in range(16)])

    def test_share_sample_differs_within_a_batch_and_share_batch_does_not(self) -> None:
        torch.manual_seed(0)
        per_image, shared = (seen_by(training_pool(0.5, share), (32, 2, 8, 8)) for share in SHARES)
        assert len({rectangle(map_) for map_ in per_image[:, 0]}) > 1
        assert len({rectangle(map_) for map_ in shared.flatten(0, 1)}) == 1

    @shares
    def test_steps_differ_and_a_seed_repeats_them(self, share: Share) -> None:
        pool, x = training_pool(0.25, share), torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(3)
        first, second = pool(x), pool(x)
        torch.manual_seed(3)
        assert not torch.equal(first, second)
        assert torch.equal(pool(x), first)


class TestPooledValue:
    @pytest.mark.parametrize("regions", [1, 3])
    @pytest.mark.parametrize("shape", [(4, 3, 6, 7), (1, 3, 6, 7), (4, 1, 6, 7), (3, 2, 1, 1), (3, 2, 1, 6)])
    @shares
    def test_equals_a_slow_loop(self, share: Share, shape: tuple[int, int, int, int], regions: int) -> None:
        batch, channels, height, width = shape
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        pool = training_pool(0.5, share, regions)
        torch.manual_seed(5)
        pooled = pool(x)
        assert pooled.shape == (batch, channels, 1, 1)
        sides = (region_side(0.5, height), region_side(0.5, width))
        torch.manual_seed(5)
        top, left = pool.draw(batch, (height, width), sides, CPU)
        for b, c in itertools.product(range(batch), range(channels)):
            drawn = b if share == "sample" else 0
            corners = list(zip(top[drawn].tolist(), left[drawn].tolist(), strict=True))
            assert pooled[b, c].item() == pytest.approx(slow_mean(x[b, c], corners, sides), 1e-12, 1e-14)

    @shares
    def test_five_axes_share_the_region_of_their_image(self, share: Share) -> None:
        x = torch.randn(3, 2, 4, 6, 5, dtype=torch.float64)
        pool = training_pool(0.5, share)
        torch.manual_seed(1)
        together = pool(x)
        torch.manual_seed(1)
        flat = pool(x.flatten(1, 2))
        assert together.shape == (3, 2, 4, 1, 1)
        torch.testing.assert_close(together, flat.view(3, 2, 4, 1, 1))

    @shares
    def test_input_is_not_modified(self, share: Share) -> None:
        x = torch.randn(2, 3, 6, 6)
        before = x.clone()
        training_pool(0.5, share)(x)
        assert torch.equal(x, before)


class TestWholeMap:
    """Scale 1 is global average pooling, in output and gradient."""

    @pytest.mark.parametrize(
        "average", [lambda y: y.mean((2, 3), keepdim=True), lambda y: F.adaptive_avg_pool2d(y, 1)], ids=["mean", "pool"]
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 1, 1, 1), (2, 3, 56, 56)])
    @shares
    def test_one_region_bit_for_bit(
        self, share: Share, shape: tuple[int, ...], dtype: torch.dtype, average: Callable[[Tensor], Tensor]
    ) -> None:
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        upstream = torch.randn(*shape[:2], 1, 1, dtype=dtype)
        results = []
        for pool in (training_pool(1.0, share), average):
            pooled = pool(x)
            results.append((pooled, *torch.autograd.grad(pooled, x, upstream)))
        (pooled, gradient), (expected, expected_gradient) = results
        assert torch.equal(pooled, expected)
        assert torch.equal(gradient, expected_gradient)

    @pytest.mark.parametrize("regions", [2, 3, 49])
    def test_many_regions_up_to_rounding(self, regions: int) -> None:
        x = torch.randn(2, 5, 7, 9)
        torch.testing.assert_close(training_pool(1.0, "sample", regions)(x), x.mean((2, 3), keepdim=True))
        gradient = seen_by(training_pool(1.0, "sample", regions), (2, 5, 7, 9))
        torch.testing.assert_close(gradient, torch.full((2, 5, 7, 9), 1 / 63))


class TestGradient:
    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_gradcheck_and_gradgradcheck(self, share: Share, regions: int) -> None:
        pool = training_pool(0.6, share, regions)

        def descriptor(x: Tensor) -> Tensor:
            torch.manual_seed(0)  # the same region every time
            return pool(x).tanh()

        x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(descriptor, (x,))
        assert torch.autograd.gradgradcheck(descriptor, (x,))

    @pytest.mark.parametrize(
        ("x_shape", "coverage_shape"),
        [((3, 2, 4, 5), (3, 1, 4, 5)), ((3, 2, 4, 5), (1, 1, 4, 5)), ((3, 2, 2, 4, 5), (3, 1, 1, 4, 5))],
        ids=["sample", "batch", "five-axes"],
    )
    def test_is_that_of_the_formula_in_plain_autograd(self, x_shape: tuple[int, ...], coverage_shape: Size) -> None:
        torch.manual_seed(0)
        x = torch.randn(x_shape, dtype=torch.float64, requires_grad=True)
        coverage, factor_ = torch.randint(0, 4, coverage_shape), 20 / 18
        upstream = torch.randn(*x_shape[:-2], 1, 1, dtype=torch.float64)
        (gradient,) = torch.autograd.grad(region_mean(x, coverage, factor_), x, upstream)
        (expected,) = torch.autograd.grad((x * coverage).mean((-2, -1), keepdim=True) * factor_, x, upstream)
        torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=0)

    @shares
    def test_is_one_over_the_area_inside_and_exactly_zero_outside(self, share: Share) -> None:
        torch.manual_seed(0)
        gradients = seen_by(training_pool(0.5, share), (4, 2, 6, 8))
        for gradient in gradients.flatten(0, 1):
            assert rectangle(gradient)[2:] == (3, 4)
            torch.testing.assert_close(gradient[gradient != 0], torch.full((12,), 1 / 12))
        assert torch.equal(gradients[:, 0], gradients[:, 1])  # all channels see the same region


@shares
class TestEvaluation:
    @pytest.mark.parametrize("shape", [(2, 3, 6, 6), (1, 1, 1, 1), (2, 2, 3, 6, 5)])
    def test_is_the_plain_mean_and_draws_nothing(self, share: Share, shape: tuple[int, ...]) -> None:
        x = torch.randn(shape)
        state = torch.get_rng_state()
        pooled = StochasticRegionPool2d(0.3, share, 2).eval()(x)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(pooled, x.mean((-2, -1), keepdim=True))

    def test_training_draws(self, share: Share) -> None:
        state = torch.get_rng_state()
        training_pool(0.3, share)(torch.zeros(2, 3, 6, 6))
        assert not torch.equal(torch.get_rng_state(), state)


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_mask_of_zeros_and_ones_is_exact(self, dtype: torch.dtype) -> None:
        """What lies outside the region has no influence, what lies inside is not rounded."""
        x = torch.randn(3, 4, 6, 5).to(dtype)
        coverage = region_coverage(*corner_tensors([[(0, 0)], [(2, 1)], [(3, 2)]]), (3, 3), (6, 5), torch.int64)
        expected = torch.where(coverage == 1, x, 0).mean((2, 3), keepdim=True)
        assert torch.equal(region_mean(x, coverage.to(dtype), 1.0), expected)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("regions", [1, 3])
    @shares
    def test_keeps_the_dtype(self, share: Share, regions: int, dtype: torch.dtype) -> None:
        x = torch.rand(4, 3, 8, 6).to(dtype).requires_grad_()
        pool = training_pool(0.37, share, regions)
        torch.manual_seed(2)
        pooled = pool(x)
        torch.manual_seed(2)
        expected = pool(x.double())
        (gradient,) = torch.autograd.grad(pooled.sum(), x)
        (expected_gradient,) = torch.autograd.grad(expected.sum(), x)
        assert pooled.dtype == gradient.dtype == dtype
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(pooled.double(), expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=tolerance)

    def test_small_region_of_a_large_map_in_half(self) -> None:
        x = torch.rand(2, 8, 56, 56).mul_(0.01).half()
        pool = training_pool(0.02)
        torch.manual_seed(2)
        pooled = pool(x)
        torch.manual_seed(2)
        torch.testing.assert_close(pooled.float(), pool(x.float()), rtol=2e-3, atol=0)

    def test_large_gradient_in_half(self) -> None:
        """As a gradient scaler makes them: what a plain mean passes on without overflow, a region does too."""
        x = torch.rand(2, 8, 56, 56).half().requires_grad_()
        (gradient,) = torch.autograd.grad(training_pool(0.1)(x), x, torch.full((2, 8, 1, 1), 4096.0).half())
        assert gradient.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_casting_the_model_keeps_the_scale(self, dtype: torch.dtype) -> None:
        scale = 0.123456789  # neither half nor bfloat16 holds it
        net = nn.Sequential(nn.Conv2d(1, 1, 1), StochasticRegionPool2d(scale))
        pool = net.to(dtype)[1]
        assert isinstance(pool, StochasticRegionPool2d)
        assert pool.scale == scale
        assert pool.scale_units.dtype == torch.int64
        assert pool.scale_units.item() == 123456789

    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_autocast(self, share: Share, regions: int) -> None:
        torch.manual_seed(0)
        conv, fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = training_pool(0.5, share, regions)(conv(torch.randn(2, 3, 8, 8)))
            logits = fc(pooled.flatten(1))
        assert pooled.dtype == logits.dtype == torch.bfloat16
        logits.float().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in conv.parameters())


class TestLayout:
    """Memory formats are those of a plain mean, whichever comes in."""

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("shape", [(2, 8, 6, 6), (1, 8, 6, 6), (2, 1, 6, 5), (2, 8, 1, 1)])
    @shares
    def test_output_and_gradient(
        self, share: Share, shape: tuple[int, ...], memory_format: torch.memory_format
    ) -> None:
        x = torch.randn(shape).to(memory_format=memory_format).requires_grad_()
        strides = []
        for pool in (training_pool(0.5, share), lambda y: y.mean((2, 3), keepdim=True)):
            pooled = pool(x)
            (gradient,) = torch.autograd.grad(pooled, x, torch.randn_like(pooled))
            strides.append((pooled.stride(), gradient.stride()))
        assert strides[0] == strides[1]

    @shares
    def test_values_do_not_depend_on_it(self, share: Share) -> None:
        x, pool = torch.randn(2, 8, 6, 5, dtype=torch.float64), training_pool(0.5, share)
        results = []
        for y in (x, x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
            torch.manual_seed(0)
            results.append(pool(y))
        torch.testing.assert_close(results[1], results[0])
        torch.testing.assert_close(results[2], results[0])


class TestSettings:
    @pytest.mark.parametrize("scale", [0, -0.1, 1.0001, 2, math.nan, math.inf])
    def test_scale_out_of_range(self, scale: float) -> None:
        with pytest.raises(ValueError, match=r"^scale=.* is not in \(0, 1\].*$") as error:
            StochasticRegionPool2d(scale)
        assert f"scale={scale}" in str(error.value)
        assert "\n" not in str(error.value)

    def test_unknown_share(self) -> None:
        with pytest.raises(ValueError, match=r"^share='channel' is not one of sample, batch$"):
            StochasticRegionPool2d(0.5, "channel")  # type: ignore[arg-type]

    @pytest.mark.parametrize("regions", [0, -1])
    def test_too_few_regions(self, regions: int) -> None:
        with pytest.raises(ValueError, match=rf"^regions={regions} is below 1[^\n]*$"):
            StochasticRegionPool2d(0.5, regions=regions)

    @pytest.mark.parametrize(("ramp", "scale"), [(0, 1), (0.25, 0.825), (0.5, 0.65), (1, 0.3)])
    @shares
    def test_ramp_moves_the_scale(self, share: Share, ramp: float, scale: float) -> None:
        pool = training_pool(0.3, share)
        pool.set_ramp(0.7)  # the ramp counts from the final scale, not from the last one
        pool.set_ramp(ramp)
        side = region_side(scale, 20)
        assert pool.scale == pytest.approx(scale, abs=1e-12)
        assert pool.final_scale == 0.3
        assert rectangle(seen_by(pool, (1, 1, 20, 20))[0, 0])[2:] == (side, side)

    def test_full_ramp_gives_the_sides_of_the_final_scale(self) -> None:
        for percent, map_side in itertools.product(range(1, 101), range(1, 65)):
            pool = StochasticRegionPool2d(percent / 100)
            pool.set_ramp(1)
            assert region_side(pool.scale, map_side) == region_side(percent / 100, map_side), (percent, map_side)

    def test_state_dict_is_empty(self) -> None:
        pool = StochasticRegionPool2d(0.5)
        assert pool.state_dict() == {}
        assert list(pool.parameters()) == []
        pool.load_state_dict({})

    def test_deepcopy_is_independent(self) -> None:
        pool, x = training_pool(0.5, "batch"), torch.randn(2, 2, 6, 6)
        twin = copy.deepcopy(pool)
        twin.set_ramp(0)
        assert torch.equal(twin(x), x.mean((2, 3), keepdim=True))
        assert (pool.scale, pool.scale_units.item()) == (0.5, 500_000_000)
        torch.manual_seed(0)
        expected = pool(x)
        twin.set_ramp(1)
        torch.manual_seed(0)
        assert torch.equal(twin(x), expected)

    def test_repr_shows_the_settings(self) -> None:
        assert repr(StochasticRegionPool2d(0.25, "batch", 3)) == (
            "StochasticRegionPool2d(scale=0.25, share=batch, regions=3)"
        )
