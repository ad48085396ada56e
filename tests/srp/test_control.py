"""The regions of a step read and fixed, and the time ramp of a whole network."""

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from each import each
from timm.layers import SEModule
from torch import Tensor, nn

from srp_exp.srp import Linear, apply_srp, fix_regions, read_regions, region_side, set_progress, srp_modules
from srp_exp.srp.region import PLACEMENTS, RegionPlacement, Share


class Net(nn.Module):
    """Attention on maps of 9 x 8, 5 x 4, and 1 x 1, where the region is the map."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = SEModule(6), SEModule(6), SEModule(6)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(self.first(x), 2, ceil_mode=True)
        return self.last(nn.functional.avg_pool2d(self.second(x), (5, 4)))


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, 6, 9, 8, generator=torch.Generator().manual_seed(0))


def net_of(share: Share = "sample", regions: int = 1, placement: RegionPlacement = "corner", scale: float = 0.5) -> Net:
    net = copy.deepcopy(_net_of(share, regions, placement, scale))
    torch.manual_seed(0)
    return net


@functools.cache
def _net_of(share: Share, regions: int, placement: RegionPlacement, scale: float) -> Net:
    torch.manual_seed(0)
    net = Net().train()
    for parameter in net.parameters():
        parameter.data.mul_(3)
    apply_srp(net, scale, share=share, regions=regions, placement=placement, example_input=images())
    return net


def descriptors(net: Net, x: Tensor, run: Callable[[Tensor], Tensor] | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Map (B, C, H, W) and descriptor (B, C) of each module in one step."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    maps: dict[str, Tensor] = {}
    hooks = []
    for name in ("first", "second", "last"):
        module = net.get_submodule(name)
        hooks.append(module.register_forward_pre_hook(lambda _, inputs, name=name: maps.update({name: inputs[0]})))
        hooks.append(
            module.fc1.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.update({name: (maps[name], inputs[0].flatten(1))})
            )
        )
    (run or net)(x)
    for hook in hooks:
        hook.remove()
    return seen


def wrapped_mean(map_: Tensor, corners: list[list[int]], region: tuple[int, int]) -> Tensor:
    """Mean (C,) of one image over its regions, rolled so that each begins at the corner of the map."""
    crops = [map_.roll((-top, -left), (1, 2))[:, : region[0], : region[1]] for top, left, *_ in corners]
    return torch.stack([crop.mean((1, 2)) for crop in crops]).mean(0)


def check(seen: dict[str, tuple[Tensor, Tensor]], regions: dict[str, Tensor]) -> None:
    """That each descriptor is the mean of its map over the regions."""
    for name, (map_, descriptor) in seen.items():
        if name not in regions:
            assert torch.equal(descriptor, map_.mean((2, 3)))
            continue
        drawn = regions[name].expand(len(map_), -1, -1).tolist()
        expected = [
            wrapped_mean(image, of_image, (of_image[0][2], of_image[0][3]))
            for image, of_image in zip(map_, drawn, strict=True)
        ]
        torch.testing.assert_close(descriptor, torch.stack(expected))


settings = pytest.mark.parametrize(
    ("share", "regions", "placement"),
    [("sample", 1, "corner"), ("sample", 2, "wrap"), ("batch", 2, "corner"), ("batch", 1, "wrap")],
)


class TestRead:
    @settings
    def test_are_those_that_were_pooled(self, share: Share, regions: int, placement: RegionPlacement) -> None:
        net = net_of(share, regions, placement)
        assert read_regions(net) == {}
        for batch in (4, 4, 2):
            seen = descriptors(net, images(batch))
            drawn = read_regions(net)
            samples = batch if share == "sample" else 1
            assert {name: tuple(one.shape) for name, one in drawn.items()} == {
                "first": (samples, regions, 4), "second": (samples, regions, 4)
            }  # fmt: skip
            assert all(one.dtype == torch.int64 for one in drawn.values())
            assert drawn["first"][..., 2:].unique().tolist() == [4, 5]
            assert drawn["second"][0, 0, 2:].tolist() == [region_side(0.5, 5), region_side(0.5, 4)]
            check(seen, drawn)

    def test_reading_draws_nothing_and_changes_nothing(self) -> None:
        net = net_of()
        net(images())
        state, first = torch.get_rng_state(), read_regions(net)
        assert all(torch.equal(first[name], again) for name, again in read_regions(net).items())
        assert torch.equal(torch.get_rng_state(), state)

    def test_under_a_ramp(self) -> None:
        net = net_of()
        for progress in (0.0, 0.3, 0.6, 1.0):
            set_progress(net, progress)
            seen = descriptors(net, images())
            drawn = read_regions(net)
            scale = 1 - 0.5 * progress
            if progress == 0:
                assert drawn == {}
                continue
            assert drawn["first"][0, 0, 2:].tolist() == [region_side(scale, 9), region_side(scale, 8)]
            check(seen, drawn)


class TestFix:
    @settings
    def test_round_trip(self, share: Share, regions: int, placement: RegionPlacement) -> None:
        net = net_of(share, regions, placement)
        output, drawn = net(images()), read_regions(net)
        assert not torch.equal(net(images()), output)
        for _ in range(2):
            fix_regions(net, drawn)
            state = torch.get_rng_state()
            for _ in range(2):
                assert torch.equal(net(images()), output)
                assert all(torch.equal(read_regions(net)[name], one) for name, one in drawn.items())
            assert torch.equal(torch.get_rng_state(), state)
            fix_regions(net, None)
            assert not torch.equal(net(images()), output)
            assert not torch.equal(torch.get_rng_state(), state)

    @each(placement=PLACEMENTS, map_side=[2, 3, 13, 64])
    def test_every_corner_comes_back(self, map_side: int, placement: RegionPlacement) -> None:
        """No corner is moved by the way in which it is kept, on maps of any size and at any scale."""
        for side in {1, 2, map_side // 2 + 1, map_side - 1}:
            if not 0 < side < map_side:
                continue
            net = nn.Sequential(SEModule(6)).train()
            x = torch.randn(1, 6, map_side, map_side)
            apply_srp(net, side / map_side, placement=placement, example_input=torch.randn(1, 6, map_side, map_side))
            net(x)
            corners = range(map_side if placement == "wrap" else map_side - side + 1)
            fix_regions(net, {"0": torch.tensor([[[corner, corners[-1 - corner], side, side]] for corner in corners])})
            net(x.expand(len(corners), -1, -1, -1))
            expected = [[[corner, corners[-1 - corner], side, side]] for corner in corners]
            assert read_regions(net)["0"].tolist() == expected

    def test_regions_of_one_sample_serve_a_batch_that_shares_them(self) -> None:
        net = net_of("batch")
        net(images())
        fix_regions(net, read_regions(net))
        for batch in (1, 4, 7):
            net(images(batch))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda r: {k: v for k, v in r.items() if k != "second"}, r"no regions for 'second'"),
            (
                lambda r: {**r, "first": r["first"] + 5},
                r"^first: regions must be of \(5, 4\) and inside the map \(9, 8\)$",
            ),
            (
                lambda r: {**r, "first": r["first"] - 6},
                r"^first: regions must be of \(5, 4\) and inside the map \(9, 8\)$",
            ),
            (lambda r: {**r, "second": r["second"][0]}, r"second: regions .* must be \(N, 1, 4\)"),
            (lambda r: {**r, "second": r["second"].expand(4, 2, 4)}, r"second: regions .* must be \(N, 1, 4\)"),
            (lambda r: {**r, "first": r["first"][:3]}, r"^regions: \[3, 4\] samples"),
            (lambda r: {**r, "second": r["second"] + torch.tensor([0, 0, 1, 0])}, r"^second: regions must be of"),
            (lambda r: {**r, "third": r["first"]}, r"^regions: 'third' has no SRP"),
        ],
        ids=["missing", "beyond", "negative", "dim", "count", "samples", "side", "unknown"],
    )
    def test_refused_in_one_line_and_nothing_is_fixed(
        self, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
    ) -> None:
        net = net_of()
        net(images())
        with pytest.raises(ValueError, match=message) as error:
            fix_regions(net, change(read_regions(net)))
        assert "\n" not in str(error.value)
        state = torch.get_rng_state()
        net(images())
        assert not torch.equal(torch.get_rng_state(), state)

    def test_another_batch_than_they_were_fixed_for_is_refused_in_one_line(self) -> None:
        net = net_of()
        net(images())
        fix_regions(net, read_regions(net))
        with pytest.raises(ValueError, match=r"^the regions were fixed for 4 samples[^\n]*$"):
            net(images(3))

    def test_another_map_size_than_they_were_fixed_for_is_refused_or_keeps_the_corners(self) -> None:
        """Silently other regions would be worse than an error."""
        net = net_of()
        net(images())
        fixed = read_regions(net)
        fix_regions(net, fixed)
        self.refused_or_kept(net, torch.randn(4, 6, 20, 20), fixed)

    def test_another_scale_than_they_were_fixed_for_is_refused_or_keeps_the_corners(self) -> None:
        net = net_of()
        net(images())
        fixed = read_regions(net)
        fix_regions(net, fixed)
        set_progress(net, 0.5)
        self.refused_or_kept(net, images(), fixed)

    @staticmethod
    def refused_or_kept(net: nn.Module, x: Tensor, fixed: dict[str, Tensor]) -> None:
        try:
            net(x)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert torch.equal(read_regions(net)["first"][..., :2], fixed["first"][..., :2])

    def test_evaluation_is_untouched(self) -> None:
        net = net_of()
        net(images())
        fix_regions(net, read_regions(net))
        expected = net_of().eval()(images())
        net.eval()
        assert torch.equal(net(images()), expected)


class TestProgress:
    def test_scales_by_hand(self) -> None:
        net = Net()
        apply_srp(net, Linear(0.9, 0.5), example_input=images())
        for progress, until, scales in (
            (0, 1, [1.0, 1.0, 1.0]),
            (0.5, 1.0, [0.95, 0.85, 0.75]),
            (0.25, 0.5, [0.95, 0.85, 0.75]),
            (0.5, 0.5, [0.9, 0.7, 0.5]),
            (1, 1, [0.9, 0.7, 0.5]),
        ):
            set_progress(net, progress, until)
            found = [pool.scale for pool in srp_modules(net).values()]
            assert found == pytest.approx(scales, abs=1e-12), (progress, until)

    def test_at_its_beginning_training_is_plain(self) -> None:
        net = net_of()
        set_progress(net, 0)
        state = torch.get_rng_state()
        output = net(images())
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(output, net.eval()(images()))

    @each(progress_until=[(-0.1, 1), (1.1, 1), (0.5, 0), (0.5, 1.5), (float("nan"), 1)])
    def test_out_of_range(self, progress_until: tuple[float, float]) -> None:
        (progress, until), net = progress_until, net_of()
        with pytest.raises(ValueError, match=rf"^progress={progress}, until={until}[^\n]*$"):
            set_progress(net, progress, until)
        assert {pool.scale for pool in srp_modules(net).values()} == {0.5}
