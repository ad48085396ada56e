"""The pooling of a module, and one draw for all modules of a forward pass."""

import copy
import itertools
import math
import pickle
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from test_region import DTYPES, Corner, Size, all_corners, placements, positions, slow_mean
from torch import Tensor, nn
from torch.nn import functional as F

from srp_exp.srp import Draws, RegionPool, region_side
from srp_exp.srp.region import SHARES, MaskPlan, Placement, Share

shares = pytest.mark.parametrize("share", SHARES)


def own_pool(scale: float, share: Share = "sample", regions: int = 1, placement: Placement = "corner") -> RegionPool:
    return RegionPool(scale, Draws(share, regions, placement))


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


def corners_of(pool: RegionPool, map_size: Size) -> Tensor:
    """The corners (N, k, 2) that the last call pooled at."""
    return pool.corners(pool.draws.taken[pool.index], map_size)


def assert_uniform(counts: Counter[Corner], corners: list[Corner]) -> None:
    """Chi-square test over the corners: uniform draws exceed the bound once in a million seeds."""
    assert set(counts) == set(corners)
    expected = counts.total() / len(corners)
    assert expected >= 20  # the chi-square distribution holds
    statistic = sum((counts[corner] - expected) ** 2 / expected for corner in corners)
    assert statistic < stats.chi2.ppf(1 - 1e-6, df=len(corners) - 1)


