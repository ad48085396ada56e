"""Random regions against slow loops, on maps small enough to try every region."""

import copy
import itertools
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from srp_exp.srp.region import SHARES, RandomRegion, Share, draw_offsets, region_side, region_weights

torch.set_num_threads(1)

MAP_SIZES = [(4, 4), (3, 5)]
PATHS: list[tuple[Share, bool]] = [("sample", True), ("batch", False), ("batch", True)]
paths = pytest.mark.parametrize(("share", "allow_view"), PATHS, ids=["sample", "batch-mask", "batch-view"])


def training_region(
    scale: float, share: Share = "sample", regions: int = 1, *, allow_view: bool = True
) -> RandomRegion:
    return RandomRegion(scale, share, regions, allow_view=allow_view).train()


def slow_mean(map_: Tensor, corners: list[tuple[int, int]], region: tuple[int, int]) -> float:
    """Mean of one channel (H, W) over all regions, position by position; overlaps count twice."""
    total, count = Fraction(0), 0
    for top, left in corners:
        for row in range(top, top + region[0]):
            for column in range(left, left + region[1]):
                total += Fraction(float(map_[row, column]))
                count += 1
    return float(total / count)


def all_corners(map_size: tuple[int, int], region: tuple[int, int]) -> list[tuple[int, int]]:
    height, width = map_size
    return [
        (top, left)
        for top in range(height)
        for left in range(width)
        if top + region[0] <= height and left + region[1] <= width
    ]


