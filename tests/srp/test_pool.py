"""The pooling of one module over regions that it draws."""

import copy
import itertools
import math
import pickle
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from each import each
from scipy import stats
from slow_regions import DTYPES, Corner, Size, all_corners, placements, positions, slow_mean
from torch import Tensor, nn
from torch.nn import functional as F

from srp_exp.srp import RegionPool, region_side
from srp_exp.srp.region import PLACEMENTS, SHARES, RegionPlacement, Share

shares = each(share=SHARES)
shares_and_regions = each(share=SHARES, regions=(1, 2))


def own_pool(
    scale: float, share: Share = "sample", regions: int = 1, placement: RegionPlacement = "corner"
) -> RegionPool:
    return RegionPool(scale, share, regions, placement)


def seen_by(pool: RegionPool, shape: tuple[int, ...]) -> Tensor:
    """Gradient of the sum of the pooled values: not 0 where a position of the map enters the pooling."""
    x = torch.randn(shape, requires_grad=True)
    (gradient,) = torch.autograd.grad(pool(x).sum(), x)
    return gradient


def corner_of(map_: Tensor, region: Size) -> Corner:
    """The corner of a region, wrapping around or not, that fills the positions of (H, W) that are not 0."""
    size = (map_.shape[0], map_.shape[1])
    filled = {(int(row), int(column)) for row, column in map_.nonzero()}
    fills = [c for c in itertools.product(*map(range, size)) if set(positions(c, region, size)) == filled]
    assert fills, f"no region of {region}"
    return fills[0]


def corners_of(pool: RegionPool) -> Tensor:
    """The corners (N, k, 2) that the last call pooled at."""
    assert pool.last is not None
    return pool.corners(pool.last)


def assert_uniform(counts: Counter[Corner], corners: list[Corner]) -> None:
    """Chi-square test over the corners: uniform draws exceed the bound once in a million seeds."""
    assert set(counts) == set(corners)
    expected = counts.total() / len(corners)
    assert expected >= 20  # the chi-square distribution holds
    statistic = sum((counts[corner] - expected) ** 2 / expected for corner in corners)
    assert statistic < stats.chi2.ppf(1 - 1e-6, df=len(corners) - 1)


class TestPlacement:
    @pytest.mark.parametrize(
        ("share", "placement", "map_size", "scale"),
        [
            ("sample", "corner", (3, 5), 0.5),
            ("sample", "wrap", (3, 5), 0.75),
            ("batch", "corner", (4, 4), 0.75),
            ("batch", "wrap", (4, 4), 0.5),
        ],
    )
    def test_every_corner_is_drawn_equally_often(
        self, map_size: Size, scale: float, share: Share, placement: RegionPlacement
    ) -> None:
        torch.manual_seed(0)
        pool = own_pool(scale, share, placement=placement)
        batch, steps = (2000, 1) if share == "sample" else (1, 500)
        maps = torch.cat([seen_by(pool, (batch, 1, *map_size)) for _ in range(steps)])
        region = (region_side(scale, map_size[0]), region_side(scale, map_size[1]))
        drawn = Counter(corner_of(map_, region) for map_ in maps[:, 0])
        assert_uniform(drawn, all_corners(map_size, region, placement))

    def test_the_two_regions_of_one_image_are_independent(self) -> None:
        torch.manual_seed(0)
        pool = own_pool(0.5, regions=2)
        pool(torch.zeros(20_000, 1, 3, 3))
        drawn = corners_of(pool).tolist()
        assert_uniform(
            Counter((a * 2 + b, c * 2 + d) for (a, b), (c, d) in drawn), [divmod(pair, 4) for pair in range(16)]
        )

    def test_the_regions_of_two_modules_are_independent(self) -> None:
        torch.manual_seed(0)
        pools = [RegionPool(0.5), RegionPool(0.5)]
        for pool in pools:
            pool(torch.zeros(20_000, 1, 3, 3))
        both = torch.cat([corners_of(pool) for pool in pools], 1).tolist()
        assert_uniform(
            Counter((a * 2 + b, c * 2 + d) for (a, b), (c, d) in both), [divmod(pair, 4) for pair in range(16)]
        )

    def test_share_sample_differs_within_a_batch_and_share_batch_does_not(self) -> None:
        torch.manual_seed(0)
        per_image, shared = (seen_by(own_pool(0.5, share), (32, 2, 8, 8)) for share in SHARES)
        assert len({corner_of(map_, (4, 4)) for map_ in per_image[:, 0]}) > 1
        assert len({corner_of(map_, (4, 4)) for map_ in shared.flatten(0, 1)}) == 1

    @shares
    def test_steps_differ_and_a_seed_repeats_them(self, share: Share) -> None:
        pool, x = own_pool(0.25, share), torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(3)
        first, second = pool(x), pool(x)
        torch.manual_seed(3)
        assert not torch.equal(first, second)
        assert torch.equal(pool(x), first)