class TestPlacement:
    @pytest.mark.parametrize("scale", [0.5, 0.75])
    @pytest.mark.parametrize("map_size", [(4, 4), (3, 5)])
    @shares
    @placements
    def test_every_corner_is_drawn_equally_often(
        self, map_size: Size, scale: float, share: Share, placement: Placement
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
        drawn = corners_of(pool, (3, 3)).tolist()
        assert_uniform(
            Counter((a * 2 + b, c * 2 + d) for (a, b), (c, d) in drawn), [divmod(pair, 4) for pair in range(16)]
        )

    def test_the_regions_of_two_modules_are_independent(self) -> None:
        torch.manual_seed(0)
        draws = Draws()
        pools = [RegionPool(0.5, draws), RegionPool(0.5, draws)]
        for pool in pools:
            pool(torch.zeros(20_000, 1, 3, 3))
        both = torch.cat([corners_of(pool, (3, 3)) for pool in pools], 1).tolist()
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
    @pytest.mark.parametrize("regions", [1, 3])
    @pytest.mark.parametrize("shape", [(4, 3, 6, 7), (1, 3, 6, 7), (4, 1, 6, 7), (3, 2, 1, 1), (3, 2, 1, 6)])
    @shares
    @placements
    def test_equals_a_slow_loop(
        self, placement: Placement, share: Share, shape: tuple[int, int, int, int], regions: int
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
        corners = corners_of(pool, (height, width)).tolist()
        assert len(corners) == (batch if share == "sample" else 1)
        for b, c in itertools.product(range(batch), range(channels)):
            own = [(top, left) for top, left in corners[b if share == "sample" else 0]]
            assert pooled[b, c].item() == pytest.approx(slow_mean(x[b, c], own, region), 1e-12, 1e-14)

    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_five_axes_share_the_region_of_their_image(self, share: Share, regions: int) -> None:
        x = torch.randn(3, 2, 4, 6, 5, dtype=torch.float64)
        pool = own_pool(0.5, share, regions)
        torch.manual_seed(1)
        together = pool(x)
        torch.manual_seed(1)
        flat = pool(x.flatten(1, 2))
        assert together.shape == (3, 2, 4, 1, 1)
        torch.testing.assert_close(together, flat.view(3, 2, 4, 1, 1))

    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_input_is_not_modified(self, share: Share, regions: int) -> None:
        x = torch.randn(2, 3, 6, 6)
        before = x.clone()
        own_pool(0.5, share, regions)(x)
        assert torch.equal(x, before)


class TestWholeMap:
    """Scale 1 is global average pooling, in output and gradient, and draws nothing."""

    @pytest.mark.parametrize(
        "average", [lambda y: y.mean((2, 3), keepdim=True), lambda y: F.adaptive_avg_pool2d(y, 1)], ids=["mean", "pool"]
    )
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 1, 1, 1), (2, 3, 56, 56)])
    @pytest.mark.parametrize("regions", [1, 2, 49])
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
    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    @placements
    def test_gradcheck_and_gradgradcheck(self, placement: Placement, share: Share, regions: int) -> None:
        pool = own_pool(0.6, share, regions, placement)

        def descriptor(x: Tensor) -> Tensor:
            torch.manual_seed(0)  # the same region every time
            return pool(x).tanh()

        x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(descriptor, (x,))
        assert torch.autograd.gradgradcheck(descriptor, (x,))

    @shares
    @placements
    def test_is_one_over_the_area_inside_and_exactly_zero_outside(self, placement: Placement, share: Share) -> None:
        torch.manual_seed(0)
        gradients = seen_by(own_pool(0.5, share, placement=placement), (4, 2, 6, 8))
        for gradient in gradients.flatten(0, 1):
            corner_of(gradient, (3, 4))  # fills one region
            torch.testing.assert_close(gradient[gradient != 0], torch.full((12,), 1 / 12))
        assert torch.equal(gradients[:, 0], gradients[:, 1])  # all channels see the same region


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @pytest.mark.parametrize("regions", [1, 3])
    @shares
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

    @pytest.mark.parametrize("regions", [1, 2])
    def test_large_gradient_in_half(self, regions: int) -> None:
        """As a gradient scaler makes them: what a plain mean passes on without overflow, a region does too."""
        x = torch.rand(2, 8, 56, 56).half().requires_grad_()
        pooled = own_pool(0.1, regions=regions)(x)
        (gradient,) = torch.autograd.grad(pooled, x, torch.full((2, 8, 1, 1), 4096.0).half())
        assert gradient.isfinite().all()

    @pytest.mark.parametrize("regions", [1, 2])
    @shares
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

    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("shape", [(2, 8, 6, 6), (1, 8, 6, 6), (2, 1, 6, 5), (2, 8, 1, 1)])
    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_output_and_gradient(
        self, share: Share, regions: int, shape: tuple[int, ...], memory_format: torch.memory_format
    ) -> None:
        x = torch.randn(shape).to(memory_format=memory_format).requires_grad_()
        pooled = own_pool(0.5, share, regions)(x)
        assert pooled.stride() == x.mean((2, 3), keepdim=True).stride()
        (gradient,) = torch.autograd.grad(pooled, x, torch.randn_like(pooled))
        assert gradient.is_contiguous(memory_format=memory_format)  # so it adds quickly to that of the product

    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_values_do_not_depend_on_it(self, share: Share, regions: int) -> None:
        x, pool = torch.randn(2, 8, 6, 5, dtype=torch.float64), own_pool(0.5, share, regions)
        results, every_second = [], x.repeat_interleave(2, 3)[..., ::2]
        for y in (x, x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, every_second):
            torch.manual_seed(0)
            results.append(pool(y))
        for result in results[1:]:
            torch.testing.assert_close(result, results[0])


class TestSettings:
    @pytest.mark.parametrize("scale", [0, -0.1, 1.0001, 2, math.nan, math.inf])
    def test_scale_out_of_range(self, scale: float) -> None:
        with pytest.raises(ValueError, match=r"^scale=.* is not in \(0, 1\].*$") as error:
            RegionPool(scale)
        assert f"scale={scale}" in str(error.value)
        assert "\n" not in str(error.value)

    def test_unknown_share_and_placement(self) -> None:
        with pytest.raises(ValueError, match=r"^share='channel' is not one of sample, batch$"):
            Draws("channel")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^placement='centre' is not one of corner, wrap$"):
            Draws(placement="centre")  # type: ignore[arg-type]

    @pytest.mark.parametrize("regions", [0, -1])
    def test_too_few_regions(self, regions: int) -> None:
        with pytest.raises(ValueError, match=rf"^regions={regions} is below 1[^\n]*$"):
            Draws(regions=regions)

    @pytest.mark.parametrize(("ramp", "scale"), [(0, 1), (0.25, 0.825), (0.5, 0.65), (1, 0.3)])
    @shares
    def test_ramp_moves_the_scale(self, share: Share, ramp: float, scale: float) -> None:
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
                assert pool.region((side, 1)) == (region_side(percent / 100, side), 1), (percent, side)

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda pool: pickle.loads(pickle.dumps(pool))])
    def test_copies_are_independent(self, copied: Callable[[RegionPool], RegionPool]) -> None:
        pool, x = own_pool(0.5, "batch"), torch.randn(2, 2, 6, 6)
        pool(x)
        twin = copied(pool)
        assert twin.draws is not pool.draws
        twin.set_ramp(0)
        assert torch.equal(twin(x), x.mean((2, 3), keepdim=True))
        assert pool.scale == 0.5
        torch.manual_seed(0)
        expected = pool(x)
        twin.set_ramp(1)
        torch.manual_seed(0)
        assert torch.equal(twin(x), expected)


