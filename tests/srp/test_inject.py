"""SRP in real networks: evaluation, keys and parameters stay those of the plain network; training pools regions."""

import copy
import functools
import io
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import timm
import torch
import torchvision
from each import each
from timm.layers import (
    CecaModule,
    EcaModule,
    EffectiveSEModule,
    GatherExcite,
    GlobalContext,
    SelectiveKernel,
    SEModule,
    SplitAttn,
)
from timm.layers.cbam import CbamModule, LightCbamModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from srp_exp.srp import (
    Depth,
    Linear,
    Schedule,
    SrpRecord,
    Stages,
    apply_srp,
    fix_regions,
    read_regions,
    region_side,
    remove_srp,
    set_progress,
    srp_modules,
)
from srp_exp.srp.region import PLACEMENTS, SHARES, RegionPlacement, Share

AttentionFactory = Callable[[int], nn.Module]

LAYERS: dict[str, AttentionFactory] = {
    "se": functools.partial(SEModule, rd_ratio=0.25, rd_divisor=1),
    "ese": EffectiveSEModule,
    "eca": EcaModule,
    "ceca": CecaModule,
    "cbam": functools.partial(CbamModule, rd_ratio=0.25, rd_divisor=1),
    "lcbam": functools.partial(LightCbamModule, rd_ratio=0.25, rd_divisor=1),
    "ge": functools.partial(GatherExcite, use_mlp=False),
    "sk": SelectiveKernel,
    "splat": functools.partial(SplitAttn, norm_layer=nn.BatchNorm2d),
}
NETWORKS = {  # number of attention modules
    "mobilenetv3_small_050": 9,
    "skresnet18": 8,
    "resnest14d": 4,
    "mobilenet_v3_small": 9,
}