class TestPooledValue:
    @each(share=SHARES, regions=(1, 3), shape=[(4, 3, 6, 7), (1, 3, 6, 7), (4, 1, 6, 7), (3, 2, 1, 1), (3, 2, 1, 6)])
    @placements
    def test_equals_a_slow_loop(
        self, placement: RegionPlacement, share: Share, shape: tuple[int, int, int, int], regions: int
    ) -> None:
        batch, channels, height, width = shape
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        pool = own_pool(0.5, share, regions, placement)
        torch.manual_seed(5)
        pooled = pool(x)
        assert pooled.shape == (batch, channels, 1, 1)
        region = (region_side(0.5, height), region_side(0.5, width))
        if region == (height, width):
            assert torch.equal(pooled, x.mean((2, 3), keepdim=True))
            return
        corners = corners_of(pool).tolist()
        assert len(corners) == (batch if share == "sample" else 1)
        for b, c in itertools.product(range(batch), range(channels)):
            own = [(top, left) for top, left in corners[b if share == "sample" else 0]]
            assert pooled[b, c].item() == pytest.approx(slow_mean(x[b, c], own, region), 1e-12, 1e-14)

    @shares_and_regions
    def test_five_axes_share_the_region_of_their_image(self, share: Share, regions: int) -> None:
        x = torch.randn(3, 2, 4, 6, 5, dtype=torch.float64)
        pool = own_pool(0.5, share, regions)
        torch.manual_seed(1)
        together = pool(x)
        torch.manual_seed(1)
        flat = pool(x.flatten(1, 2))
        assert together.shape == (3, 2, 4, 1, 1)
        torch.testing.assert_close(together, flat.view(3, 2, 4, 1, 1))

    @shares_and_regions
    def test_input_is_not_modified(self, share: Share, regions: int) -> None:
        x = torch.randn(2, 3, 6, 6)
        before = x.clone()
        own_pool(0.5, share, regions)(x)
        assert torch.equal(x, before)


class TestWholeMap:
    """Scale 1 is global average pooling, in output and gradient, and draws nothing."""

    @each(
        average=[lambda y: y.mean((2, 3), keepdim=True), lambda y: F.adaptive_avg_pool2d(y, 1)],
        shape=[(2, 5, 7, 9), (1, 1, 1, 1), (2, 3, 56, 56)],
        regions=(1, 2),
    )
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_bit_for_bit(
        self, regions: int, shape: tuple[int, ...], dtype: torch.dtype, average: Callable[[Tensor], Tensor]
    ) -> None:
        x = torch.randn(shape, dtype=dtype, requires_grad=True)
        upstream = torch.randn(*shape[:2], 1, 1, dtype=dtype)
        results = []
        state = torch.get_rng_state()
        for pool in (own_pool(1.0, regions=regions), average):
            pooled = pool(x)
            results.append((pooled, *torch.autograd.grad(pooled, x, upstream)))
        assert torch.equal(torch.get_rng_state(), state)
        (pooled, gradient), (expected, expected_gradient) = results
        assert torch.equal(pooled, expected)
        assert torch.equal(gradient, expected_gradient)

    def test_a_region_that_rounds_to_the_whole_map(self) -> None:
        x, state = torch.randn(2, 3, 1, 1), torch.get_rng_state()
        assert torch.equal(own_pool(0.1)(x), x)
        assert torch.equal(torch.get_rng_state(), state)
        own_pool(0.1)(torch.zeros(2, 3, 6, 6))
        assert not torch.equal(torch.get_rng_state(), state)