class Modules:
    """Pools of one network, called in turn, each on a map of its own."""

    def __init__(self, count: int, share: Share = "sample", regions: int = 1) -> None:
        self.draws = Draws(share, regions)
        self.pools = [RegionPool(0.5, self.draws) for _ in range(count)]

    def step(self, *maps: Tensor) -> list[Tensor]:
        self.draws.begin()
        return [pool(x) for pool, x in zip(self.pools, maps, strict=True)]

    def corners(self, *sizes: Size) -> list[Tensor]:
        return [corners_of(pool, size) for pool, size in zip(self.pools, sizes, strict=True)]

    def check(self, maps: list[Tensor], pooled: list[Tensor]) -> None:
        """That each pooled value is the mean of its crops."""
        sizes = [(x.shape[-2], x.shape[-1]) for x in maps]
        for x, value, corners in zip(maps, pooled, self.corners(*sizes), strict=True):
            height, width = region_side(0.5, x.shape[-2]), region_side(0.5, x.shape[-1])
            for b in range(x.shape[0]):
                own = corners[b if self.draws.share == "sample" else 0].tolist()
                crops = [x[b, ..., t : t + height, c : c + width].double().mean((-2, -1)) for t, c in own]
                expected = torch.stack(crops).mean(0)
                tolerance = 4 * torch.finfo(x.dtype).eps
                torch.testing.assert_close(value[b, ..., 0, 0].double(), expected, rtol=tolerance, atol=tolerance)


def map_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


