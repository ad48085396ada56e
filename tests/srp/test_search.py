"""How fine the search for attention tells a mean from what is nearly one, and a gate from a norm."""

import pytest
import torch
from torch import Tensor, nn

from srp_exp.srp import Findings, apply_srp, find_attention, read_regions

CHANNELS = 6


def maps(batch: int = 2, height: int = 6, width: int = 5) -> Tensor:
    return torch.randn(batch, CHANNELS, height, width, generator=torch.Generator().manual_seed(0))


def found(module: nn.Module) -> Findings:
    torch.manual_seed(0)
    return find_attention(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), module), maps())


class Gate(nn.Module):
    """A gate from the descriptor that a subclass takes."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def descriptor(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(self.descriptor(x)).sigmoid()[:, :, None, None]


class Float32Only(Gate):
    """As code of its own that takes no other type: the search runs it in float32."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise TypeError("float32 alone")
        return super().forward(x)


class Weighted(Gate):
    """A weighted mean, whose weights are `off` from those of the plain one: a learned pooling that began as a mean."""

    off = 1e-3

    def descriptor(self, x: Tensor) -> Tensor:
        weight = torch.ones(x.shape[-2:], dtype=x.dtype) / x.shape[-2:].numel()
        weight[0, 0], weight[-1, -1] = weight[0, 0] + self.off, weight[-1, -1] - self.off
        return (x * weight).sum((2, 3))


class WeightedLess(Weighted):
    off = 1e-6


class WeightedFloat32Only(Float32Only, Weighted):
    pass


class AlmostConstant(Gate):
    """A gate that hardly moves, as one that begins with a small gain does."""

    gain = 1e-2

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.gain * self.fc(x.mean((2, 3))).tanh())[:, :, None, None]


class HardlyMoving(AlmostConstant):
    gain = 1e-4


class HardlyMovingFloat32Only(Float32Only, AlmostConstant):
    pass


class RootMeanSquare(nn.Module):
    """Changes with a constant that is added to the map, and is a norm for all that."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt()


class NearlyTheSquare(Gate):
    """Pools something near the square of its map, and is attention."""

    def forward(self, x: Tensor) -> Tensor:
        energy = x.square() * 1.02
        return x * self.fc(energy.mean((2, 3))).sigmoid()[:, :, None, None]


class SecondMean(Gate):
    """Three means are taken, each by the same function; the second one gates."""

    def forward(self, x: Tensor) -> Tensor:
        before = x.flip(1).mean((2, 3))
        gate = self.fc(x.mean((2, 3))).sigmoid()
        after = x.flip(2)[:, :3].mean((2, 3))
        return x * gate[:, :, None, None] + 0 * (before.sum() + after.sum())


@pytest.mark.parametrize("module", [Weighted, WeightedLess, WeightedFloat32Only])
def test_what_is_nearly_the_mean_is_not_taken_for_it(module: type[Gate]) -> None:
    findings = found(module())
    assert [pooling.module for pooling in findings.poolings if pooling.gates] == []
    assert any("isn't seen to come from its mean" in left_out.reason for left_out in findings.left_out)


@pytest.mark.parametrize(
    "module", [Gate, Float32Only, AlmostConstant, HardlyMoving, HardlyMovingFloat32Only, NearlyTheSquare]
)
def test_gates_that_hardly_move_or_look_like_a_norm_are_found(module: type[Gate]) -> None:
    assert [pooling.module for pooling in found(module()).poolings if pooling.gates] == ["1"]


def test_what_is_left_out_is_named_with_its_reason() -> None:
    findings = found(RootMeanSquare())
    assert [pooling.module for pooling in findings.poolings if pooling.gates] == []
    (left_out,) = findings.left_out
    assert (left_out.name, left_out.kind) == ("1", "RootMeanSquare")
    assert "square" in left_out.reason


def test_the_call_that_gates_is_the_one_that_is_answered() -> None:
    torch.manual_seed(0)
    module = SecondMean()
    net = nn.Sequential(module).train()
    (record,) = apply_srp(net, 0.5, example_input=maps())
    assert record.name == "0"
    x, seen = maps(4), []
    module.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    corners = read_regions(net)["0"].tolist()
    expected = [x[b, :, t : t + h, c : c + w].mean((1, 2)) for b, [[t, c, h, w]] in enumerate(corners)]
    torch.testing.assert_close(seen[0], torch.stack(expected))


class Aspp(nn.Module):
    """Pooling as in DeepLab: enlarged to a map again, and mixed with others by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.out = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(nn.functional.adaptive_avg_pool2d(x, 1)).relu()
        pooled = nn.functional.interpolate(pooled, size=x.shape[2:], mode="bilinear")
        return self.out(torch.cat([self.conv(x), pooled], 1)).relu()


