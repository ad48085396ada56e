"""SRP in real networks: evaluation, keys and parameters stay those of the plain network; training pools regions."""

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import timm
import torch
import torchvision
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
    StochasticRegionPool2d,
    apply_srp,
    region_side,
    remove_srp,
    srp_modules,
)
from srp_exp.srp.region import SHARES, Share

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
TIMM_NETWORKS = {  # number of attention modules
    "seresnet50": 16,
    "mobilenetv3_small_050": 9,
    "efficientnet_b0": 16,
    "regnety_002": 13,
    "skresnet18": 8,
    "resnest14d": 4,
    "ecaresnet26t": 8,
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


def tiny_with_srp(scale: Schedule | float = 0.5, share: Share = "sample", regions: int = 1) -> TinyNet:
    torch.manual_seed(0)
    net = TinyNet(LAYERS["se"]).train()
    apply_srp(net, scale, share=share, regions=regions, example_input=images())
    return net


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in LAYERS:
        net: nn.Module = TinyNet(LAYERS[name])
    elif name in TIMM_NETWORKS:
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


@pytest.fixture(scope="module", params=[*LAYERS, *TIMM_NETWORKS, "mobilenet_v3_small"])
def pair(request: pytest.FixtureRequest) -> Pair:
    plain = build(request.param)
    x = images() if request.param in LAYERS else images(3, 64, 64)
    with_srp = copy.deepcopy(plain)
    records = apply_srp(with_srp, 0.5, example_input=x[:2])
    return Pair(plain, with_srp, records, x, {**TIMM_NETWORKS, "mobilenet_v3_small": 9}.get(request.param, 2))


def training_step(net: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Output and gradients of one step in training mode, from seed 0; the network is copied first."""
    net = copy.deepcopy(net).train()
    torch.manual_seed(0)
    output = net(x)
    output.square().sum().backward()
    return output.detach(), {name: p.grad for name, p in net.named_parameters()}


class TestNetworks:
    def test_every_attention_module_has_a_pool_and_nothing_else_changes(self, pair: Pair) -> None:
        assert len(pair.records) == pair.count
        pools = srp_modules(pair.with_srp)
        assert sorted(pools) == sorted(record.name for record in pair.records)
        modules = dict(pair.with_srp.named_modules())
        new = {name: module for name, module in modules.items() if name not in dict(pair.plain.named_modules())}
        assert new == {f"{name}.srp_pool": pool for name, pool in pools.items()}
        assert {type(pool) for pool in pools.values()} == {StochasticRegionPool2d}
        for name, module in pair.plain.named_modules():
            assert isinstance(modules[name], type(module))
            assert type(modules[name]).__name__ == type(module).__name__

    def test_evaluation_is_bit_identical_and_draws_nothing(self, pair: Pair) -> None:
        plain, with_srp = pair.plain.eval(), pair.with_srp.eval()
        state = torch.get_rng_state()
        with torch.no_grad():
            output = with_srp(pair.images)
        assert torch.equal(torch.get_rng_state(), state)
        with torch.no_grad():
            assert torch.equal(output, plain(pair.images))

    def test_state_is_that_of_the_plain_network(self, pair: Pair) -> None:
        plain, with_srp = pair.plain.state_dict(), pair.with_srp.state_dict()
        assert list(with_srp) == list(plain)
        assert [name for name, tensor in plain.items() if not torch.equal(tensor, with_srp[name])] == []
        assert [n for n, _ in pair.with_srp.named_parameters()] == [n for n, _ in pair.plain.named_parameters()]
        copy.deepcopy(pair.plain).load_state_dict(with_srp, strict=True)

    def test_training_at_scale_one_is_that_of_the_plain_network_bit_for_bit(self, pair: Pair) -> None:
        expected, expected_grads = training_step(pair.plain, pair.images)
        net = copy.deepcopy(pair.with_srp)
        for share in SHARES:
            for pool in srp_modules(net).values():
                pool.set_ramp(0)
                pool.share = share
            output, grads = training_step(net, pair.images)
            assert torch.equal(output, expected)
            for name, grad in expected_grads.items():
                assert torch.equal(torch.as_tensor(grads[name]), torch.as_tensor(grad)), name

    @pytest.mark.parametrize("share", SHARES)
    def test_training_pools_regions_and_every_parameter_still_learns(self, pair: Pair, share: Share) -> None:
        expected, expected_grads = training_step(pair.plain, pair.images)
        net = copy.deepcopy(pair.with_srp)
        for pool in srp_modules(net).values():
            pool.share = share
        output, grads = training_step(net, pair.images)
        assert not torch.allclose(output, expected, rtol=1e-4)
        for name, expected_grad in expected_grads.items():
            grad = grads[name]
            assert (grad is None) == (expected_grad is None), name
            if grad is not None and expected_grad is not None:
                assert grad.isfinite().all(), name
                assert bool(grad.any()) or not bool(expected_grad.any()), name

    def test_removal_restores_everything(self, pair: Pair) -> None:
        net = copy.deepcopy(pair.with_srp)
        remove_srp(net)
        plain = pair.plain
        assert repr(net) == repr(plain)
        assert list(net.state_dict()) == list(plain.state_dict())
        assert srp_modules(net) == {}
        for (name, module), (plain_name, plain_module) in zip(net.named_modules(), plain.named_modules(), strict=True):
            assert name == plain_name
            assert type(module) is type(plain_module)
            assert not hasattr(module, "srp_pool")
        assert torch.equal(training_step(net, pair.images)[0], training_step(plain, pair.images)[0])


class SlowSE:
    """Squeeze-and-excitation written out, from timm's weights: the descriptor of given regions gates the map."""

    def __init__(self, layer: nn.Module) -> None:
        state = {name: tensor.squeeze().tolist() for name, tensor in layer.state_dict().items()}
        self.weight1, self.bias1 = state["fc1.weight"], state["fc1.bias"]
        self.weight2, self.bias2 = state["fc2.weight"], state["fc2.bias"]

    def __call__(self, x: Tensor, corners: list[list[tuple[int, int]]], region: tuple[int, int]) -> Tensor:
        output = torch.empty_like(x)
        for b in range(x.shape[0]):
            descriptor = []
            for c in range(x.shape[1]):
                values = [
                    x[b, c, row, column].item()
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
    @pytest.mark.parametrize("regions", [1, 2])
    @pytest.mark.parametrize("share", SHARES)
    @pytest.mark.parametrize("layer", [SEModule(8, rd_channels=4), HardCodedPool()], ids=["timm", "hard-coded"])
    def test_training_output(self, layer: nn.Module, share: Share, regions: int) -> None:
        torch.manual_seed(0)
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        net = nn.Sequential(copy.deepcopy(layer))
        height, width = (8, 8) if isinstance(layer, HardCodedPool) else (9, 6)
        x = torch.randn(4, 8, height, width)
        apply_srp(net, 0.5, share=share, regions=regions, example_input=x)
        sides = (region_side(0.5, height), region_side(0.5, width))
        pool = srp_modules(net)["0"]
        torch.manual_seed(7)
        output = net.train()(x)
        torch.manual_seed(7)
        top, left = (t.expand(4, regions).tolist() for t in pool.draw(4, (height, width), sides, x.device))
        corners = [list(zip(t, c, strict=True)) for t, c in zip(top, left, strict=True)]
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

    @pytest.mark.parametrize("attention", [lambda channels: nn.Identity(), GlobalContext])
    def test_no_attention(self, attention: AttentionFactory) -> None:
        net = TinyNet(attention)
        with pytest.raises(ValueError) as error:
            apply_srp(net, 0.5, example_input=images())
        message = str(error.value)
        assert message.startswith("TinyNet has no channel attention with average pooling; looked for ")
        assert "averages a map (B, C, H, W) over H and W" in message
        assert "SE, ESE, ECA" in message
        assert "\n" not in message

    def test_another_branch_than_the_one_traced(self) -> None:
        class Branching(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                gate = x.mean((2, 3), keepdim=True).sigmoid()
                if x.shape[2] > 6:
                    gate = gate * 2
                return x * gate

        net = nn.Sequential(Branching()).train()
        apply_srp(net, 0.5, example_input=images(2, 8, 8))
        net(images(2, 9, 9))
        with pytest.raises(AssertionError, match="Branching takes another branch for this input"):
            net(images(2, 5, 5))
        net.eval()(images(2, 5, 5))


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

    @pytest.mark.parametrize("share", SHARES)
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

    @pytest.mark.parametrize("share", SHARES)
    def test_half_network(self, share: Share) -> None:
        net = tiny_with_srp(share=share).bfloat16()
        assert net(images().bfloat16()).dtype == torch.bfloat16
        assert [pool.scale_units.item() for pool in srp_modules(net).values()] == [500_000_000] * 2

    @pytest.mark.parametrize("use_buffers", [False, True])
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
        assert [pool.scale_units.item() for pool in averaged.values()] == [500_000_000] * 2
        assert all(averaged[name] is not pool for name, pool in srp_modules(net).items())

    def test_deepcopy_trains_on_its_own(self) -> None:
        net = tiny_with_srp()
        twin = copy.deepcopy(net)
        for pool in srp_modules(twin).values():
            pool.set_ramp(0)
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