class TestOneDrawForAPass:
    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_draws_once_and_again_in_the_next_pass(
        self, share: Share, regions: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        drawn: list[tuple[int, ...]] = []
        rand = torch.rand
        monkeypatch.setattr(torch, "rand", lambda *shape, **kwargs: (drawn.append(shape), rand(*shape, **kwargs))[1])
        net = Modules(3, share, regions)
        maps = [map_of(4, 2, 8, 8), map_of(4, 3, 8, 8), map_of(4, 2, 5, 6)]
        for _ in range(2):
            net.check(maps, net.step(*maps))
        assert drawn == [(2, 3, 4 if share == "sample" else 1, regions, 1, 1)] * 2

    def test_regions_of_modules_and_passes_differ(self) -> None:
        net = Modules(2)
        maps = [map_of(8, 2, 16, 16)] * 2
        seen = []
        for _ in range(3):
            net.step(*maps)
            seen += net.corners((16, 16), (16, 16))
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(seen, 2))

    def test_draws_on_the_device_of_the_maps(self) -> None:
        net, x = Modules(2), torch.zeros(4, 2, 8, 8, device="meta")
        state = torch.get_rng_state()
        pooled = net.step(x, x)
        assert [value.device.type for value in pooled] == ["meta"] * 2
        assert net.draws.numbers is not None and net.draws.numbers.device.type == "meta"
        assert torch.equal(torch.get_rng_state(), state)

    def test_module_called_without_its_network_draws_anew(self) -> None:
        net = Modules(3)
        x = map_of(8, 2, 16, 16)
        values = []
        for _ in range(4):
            values.append(net.pools[1](x))
            net.check([x, x, x], net.step(x, x, x))
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(values, 2))

    def test_module_that_runs_twice_in_a_pass_draws_twice(self) -> None:
        net = Modules(2)
        x = map_of(8, 2, 16, 16)
        net.draws.begin()
        first, second = net.pools[0](x), net.pools[0](x)
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("regions", [1, 2])
    @shares
    def test_mixed_dtypes_sizes_and_batches(self, share: Share, regions: int) -> None:
        """Maps of other types, sizes that change from step to step, and (B*P, C, H, W): each pools its regions."""
        net = Modules(4, share, regions)
        steps = [
            [map_of(4, 2, 8, 8), map_of(4, 2, 8, 8), map_of(4, 2, 6, 5), map_of(4, 2, 6, 5)],
            [map_of(4, 2, 8, 8), map_of(4, 2, 8, 8, dtype=torch.float64), map_of(4, 2, 6, 5), map_of(4, 2, 6, 5)],
            [map_of(4, 2, 8, 8, dtype=torch.bfloat16), map_of(4, 2, 8, 8), map_of(4, 2, 5, 6), map_of(4, 2, 6, 5)],
            [map_of(4, 2, 9, 4), map_of(4, 2, 8, 8), map_of(4, 3, 2, 6, 5), map_of(4, 2, 6, 5)],
            [map_of(4, 2, 9, 4), map_of(12, 2, 8, 8), map_of(4, 2, 6, 5), map_of(2, 2, 6, 5)],
            [map_of(12, 2, 9, 4), map_of(4, 2, 8, 8), map_of(4, 2, 6, 5), map_of(12, 2, 6, 5, dtype=torch.half)],
            [map_of(1, 2, 7, 7)] * 4,
        ]
        for _ in range(2):
            for maps in steps:
                net.check(maps, net.step(*maps))

    def test_masks_of_equal_maps_are_made_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []
        masks = MaskPlan.masks

        def counted(plan: MaskPlan, numbers: Tensor, dtype: torch.dtype) -> list[Tensor]:
            made.append(numbers.shape[1])
            return masks(plan, numbers, dtype)

        monkeypatch.setattr(MaskPlan, "masks", counted)
        net, maps = Modules(3), [map_of(4, 2, 8, 8), map_of(4, 3, 8, 8), map_of(4, 2, 5, 6)]
        net.step(*maps)
        made.clear()
        net.step(*maps)
        assert made == [3]


class TestResume:
    @shares
    def test_same_seed_same_regions_whatever_came_before(self, share: Share) -> None:
        """The map sizes, types, batches, copies and scales of earlier steps leave no trace in what a seed draws."""
        maps = [map_of(4, 2, 8, 8), map_of(4, 2, 6, 5), map_of(4, 2, 6, 5)]
        fresh = Modules(3, share)
        torch.manual_seed(7)
        expected, state = fresh.step(*maps), torch.get_rng_state()
        earlier = [
            [map_of(2, 2, 4, 4), map_of(2, 2, 4, 4), map_of(2, 2, 4, 4)],
            [map_of(4, 2, 9, 7), map_of(4, 2, 6, 5), map_of(12, 2, 6, 5)],
            [map_of(4, 2, 8, 8, dtype=torch.float64), map_of(4, 2, 1, 1), map_of(4, 2, 6, 5)],
        ]
        for before in earlier:
            net = Modules(3, share)
            net.step(*before)
            net.pools[2](before[2])
            for resumed in (net, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
                torch.manual_seed(7)
                assert all(torch.equal(a, b) for a, b in zip(resumed.step(*maps), expected, strict=True))
                assert torch.equal(torch.get_rng_state(), state)

    def test_the_ramp_changes_no_draw(self) -> None:
        x, states = map_of(4, 2, 8, 8), []
        for weight in (1.0, 0.5, 0.2):
            net = Modules(2)
            for pool in net.pools:
                pool.set_ramp(weight)
            torch.manual_seed(7)
            net.step(x, x)
            states.append(net.draws.numbers)
        assert all(state is not None and torch.equal(state, states[0]) for state in states)