class AttentionUnet(nn.Module):
    """The gate of Attention U-Net, one number for each position, behind ASPP."""

    def __init__(self) -> None:
        super().__init__()
        self.aspp, self.psi = Aspp(), nn.Conv2d(CHANNELS, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        deep = self.aspp(x)
        return torch.cat([x * self.psi((deep + x).relu()).sigmoid(), deep], 1)


class ChannelGateBehind(AttentionUnet):
    """A channel gate, from the mean of what ASPP gives, on the map that ASPP pools too."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(self.aspp(x).mean((2, 3))).sigmoid()[:, :, None, None]


@pytest.mark.parametrize("module", [AttentionUnet, ChannelGateBehind])
def test_pooling_whose_mean_a_convolution_mixes_with_maps_is_no_gate_of_them(module: type[nn.Module]) -> None:
    net = nn.Sequential(Gate(), module())
    records = apply_srp(net, 0.5, example_input=maps())
    assert "1.aspp" not in [record.name for record in records]
    assert ("1.aspp", True) in [(one.name, "where=" in one.reason) for one in records.left_out]


class Bam(Gate):
    """Channel and spatial branches meet before the sigmoid, after convolutions of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Sequential(nn.Conv2d(CHANNELS, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        channel = self.fc(self.descriptor(x))[:, :, None, None].expand_as(x)
        return x * (1 + (channel + self.spatial(x).expand_as(x)).sigmoid())


class ConvolvedGate(Gate):
    """The gate is convolved as a map of equal values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(self.descriptor(x)[:, :, None, None].expand_as(x)).sigmoid()


@pytest.mark.parametrize("module", [Bam, ConvolvedGate])
def test_a_channel_gate_that_is_a_map_is_found(module: type[Gate]) -> None:
    assert [pooling.module for pooling in found(module()).poolings if pooling.gates] == ["1"]


class Coordinate(nn.Module):
    """The gates of the two axes are multiplied with each other first."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.Conv2d(CHANNELS, CHANNELS, 1), nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.rows(x.mean(3, keepdim=True)), self.columns(x.mean(2, keepdim=True))
        return x * (rows.sigmoid() * columns.sigmoid())


class MaximumRepeated(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.amax((2, 3))).sigmoid()[:, :, None, None].repeat(1, 1, *x.shape[2:])


class OnOneRow(Gate):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, :1])


class GateOfEachPosition(Gate):
    """As GLU: no attention, since nothing smaller multiplies."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.flip(1).sigmoid() * x.flip(2).relu()


@pytest.mark.parametrize("module", [Coordinate, MaximumRepeated, OnOneRow])
def test_what_was_spread_before_it_multiplies_is_named(module: type[nn.Module]) -> None:
    findings = found(module())
    assert [one.name for one in findings.left_out] == ["1"]
    assert [pooling for pooling in findings.poolings if pooling.gates] == []


def test_a_gate_of_each_position_is_not_named() -> None:
    assert found(GateOfEachPosition()).left_out == []


def test_a_head_that_never_ran_is_named() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.head = Gate(), Gate()

        def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
            return (self.head(x) - target).square().mean() if self.training else self.main(x)

    (left_out,) = found(Auxiliary()).left_out
    assert left_out.name == "1.head"
    assert left_out.reason.startswith("never ran")