class TestGradient:
    @pytest.mark.parametrize(
        ("share", "regions", "placement"), [("sample", 1, "corner"), ("batch", 2, "corner"), ("sample", 2, "wrap")]
    )
    def test_gradcheck_and_gradgradcheck(self, placement: RegionPlacement, share: Share, regions: int) -> None:
        pool = own_pool(0.6, share, regions, placement)

        def descriptor(x: Tensor) -> Tensor:
            torch.manual_seed(0)  # the same region every time
            return pool(x).tanh()

        x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(descriptor, (x,))
        assert torch.autograd.gradgradcheck(descriptor, (x,))

    @each(share=SHARES, placement=PLACEMENTS)
    def test_is_one_over_the_area_inside_and_exactly_zero_outside(
        self, placement: RegionPlacement, share: Share
    ) -> None:
        torch.manual_seed(0)
        gradients = seen_by(own_pool(0.5, share, placement=placement), (4, 2, 6, 8))
        for gradient in gradients.flatten(0, 1):
            corner_of(gradient, (3, 4))  # fills one region
            torch.testing.assert_close(gradient[gradient != 0], torch.full((12,), 1 / 12))
        assert torch.equal(gradients[:, 0], gradients[:, 1])  # all channels see the same region


class TestPrecision:
    @each(share=SHARES, regions=(1, 3), dtype=[torch.float16, torch.bfloat16, torch.float64])
    def test_keeps_the_dtype(self, share: Share, regions: int, dtype: torch.dtype) -> None:
        x = torch.rand(4, 3, 8, 6).to(dtype).requires_grad_()
        pool = own_pool(0.37, share, regions)
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
        pool = own_pool(0.02)
        torch.manual_seed(2)
        pooled = pool(x)
        torch.manual_seed(2)
        torch.testing.assert_close(pooled.float(), pool(x.float()), rtol=2e-3, atol=0)

    def test_large_values_in_half(self) -> None:
        """The sum over a region passes the largest half, its mean doesn't."""
        x = torch.full((2, 8, 56, 56), 30_000.0).half()
        for regions in (1, 2):
            torch.testing.assert_close(own_pool(0.5, regions=regions)(x), x[..., :1, :1])

    @each(regions=(1, 2))
    def test_large_gradient_in_half(self, regions: int) -> None:
        """As a gradient scaler makes them: what a plain mean passes on without overflow, a region does too."""
        x = torch.rand(2, 8, 56, 56).half().requires_grad_()
        pooled = own_pool(0.1, regions=regions)(x)
        (gradient,) = torch.autograd.grad(pooled, x, torch.full((2, 8, 1, 1), 4096.0).half())
        assert gradient.isfinite().all()

    @shares_and_regions
    def test_autocast(self, share: Share, regions: int) -> None:
        torch.manual_seed(0)
        conv, fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = own_pool(0.5, share, regions)(conv(torch.randn(2, 3, 8, 8)))
            logits = fc(pooled.flatten(1))
        assert pooled.dtype == logits.dtype == torch.bfloat16
        logits.float().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in conv.parameters())


class TestLayout:
    """The mean is laid out as a plain one, the gradient as the map."""

    @each(share=SHARES, regions=(1, 2), shape=[(2, 8, 6, 6), (1, 8, 6, 6), (2, 1, 6, 5), (2, 8, 1, 1)])
    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_output_and_gradient(
        self, share: Share, regions: int, shape: tuple[int, ...], memory_format: torch.memory_format
    ) -> None:
        x = torch.randn(shape).to(memory_format=memory_format).requires_grad_()
        pooled = own_pool(0.5, share, regions)(x)
        assert pooled.stride() == x.mean((2, 3), keepdim=True).stride()
        (gradient,) = torch.autograd.grad(pooled, x, torch.randn_like(pooled))
        assert gradient.is_contiguous(memory_format=memory_format)  # so it adds quickly to that of the product

    @shares_and_regions
    def test_values_do_not_depend_on_it(self, share: Share, regions: int) -> None:
        x, pool = torch.randn(2, 8, 6, 5, dtype=torch.float64), own_pool(0.5, share, regions)
        results, every_second = [], x.repeat_interleave(2, 3)[..., ::2]
        for y in (x, x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, every_second):
            torch.manual_seed(0)
            results.append(pool(y))
        for result in results[1:]:
            torch.testing.assert_close(result, results[0])