class TinyNet(nn.Module):
    """Maps of 12 x 10 and 6 x 5 with one attention module each, and a classifier that pools too."""

    def __init__(self, attention: AttentionFactory, channels: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.attention1 = attention(channels)
        self.down = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.attention2 = attention(channels)
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention1(self.stem(x).relu())
        x = self.attention2(self.down(x).relu())
        return self.fc(x.mean((2, 3)))


def images(batch: int = 3, height: int = 12, width: int = 10) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def tiny_with_srp(
    scale: Schedule | float = 0.5, share: Share = "sample", regions: int = 1, placement: RegionPlacement = "corner"
) -> TinyNet:
    net = copy.deepcopy(_tiny_with_srp(scale, share, regions, placement))
    torch.manual_seed(0)
    return net


@functools.cache
def _tiny_with_srp(scale: Schedule | float, share: Share, regions: int, placement: RegionPlacement) -> TinyNet:
    torch.manual_seed(0)
    net = TinyNet(LAYERS["se"]).train()
    apply_srp(net, scale, share=share, regions=regions, placement=placement, example_input=images())
    return net


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in LAYERS:
        net: nn.Module = TinyNet(LAYERS[name])
    elif name in timm.list_models():
        net = timm.create_model(name, num_classes=5)
    else:
        net = torchvision.models.mobilenet_v3_small(num_classes=5, dropout=0.0)
    for module in net.modules():  # no gamma of 0 that would hide the attention, no statistics of 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean, std=0.1)
    return net


@dataclass
class Pair:
    """A network and its copy with SRP of scale 0.5; tests that train copy them."""

    plain: nn.Module
    with_srp: nn.Module
    records: list[SrpRecord]
    images: Tensor
    count: int


@pytest.fixture(scope="module", params=[*LAYERS, *NETWORKS])
def pair(request: pytest.FixtureRequest) -> Pair:
    plain = build(request.param)
    x = images() if request.param in LAYERS else images(3, 64, 64)
    with_srp = copy.deepcopy(plain)
    records = apply_srp(with_srp, 0.5, example_input=x[:2])
    return Pair(plain, with_srp, records, x, NETWORKS.get(request.param, 2))


def training_step(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Output and gradients of one step in training mode, from seed 0; the network is copied first."""
    net = copy.deepcopy(net).train()
    torch.manual_seed(0)
    output = net(x)
    output.square().sum().backward()
    return output.detach(), {name: p.grad for name, p in net.named_parameters()}


class TestNetworks:
    def test_every_attention_module_has_srp_and_nothing_else_changes(self, pair: Pair) -> None:
        assert len(pair.records) == pair.count
        assert sorted(srp_modules(pair.with_srp)) == sorted(record.name for record in pair.records)
        plain, with_srp = pair.plain, pair.with_srp
        assert [name for name, _ in with_srp.named_modules()] == [name for name, _ in plain.named_modules()]
        modules = dict(with_srp.named_modules())
        for name, module in plain.named_modules():
            assert isinstance(modules[name], type(module))
            assert type(modules[name]).__name__ == type(module).__name__
            assert not modules[name]._forward_pre_hooks
            new = set(vars(modules[name])) - set(vars(module))
            assert new == ({"_srp"} if name in srp_modules(with_srp) else set())

        state, state_with_srp = plain.state_dict(), with_srp.state_dict()
        assert list(state_with_srp) == list(state)
        assert [name for name, tensor in state.items() if not torch.equal(tensor, state_with_srp[name])] == []
        assert [n for n, _ in with_srp.named_parameters()] == [n for n, _ in plain.named_parameters()]

    def test_evaluation_is_bit_identical_and_draws_nothing(self, pair: Pair) -> None:
        plain, with_srp = pair.plain.eval(), pair.with_srp.eval()
        state = torch.get_rng_state()
        with torch.no_grad():
            output = with_srp(pair.images)
        assert torch.equal(torch.get_rng_state(), state)
        with torch.no_grad():
            assert torch.equal(output, plain(pair.images))

    def test_training_at_scale_one_is_that_of_the_plain_network_bit_for_bit(self, pair: Pair) -> None:
        """So it is at a scale whose regions round to the whole map."""
        expected, expected_grads = training_step(pair.plain, pair.images)
        net = copy.deepcopy(pair.with_srp)
        for scale, share in zip((1.0, 0.999), SHARES, strict=True):
            for pool in srp_modules(net).values():
                pool.scale, pool.share = scale, share
            output, grads = training_step(net, pair.images)
            assert torch.equal(output, expected)
            for name, grad in expected_grads.items():
                assert torch.equal(torch.as_tensor(grads[name]), torch.as_tensor(grad)), name

    def test_training_pools_regions_and_every_parameter_still_learns(self, pair: Pair) -> None:
        expected, expected_grads = training_step(pair.plain, pair.images)
        output, grads = training_step(pair.with_srp, pair.images)
        assert not torch.allclose(output, expected, rtol=1e-4)
        for name, expected_grad in expected_grads.items():
            grad = grads[name]
            assert (grad is None) == (expected_grad is None), name
            if grad is not None and expected_grad is not None:
                assert grad.isfinite().all(), name
                assert bool(grad.any()) or not bool(expected_grad.any()), name

    def test_removal_restores_everything(self, pair: Pair) -> None:
        net = copy.deepcopy(pair.with_srp)
        training_step(net, pair.images)
        remove_srp(net)
        plain = pair.plain
        assert repr(net) == repr(plain)
        assert list(net.state_dict()) == list(plain.state_dict())
        assert srp_modules(net) == {}
        for (name, module), (plain_name, plain_module) in zip(net.named_modules(), plain.named_modules(), strict=True):
            assert name == plain_name
            assert type(module) is type(plain_module)
            assert set(vars(module)) == set(vars(plain_module))
            assert not module._forward_pre_hooks
        assert torch.equal(training_step(net, pair.images)[0], training_step(plain, pair.images)[0])


class SlowSE:
    """Squeeze-and-excitation written out, from timm's weights: the descriptor of given regions gates the map."""

    def __init__(self, layer: nn.Module) -> None:
        state = {name: tensor.squeeze().tolist() for name, tensor in layer.state_dict().items()}
        self.weight1, self.bias1 = state["fc1.weight"], state["fc1.bias"]
        self.weight2, self.bias2 = state["fc2.weight"], state["fc2.bias"]

    def __call__(self, x: Tensor, corners: list[list[tuple[int, int]]], region: tuple[int, int]) -> Tensor:
        output = torch.empty_like(x)
        height, width = x.shape[2:]
        for b in range(x.shape[0]):
            descriptor = []
            for c in range(x.shape[1]):
                values = [
                    x[b, c, row % height, column % width].item()
                    for top, left in corners[b]
                    for row in range(top, top + region[0])
                    for column in range(left, left + region[1])
                ]
                descriptor.append(sum(values) / len(values))
            hidden = [max(0.0, v) for v in self._layer(self.weight1, self.bias1, descriptor)]
            gate = [1 / (1 + math.exp(-v)) for v in self._layer(self.weight2, self.bias2, hidden)]
            for c, gate_c in enumerate(gate):
                output[b, c] = x[b, c] * gate_c
        return output

    @staticmethod
    def _layer(weight: list[list[float]], bias: list[float], inputs: list[float]) -> list[float]:
        return [b + sum(w * v for w, v in zip(row, inputs, strict=True)) for row, b in zip(weight, bias, strict=True)]


class HardCodedPool(nn.Module):
    """Squeeze-and-excitation of a network for one image size: the pooling's kernel is a number."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(8)
        self.fc1 = nn.Conv2d(channels, 4, 1)
        self.fc2 = nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(self.pool(x)).relu()).sigmoid()


class TestAgainstASlowLoop:
    @each(share_and_regions=[("sample", 1), ("batch", 2)])
    @pytest.mark.parametrize("placement", PLACEMENTS)
    @pytest.mark.parametrize("layer", [SEModule(8, rd_channels=4), HardCodedPool()], ids=["timm", "hard-coded"])
    def test_training_output(
        self, layer: nn.Module, placement: RegionPlacement, share_and_regions: tuple[Share, int]
    ) -> None:
        share, regions = share_and_regions
        torch.manual_seed(0)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        net = nn.Sequential(copy.deepcopy(layer))
        height, width = (8, 8) if isinstance(layer, HardCodedPool) else (9, 6)
        x = torch.randn(4, 8, height, width)
        apply_srp(net, 0.5, share=share, regions=regions, placement=placement, example_input=x)
        sides = (region_side(0.5, height), region_side(0.5, width))
        output = net.train()(x)
        drawn = read_regions(net)["0"]
        assert drawn.shape == (4 if share == "sample" else 1, regions, 4)
        assert drawn[..., 2:].unique(dim=0).flatten().tolist()[:2] == list(sides)
        corners = [[(t, c) for t, c, _, _ in of_image] for of_image in drawn.expand(4, regions, 4).tolist()]
        expected = SlowSE(layer)(x, corners, sides)
        torch.testing.assert_close(output, expected)
        assert not torch.allclose(output, layer(x), rtol=1e-2)


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.attention = EcaModule(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.attention(self.conv(x)))


class StagedNet(nn.Module):
    """Two blocks on 16 x 12 maps, one on 8 x 6, one on 4 x 3."""

    pretrained_cfg: ClassVar = {"input_size": (3, 16, 12)}  # as in timm: the size of the default example input

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.stage1 = nn.Sequential(Block(8), Block(8))
        self.stage2 = nn.Sequential(nn.MaxPool2d(2), Block(8))
        self.stage3 = nn.Sequential(nn.MaxPool2d(2), Block(8))
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stage3(self.stage2(self.stage1(self.stem(x)))).mean((2, 3)))


class TestRecords:
    def test_literal_values(self) -> None:
        assert apply_srp(StagedNet(), Linear(1.0, 0.25)) == [  # all exact in binary
            SrpRecord("stage1.0.attention", "EcaModule", Depth(0, 4, 0, 3), 1.0, (16, 12)),
            SrpRecord("stage1.1.attention", "EcaModule", Depth(1, 4, 0, 3), 0.75, (16, 12)),
            SrpRecord("stage2.1.attention", "EcaModule", Depth(2, 4, 1, 3), 0.5, (8, 6)),
            SrpRecord("stage3.1.attention", "EcaModule", Depth(3, 4, 2, 3), 0.25, (4, 3)),
        ]

    def test_scales_reach_the_modules(self) -> None:
        net = StagedNet()
        records = apply_srp(net, Stages([0.9, 0.6, 0.3]), share="batch", regions=2)
        assert [record.scale for record in records] == [0.9, 0.9, 0.6, 0.3]
        pools = srp_modules(net)
        assert list(pools) == [record.name for record in records]
        assert [pool.scale for pool in pools.values()] == [0.9, 0.9, 0.6, 0.3]
        assert {(pool.share, pool.regions) for pool in pools.values()} == {("batch", 2)}

    def test_default_example_is_of_the_size_that_timm_names(self) -> None:
        net = timm.create_model("mobilenetv3_small_050")
        records = apply_srp(net, 0.5)
        assert [r.map_size for r in records] == [(56, 56)] + [(14, 14)] * 5 + [(7, 7)] * 3

    def test_scale_out_of_range_changes_nothing(self) -> None:
        net = StagedNet()
        with pytest.raises(ValueError, match=r"^scale=1.5 is not in \(0, 1\]"):
            apply_srp(net, 1.5)
        assert srp_modules(net) == {}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"regions": 0}, "regions=0 is below 1"),
            ({"share": "channel"}, "share='channel' is not one of sample, batch"),
            ({"placement": "centre"}, "placement='centre' is not one of corner, wrap"),
            ({"schedule": Stages([0.5, 0.5])}, "scales=[0.5, 0.5] has 2 values"),
            ({"schedule": lambda depth: 1.0 if depth.index < 3 else 2.0}, "scale=2.0 is not in (0, 1]"),
        ],
    )
    def test_refused_settings_change_nothing(self, settings: dict[str, object], message: str) -> None:
        net = StagedNet()
        with pytest.raises(ValueError) as error:
            apply_srp(net, **{"schedule": 0.5, **settings})  # type: ignore[arg-type]
        assert str(error.value).startswith(message)
        assert srp_modules(net) == {}
        assert repr(net) == repr(StagedNet())


class TestRefusals:
    def test_applying_twice(self) -> None:
        net = tiny_with_srp()
        with pytest.raises(ValueError, match=r"^TinyNet has SRP already: call remove_srp first$"):
            apply_srp(net, 0.3, example_input=images())
        remove_srp(net)
        assert [record.scale for record in apply_srp(net, 0.3, example_input=images())] == [0.3, 0.3]

    @each(attention=[lambda channels: nn.Identity(), GlobalContext])
    def test_no_attention(self, attention: AttentionFactory) -> None:
        net = TinyNet(attention)
        with pytest.raises(ValueError) as error:
            apply_srp(net, 0.5, example_input=images())
        message = str(error.value)
        assert message.startswith("TinyNet has no channel attention with average pooling; looked for ")
        assert "averages a map (B, C, H, W) over H and W" in message
        assert "SE, ESE, ECA" in message
        assert "\n" not in message

    def test_another_branch_runs_as_it_is_written(self) -> None:
        class Branching(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                gate = x.mean((2, 3), keepdim=True).sigmoid()
                if x.shape[2] > 6:
                    gate = gate * 2
                return x * gate

        net = nn.Sequential(Branching()).train()
        apply_srp(net, 0.5, example_input=images(2, 8, 8))
        for side, times in ((9, 2), (5, 1)):
            x = images(2, side, side)
            output = net(x)
            crops = [x[b, :, t : t + h, c : c + w] for b, [[t, c, h, w]] in enumerate(read_regions(net)["0"].tolist())]
            gate = torch.stack([crop.mean((1, 2)) for crop in crops]).sigmoid()[..., None, None]
            torch.testing.assert_close(output, x * gate * times)
        x = images(2, 5, 5)
        assert torch.equal(net.eval()(x), x * x.mean((2, 3), keepdim=True).sigmoid())

    def test_model_that_cannot_run_is_refused_in_one_line(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 4, 1), SEModule(4), nn.Flatten(), nn.Linear(99, 2)).train()
        before = {name: dict(vars(module)) for name, module in net.named_modules()}
        for given in ({}, {"example_input": images()}):
            with pytest.raises(ValueError, match=r"^Sequential can't be run on images [^\n]*pass example_input[^\n]*$"):
                apply_srp(net, 0.5, **given)
        assert {name: dict(vars(module)) for name, module in net.named_modules()} == before


class TestDefaults:
    """What apply_srp does on its own."""

    def test_schedule_is_linear_over_the_depth(self) -> None:
        net = StagedNet()
        assert apply_srp(net) == apply_srp(StagedNet(), Linear(1.0, 0.5))
        assert {(p.share, p.regions, p.placement) for p in srp_modules(net).values()} == {("sample", 1, "corner")}

    @each(schedule=[np.float32(0.5), np.float16(0.5)])
    def test_number_of_numpy(self, schedule: float) -> None:
        records = apply_srp(StagedNet(), schedule)
        assert [(record.scale, type(record.scale)) for record in records] == [(0.5, float)] * 4

    def test_integer_one_is_the_whole_map(self) -> None:
        for one in (1, np.int64(1)):
            assert [record.scale for record in apply_srp(StagedNet(), one)] == [1.0] * 4

    @each(schedule=[0, 2, np.float32(1.5), math.nan])
    def test_number_out_of_range(self, schedule: float) -> None:
        with pytest.raises(ValueError, match=r"^scale=[^\n]* is not in \(0, 1\]"):
            apply_srp(StagedNet(), schedule)

    @each(schedule=["linear", [0.5, 0.4], (1.0, 0.5)])
    def test_what_is_no_schedule(self, schedule: object) -> None:
        net = StagedNet()
        with pytest.raises((ValueError, TypeError), match=r"^[^\n]*schedule[^\n]*$"):
            apply_srp(net, schedule)  # type: ignore[arg-type]
        assert srp_modules(net) == {}

    def test_gray_images(self) -> None:
        net = timm.create_model("mobilenetv3_small_050", in_chans=1)
        assert [record.map_size[0] for record in apply_srp(net)] == [56] + [14] * 5 + [7] * 3

    @each(channels=(1, 3))
    def test_network_for_images_of_32_pixels(self, channels: int) -> None:
        net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1), SEModule(8), nn.Flatten(), nn.Linear(8 * 16 * 16, 5)
        ).train()
        (record,) = apply_srp(net, 0.5)
        assert (record.name, record.map_size) == ("1", (16, 16))
        assert net(torch.randn(2, channels, 32, 32)).shape == (2, 5)


class TestBehaviour:
    def test_frozen_module_in_a_training_network_pools_the_whole_map(self) -> None:
        net = tiny_with_srp(share="batch")
        first, second = net.attention1, net.attention2
        first.eval()
        x = torch.randn(2, 16, 6, 6)
        plain = copy.deepcopy(net)
        remove_srp(plain)
        assert torch.equal(first(x), plain.attention1(x))
        assert not torch.allclose(second(x), plain.attention2(x))
        state = torch.get_rng_state()
        second.eval()
        net(images())
        assert torch.equal(torch.get_rng_state(), state)

    def test_training_mode_at_the_time_of_applying_is_kept(self) -> None:
        for training in (True, False):
            net = TinyNet(LAYERS["se"]).train(training)
            apply_srp(net, 0.5, example_input=images())
            assert {module.training for module in net.modules()} == {training}

    def test_share_batch_with_two_regions_treats_equal_images_alike(self) -> None:
        x = images(1).expand(4, -1, -1, -1)
        shared = tiny_with_srp(share="batch", regions=2)(x)
        torch.testing.assert_close(shared, shared[:1].expand_as(shared))
        assert not torch.allclose(tiny_with_srp(regions=2)(x)[0], tiny_with_srp(regions=2)(x)[1], rtol=1e-4)

    @each(share=SHARES)
    def test_autocast_channels_last_step(self, share: Share) -> None:
        net = tiny_with_srp(share=share).to(memory_format=torch.channels_last)
        gradients: list[Tensor] = []
        net.attention1.register_full_backward_hook(lambda _, to_input, __: gradients.append(to_input[0]))
        with torch.autocast("cpu", torch.bfloat16):
            output = net(images().to(memory_format=torch.channels_last))
        assert output.dtype == torch.bfloat16
        output.float().sum().backward()
        assert gradients[0].is_contiguous(memory_format=torch.channels_last)
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

    @each(share=SHARES)
    def test_half_network(self, share: Share) -> None:
        net = tiny_with_srp(0.123456789, share=share)  # neither half nor bfloat16 holds it
        set_progress(net, 1)
        net.bfloat16()
        assert net(images().bfloat16()).dtype == torch.bfloat16
        assert [pool.scale for pool in srp_modules(net).values()] == pytest.approx([0.123456789] * 2, 1e-14)

    @each(use_buffers=[False, True])
    def test_exponential_moving_average(self, use_buffers: bool) -> None:
        net = tiny_with_srp()
        ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=use_buffers)
        ema.update_parameters(net)  # the first update copies
        before = net.fc.weight.detach().clone()
        with torch.no_grad():
            net.fc.weight.add_(1)
        ema.update_parameters(net)
        torch.testing.assert_close(ema.module.get_parameter("fc.weight"), before + 0.5)
        plain = TinyNet(LAYERS["se"]).eval()
        plain.load_state_dict(ema.module.state_dict(), strict=True)
        assert torch.equal(ema.eval()(images()), plain(images()))
        averaged = srp_modules(ema.module)
        assert [pool.scale for pool in averaged.values()] == [0.5] * 2
        assert all(averaged[name] is not pool for name, pool in srp_modules(net).items())

    def test_deepcopy_trains_on_its_own(self) -> None:
        net = tiny_with_srp()
        twin = copy.deepcopy(net)
        set_progress(twin, 0)
        assert [pool.scale for pool in srp_modules(net).values()] == [0.5, 0.5]
        torch.manual_seed(1)
        expected = net(images())
        remove_srp(twin)
        torch.manual_seed(1)
        assert torch.equal(net(images()), expected)
        assert isinstance(twin.attention1, SEModule)

    def test_weights_trained_with_srp_load_into_the_plain_network(self) -> None:
        net = tiny_with_srp()
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(images()).square().sum().backward()
            optimizer.step()
        plain = TinyNet(LAYERS["se"]).eval()
        plain.load_state_dict(net.state_dict(), strict=True)
        assert torch.equal(net.eval()(images()), plain(images()))

    def test_passes_differ_and_a_seed_repeats_them(self) -> None:
        net = tiny_with_srp()
        torch.manual_seed(3)
        first, second = net(images()), net(images())
        torch.manual_seed(3)
        assert torch.equal(net(images()), first)
        assert torch.equal(net(images()), second)
        assert not torch.equal(first, second)


class TestCopies:
    @each(placement=PLACEMENTS)
    def test_pickle_and_torch_save(self, placement: RegionPlacement) -> None:
        net = tiny_with_srp(Linear(0.9, 0.4), "batch", 2, placement)
        net(images())
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        torch.manual_seed(1)
        expected = net(images())
        for loaded in (pickle.loads(pickle.dumps(net)), torch.load(file, weights_only=False), copy.deepcopy(net)):
            pools = srp_modules(loaded)
            assert [pool.scale for pool in pools.values()] == [0.9, 0.4]
            assert isinstance(loaded.attention1, SEModule)
            torch.manual_seed(1)
            assert torch.equal(loaded(images()), expected)
            assert not torch.equal(loaded(images()), loaded(images()))
            remove_srp(loaded)
            assert type(loaded.attention1) is SEModule
            assert srp_modules(net)

    def test_fixed_regions_go_along(self) -> None:
        net = tiny_with_srp()
        net(images())
        fix_regions(net, read_regions(net))
        expected = net(images())
        for loaded in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
            assert torch.equal(loaded(images()), expected)

    def test_state_dict_of_the_optimizer_and_the_network_are_plain(self) -> None:
        net = tiny_with_srp()
        set_progress(net, 0.5)
        net(images())
        torch.load(self._saved(net.state_dict()), weights_only=True)

    @staticmethod
    def _saved(thing: object) -> io.BytesIO:
        file = io.BytesIO()
        torch.save(thing, file)
        file.seek(0)
        return file

    def test_replicas_of_data_parallel_are_refused(self) -> None:
        net = tiny_with_srp()
        replica = net.attention1._replicate_for_data_parallel()
        with pytest.raises(RuntimeError, match=r"^SRP [^\n]*use DistributedDataParallel, not DataParallel$"):
            replica(torch.randn(2, 16, 12, 10))


class TestTransforms:
    """torch.func works through SRP."""

    def test_grad_equals_backward(self) -> None:
        net = tiny_with_srp()
        parameters = {name: p.detach() for name, p in net.named_parameters()}

        def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(net, parameters, (x,)).square().sum()

        torch.manual_seed(1)
        gradients = torch.func.grad(loss)(parameters, images())
        torch.manual_seed(1)
        net(images()).square().sum().backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(gradients[name], parameter.grad)
        net(images()).sum().backward()  # and the network goes on as before

    @each(regions=(1, 2), randomness=["different", "same"])
    def test_vmap_over_images(self, randomness: str, regions: int) -> None:
        """Gradients of each sample: "same" gives all of them the regions of one."""
        net = tiny_with_srp(regions=regions)
        x = images(1).expand(4, -1, -1, -1)
        outputs = torch.func.vmap(lambda image: net(image[None])[0], randomness=randomness)(x)
        assert outputs.shape == (4, 5)
        assert torch.allclose(outputs[0], outputs[1]) == (randomness == "same")
        after = net(images())
        assert after.shape == (3, 5)
        assert read_regions(net)["attention1"].shape == (3, regions, 4)

    def test_per_sample_gradients_with_shared_regions(self) -> None:
        net = tiny_with_srp(share="batch")
        net(images())
        fix_regions(net, read_regions(net))
        parameters = {name: p.detach() for name, p in net.named_parameters()}

        def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
            return torch.func.functional_call(net, parameters, (image[None],)).square().sum()

        per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images())
        net(images()).square().sum().backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(per_sample[name].sum(0), parameter.grad, rtol=1e-4, atol=1e-5)

    def test_vmap_that_allows_no_random_number_is_refused_in_one_line(self) -> None:
        net = tiny_with_srp()
        with pytest.raises(RuntimeError, match=r"^[^\n]*random[^\n]*$"):
            torch.func.vmap(lambda image: net(image[None])[0])(images())