def drawn_rectangle(map_: Tensor) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the positions of (H, W) that are not 0, which must fill a rectangle."""
    rows, columns = map_.nonzero(as_tuple=True)
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
    assert len(rows) == height * width
    return top, left, height, width


def assert_uniform(counts: Counter[tuple[int, int]], corners: list[tuple[int, int]]) -> None:
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


class TestRegionWeights:
    @pytest.mark.parametrize("map_size", MAP_SIZES)
    def test_mean_equals_a_slow_loop_for_every_region_of_every_size(self, map_size: tuple[int, int]) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for region in itertools.product(range(1, map_size[0] + 1), range(1, map_size[1] + 1)):
            corners = all_corners(map_size, region)
            assert len(corners) == (map_size[0] - region[0] + 1) * (map_size[1] - region[1] + 1)
            top, left = torch.tensor(corners).T[:, :, None]
            weights = region_weights(top, left, region, map_size)
            assert weights.shape == (len(corners), 1, *map_size)
            assert weights.dtype == torch.float32
            expected = [slow_mean(map_, [corner], region) for corner in corners]
            means = (map_ * weights.double()).mean((1, 2, 3))
            torch.testing.assert_close(means, torch.tensor(expected).double(), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("map_size", MAP_SIZES)
    def test_overlapping_regions_count_with_multiplicity(self, map_size: tuple[int, int]) -> None:
        map_ = torch.randn(map_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        corners = all_corners(map_size, (2, 2))
        for three in itertools.combinations_with_replacement(corners, 3):
            top, left = torch.tensor(three).T[:, None, :]
            weights = region_weights(top, left, (2, 2), map_size).double()
            assert (map_ * weights).mean().item() == pytest.approx(slow_mean(map_, list(three), (2, 2)), 1e-6, 1e-6)

    @pytest.mark.parametrize("regions", [1, 3, 49])
    @pytest.mark.parametrize("map_size", [(1, 1), (3, 5), (7, 7), (56, 56), (113, 97)])
    def test_whole_map_gives_exactly_one(self, map_size: tuple[int, int], regions: int) -> None:
        corner = torch.zeros(2, regions, dtype=torch.int64)
        weights = region_weights(corner, corner, map_size, map_size)
        assert torch.equal(weights, torch.ones(2, 1, *map_size))


class TestPlacement:
    def test_largest_random_number_stays_inside(self, monkeypatch: pytest.MonkeyPatch) -> None:
        largest = 1 - 2**-24
        monkeypatch.setattr(torch, "rand", lambda shape, **kwargs: torch.full(shape, largest, **kwargs))
        for range_ in range(1, 1025):
            assert draw_offsets((1, 1), range_, torch.device("cpu")).item() == range_ - 1

    @pytest.mark.parametrize("scale", [0.25, 0.5, 0.75])
    @pytest.mark.parametrize("map_size", MAP_SIZES)
    def test_share_sample_draws_every_corner_equally_often(self, map_size: tuple[int, int], scale: float) -> None:
        torch.manual_seed(0)
        output = training_region(scale)(torch.ones(2000, 1, *map_size))
        rectangles = [drawn_rectangle(map_) for map_ in output[:, 0]]
        region = (region_side(scale, map_size[0]), region_side(scale, map_size[1]))
        assert {rectangle[2:] for rectangle in rectangles} == {region}
        assert_uniform(Counter((top, left) for top, left, *_ in rectangles), all_corners(map_size, region))

    @pytest.mark.parametrize("map_size", MAP_SIZES)
    def test_views_of_share_batch_begin_at_every_corner_equally_often(self, map_size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        region = training_region(0.5, "batch")
        x = torch.arange(map_size[0] * map_size[1]).float().view(1, 1, *map_size)
        sides = (region_side(0.5, map_size[0]), region_side(0.5, map_size[1]))
        counts: Counter[tuple[int, int]] = Counter()
        for _ in range(2000):
            view = region(x)
            assert view.shape[-2:] == sides
            counts[divmod(int(view[0, 0, 0, 0]), map_size[1])] += 1
        assert_uniform(counts, all_corners(map_size, sides))

    def test_the_two_regions_of_one_image_are_independent(self) -> None:
        torch.manual_seed(0)
        top, left = training_region(0.5, regions=2).draw(20_000, (3, 3), (2, 2), torch.device("cpu"))
        pairs = Counter((a * 2 + b, c * 2 + d) for (a, c), (b, d) in zip(top.tolist(), left.tolist(), strict=True))
        assert_uniform(pairs, [divmod(pair, 4) for pair in range(16)])

    def test_share_sample_differs_within_a_batch_and_share_batch_does_not(self) -> None:
        torch.manual_seed(0)
        x = torch.ones(32, 2, 8, 8)
        per_image = training_region(0.5)(x)
        assert len({drawn_rectangle(map_) for map_ in per_image[:, 0]}) > 1
        shared = training_region(0.5, "batch", allow_view=False)(x)
        assert torch.equal(shared, shared[:1].expand_as(shared))
        assert drawn_rectangle(shared[0, 0])[2:] == (4, 4)
        assert training_region(0.5, "batch")(x).shape == (32, 2, 4, 4)

    def test_steps_differ_and_a_seed_repeats_them(self) -> None:
        region, x = training_region(0.5), torch.ones(8, 1, 8, 8)
        torch.manual_seed(3)
        first, second = region(x), region(x)
        torch.manual_seed(3)
        assert not torch.equal(first, second)
        assert torch.equal(region(x), first)


class TestDescriptor:
    """The mean over H and W of the output: what the attention module behind reads."""

    @pytest.mark.parametrize("regions", [1, 3])
    @pytest.mark.parametrize("shape", [(4, 3, 6, 7), (1, 3, 6, 7), (4, 1, 6, 7), (3, 2, 1, 1), (3, 2, 1, 6)])
    @paths
    def test_equals_a_slow_loop(
        self, share: Share, allow_view: bool, shape: tuple[int, int, int, int], regions: int
    ) -> None:
        batch, channels, height, width = shape
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        region = training_region(0.5, share, regions, allow_view=allow_view)
        torch.manual_seed(5)
        descriptor = region(x).mean((2, 3))
        sides = (region_side(0.5, height), region_side(0.5, width))
        torch.manual_seed(5)
        top, left = region.draw(batch, (height, width), sides, torch.device("cpu"))
        for b, c in itertools.product(range(batch), range(channels)):
            drawn = b if share == "sample" else 0
            corners = list(zip(top[drawn].tolist(), left[drawn].tolist(), strict=True))
            assert descriptor[b, c].item() == pytest.approx(slow_mean(x[b, c], corners, sides), 1e-6, 1e-6)

    @paths
    def test_five_axes_share_the_region_of_their_image(self, share: Share, allow_view: bool) -> None:
        x = torch.randn(3, 2, 4, 6, 5, dtype=torch.float64)
        region = training_region(0.5, share, allow_view=allow_view)
        torch.manual_seed(1)
        together = region(x).mean((-2, -1))
        torch.manual_seed(1)
        flat = region(x.flatten(1, 2)).mean((-2, -1))
        assert together.shape == (3, 2, 4)
        torch.testing.assert_close(together, flat.view(3, 2, 4))

    @pytest.mark.parametrize("regions", [1, 3, 49])
    @paths
    def test_scale_one_is_global_average_pooling_bit_for_bit(
        self, share: Share, allow_view: bool, regions: int
    ) -> None:
        x = torch.randn(2, 5, 7, 9, requires_grad=True)
        plain_x = x.detach().clone().requires_grad_()
        upstream = torch.randn(2, 5)
        region = training_region(1.0, share, regions, allow_view=allow_view)
        for pool in (lambda y: y.mean((2, 3)), lambda y: F.adaptive_avg_pool2d(y, 1).flatten(1)):
            x.grad = plain_x.grad = None
            descriptor, expected = pool(region(x)), pool(plain_x)
            descriptor.backward(upstream)
            expected.backward(upstream)
            assert torch.equal(descriptor, expected)
            assert x.grad is not None
            assert plain_x.grad is not None
            assert torch.equal(x.grad, plain_x.grad)


class TestGradient:
    @pytest.mark.parametrize("regions", [1, 2])
    @paths
    def test_gradcheck(self, share: Share, allow_view: bool, regions: int) -> None:
        region = training_region(0.6, share, regions, allow_view=allow_view)

        def descriptor(x: Tensor) -> Tensor:
            torch.manual_seed(0)  # the same region every time
            return region(x).mean((2, 3)).tanh()

        x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(descriptor, (x,))

    @paths
    def test_is_one_over_the_area_inside_and_exactly_zero_outside(self, share: Share, allow_view: bool) -> None:
        torch.manual_seed(0)
        x = torch.randn(4, 2, 6, 8, requires_grad=True)
        training_region(0.5, share, allow_view=allow_view)(x).mean((2, 3)).sum().backward()
        assert x.grad is not None
        for grad in x.grad.flatten(0, 1):
            assert drawn_rectangle(grad)[2:] == (3, 4)
            torch.testing.assert_close(grad[grad != 0], torch.full((12,), 1 / 12))
        assert torch.equal(x.grad[:, 0], x.grad[:, 1])  # all channels see the same region

    @paths
    def test_input_is_not_modified(self, share: Share, allow_view: bool) -> None:
        x = torch.randn(2, 3, 6, 6)
        before = x.clone()
        training_region(0.5, share, allow_view=allow_view)(x).mean((2, 3))
        assert torch.equal(x, before)


class TestEvaluation:
    @paths
    def test_returns_the_very_same_object_and_draws_nothing(self, share: Share, allow_view: bool) -> None:
        region = RandomRegion(0.3, share, allow_view=allow_view).eval()
        x = torch.randn(2, 3, 6, 6)
        state = torch.get_rng_state()
        assert region(x) is x
        assert torch.equal(torch.get_rng_state(), state)

    @paths
    def test_training_draws(self, share: Share, allow_view: bool) -> None:
        state = torch.get_rng_state()
        training_region(0.3, share, allow_view=allow_view)(torch.zeros(2, 3, 6, 6))
        assert not torch.equal(torch.get_rng_state(), state)


class TestPrecisionAndLayout:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    @paths
    def test_keeps_the_dtype(self, share: Share, allow_view: bool, dtype: torch.dtype) -> None:
        x = torch.rand(4, 3, 8, 6).to(dtype)
        region = training_region(0.37, share, allow_view=allow_view)
        torch.manual_seed(2)
        output = region(x)
        torch.manual_seed(2)
        expected = region(x.float()).mean((2, 3))
        assert output.dtype == dtype
        tolerance = 4 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-6
        torch.testing.assert_close(output.float().mean((2, 3)), expected, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_casting_the_model_keeps_the_scale(self, dtype: torch.dtype) -> None:
        scale = 0.123456789  # neither half nor bfloat16 holds it
        net = nn.Sequential(nn.Conv2d(1, 1, 1), RandomRegion(scale))
        region = net.to(dtype)[1]
        assert isinstance(region, RandomRegion)
        assert region.scale == scale
        assert region.scale_units.dtype == torch.int64
        assert region.scale_units.item() == 123456789

    @pytest.mark.parametrize("shape", [(2, 8, 6, 6), (1, 8, 6, 6), (2, 8, 1, 1)])
    @paths
    def test_channels_last_stays(self, share: Share, allow_view: bool, shape: tuple[int, ...]) -> None:
        x = torch.randn(shape).to(memory_format=torch.channels_last)
        output = training_region(0.5, share, allow_view=allow_view)(x)
        assert output.stride(1) == 1  # a view isn't dense, but its channels still lie side by side
        if output.shape == x.shape:
            assert output.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("regions", [1, 2])
    @paths
    def test_autocast(self, share: Share, allow_view: bool, regions: int) -> None:
        torch.manual_seed(0)
        conv, fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
        region = training_region(0.5, share, regions, allow_view=allow_view)
        with torch.autocast("cpu", torch.bfloat16):
            output = region(conv(torch.randn(2, 3, 8, 8)))
            logits = fc(output.mean((2, 3)))
        assert output.dtype == logits.dtype == torch.bfloat16
        logits.float().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in conv.parameters())


class TestModule:
    @pytest.mark.parametrize("scale", [0, -0.1, 1.0001, 2, math.nan, math.inf])
    def test_scale_out_of_range(self, scale: float) -> None:
        with pytest.raises(ValueError, match=r"^scale=.* is not in \(0, 1\].*$") as error:
            RandomRegion(scale)
        assert f"scale={scale}" in str(error.value)
        assert "\n" not in str(error.value)

    def test_unknown_share(self) -> None:
        with pytest.raises(ValueError, match=r"^share='channel' is not one of sample, batch$"):
            RandomRegion(0.5, "channel")  # type: ignore[arg-type]
        assert SHARES == ("sample", "batch")

    @pytest.mark.parametrize("regions", [0, -1])
    def test_too_few_regions(self, regions: int) -> None:
        with pytest.raises(ValueError, match=rf"^regions={regions} is below 1[^\n]*$"):
            RandomRegion(0.5, regions=regions)

    @pytest.mark.parametrize(("ramp", "scale"), [(0, 1), (0.25, 0.825), (0.5, 0.65), (1, 0.3)])
    @paths
    def test_ramp_moves_the_scale(self, share: Share, allow_view: bool, ramp: float, scale: float) -> None:
        region = training_region(0.3, share, allow_view=allow_view)
        region.set_ramp(0.7)  # the ramp counts from the final scale, not from the last one
        region.set_ramp(ramp)
        x = torch.ones(1, 1, 20, 20, requires_grad=True)
        (grad,) = torch.autograd.grad(region(x).mean(), x)
        side = region_side(scale, 20)
        assert region.scale == pytest.approx(scale, abs=1e-12)
        assert region.final_scale == 0.3
        assert drawn_rectangle(grad[0, 0])[2:] == (side, side)

    @pytest.mark.parametrize("percent", range(1, 101))
    def test_full_ramp_gives_the_sides_of_the_final_scale(self, percent: int) -> None:
        region = RandomRegion(percent / 100)
        region.set_ramp(1)
        assert [region_side(region.scale, h) for h in range(1, 65)] == [
            region_side(percent / 100, h) for h in range(1, 65)
        ]

    def test_state_dict_is_empty(self) -> None:
        region = RandomRegion(0.5)
        assert region.state_dict() == {}
        assert list(region.parameters()) == []
        region.load_state_dict({})

    def test_deepcopy_is_independent(self) -> None:
        region = training_region(0.5, "batch", 2, allow_view=False)
        twin = copy.deepcopy(region)
        twin.set_ramp(0)
        x = torch.randn(2, 2, 6, 6)
        assert torch.equal(twin(x), x)
        assert (region.scale, region.scale_units.item()) == (0.5, 500_000_000)
        torch.manual_seed(0)
        expected = region(x)
        twin.set_ramp(1)
        torch.manual_seed(0)
        assert torch.equal(twin(x), expected)

    def test_repr_shows_the_settings(self) -> None:
        assert repr(RandomRegion(0.25, "batch", 3)) == "RandomRegion(scale=0.25, share=batch, regions=3)"