class TestSettings:
    @each(scale=[0, -0.1, 1.0001, 2, math.nan, math.inf])
    def test_scale_out_of_range(self, scale: float) -> None:
        with pytest.raises(ValueError, match=r"^scale=.* is not in \(0, 1\].*$") as error:
            RegionPool(scale)
        assert f"scale={scale}" in str(error.value)
        assert "\n" not in str(error.value)

    def test_unknown_share_and_placement(self) -> None:
        with pytest.raises(ValueError, match=r"^share='channel' is not one of sample, batch$"):
            RegionPool(1.0, "channel")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^placement='centre' is not one of corner, wrap$"):
            RegionPool(placement="centre")  # type: ignore[arg-type]

    @each(regions=(0, -1))
    def test_too_few_regions(self, regions: int) -> None:
        with pytest.raises(ValueError, match=rf"^regions={regions} is below 1[^\n]*$"):
            RegionPool(regions=regions)

    @each(share=SHARES, ramp_and_scale=[(0, 1), (0.25, 0.825), (0.5, 0.65), (1, 0.3)])
    def test_ramp_moves_the_scale(self, share: Share, ramp_and_scale: tuple[float, float]) -> None:
        ramp, scale = ramp_and_scale
        pool = own_pool(0.3, share)
        pool.set_ramp(0.7)  # the ramp counts from the final scale, not from the last one
        pool.set_ramp(ramp)
        side = region_side(scale, 20)
        assert pool.scale == pytest.approx(scale, abs=1e-12)
        assert pool.final_scale == 0.3
        corner_of(seen_by(pool, (1, 1, 20, 20))[0, 0], (side, side))  # one region of that size

    def test_full_ramp_gives_the_sides_of_the_final_scale(self) -> None:
        for percent in range(1, 101):
            pool = RegionPool(percent / 100)
            pool.set_ramp(1)
            for side in range(1, 65):
                assert pool.sides((side, 1)) == (region_side(percent / 100, side), 1), (percent, side)

    @each(copied=[copy.deepcopy, lambda pool: pickle.loads(pickle.dumps(pool))])
    def test_copies_are_independent(self, copied: Callable[[RegionPool], RegionPool]) -> None:
        pool, x = own_pool(0.5, "batch"), torch.randn(2, 2, 6, 6)
        pool(x)
        twin = copied(pool)
        assert twin.last is None or twin.last is not pool.last
        twin.set_ramp(0)
        assert torch.equal(twin(x), x.mean((2, 3), keepdim=True))
        assert pool.scale == 0.5
        torch.manual_seed(0)
        expected = pool(x)
        twin.set_ramp(1)
        torch.manual_seed(0)
        assert torch.equal(twin(x), expected)


def map_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


class TestDraw:
    @shares_and_regions
    def test_one_draw_a_call(self, share: Share, regions: int, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: list[tuple[int, ...]] = []
        rand, pool = torch.rand, own_pool(0.5, share, regions)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda *shape, **kwargs: (drawn.append(shape), rand(*shape, **kwargs))[1])
            values = [pool(map_of(4, 2, 16, 16)) for _ in range(3)]
        assert drawn == [(2, 4 if share == "sample" else 1, regions)] * 3
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(values, 2))

    def test_on_the_device_of_the_map(self) -> None:
        pool, state = own_pool(0.5), torch.get_rng_state()
        assert pool(torch.zeros(4, 2, 8, 8, device="meta")).is_meta
        assert pool.last is not None and pool.last.numbers.is_meta
        assert torch.equal(torch.get_rng_state(), state)

    @shares
    def test_same_seed_same_regions_whatever_came_before(self, share: Share) -> None:
        """The map sizes, types, batches, copies and scales of earlier steps leave no trace in what a seed draws."""
        x, fresh = map_of(4, 2, 8, 8), own_pool(0.5, share)
        torch.manual_seed(7)
        expected, state = fresh(x), torch.get_rng_state()
        for before in (map_of(2, 2, 4, 4), map_of(4, 2, 9, 7), map_of(12, 2, 8, 8, dtype=torch.float64)):
            pool = own_pool(0.5, share)
            pool(before)
            for resumed in (pool, copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
                torch.manual_seed(7)
                assert torch.equal(resumed(x), expected)
                assert torch.equal(torch.get_rng_state(), state)

    def test_the_ramp_changes_no_draw(self) -> None:
        numbers = []
        for weight in (1.0, 0.5, 0.2):
            pool = own_pool(0.5)
            pool.set_ramp(weight)
            torch.manual_seed(7)
            pool(map_of(4, 2, 8, 8))
            assert pool.last is not None
            numbers.append(pool.last.numbers)
        assert all(torch.equal(one, numbers[0]) for one in numbers)

    def test_a_ramp_that_stands_still_touches_no_memory(self) -> None:
        pool = own_pool(0.5)
        pool.set_ramp(1.0)
        version = pool._units._version
        pool.set_ramp(1.0)
        assert pool._units._version == version
