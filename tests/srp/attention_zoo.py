"""Channel attention in the spellings of many authors, and modules that look like it but aren't.

tests/srp/attention_ways.py makes a table of what SRP does with them; tests/srp checks what it computes.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 8
MAP_SIZE = (6, 5)
AREA = 30


class Attention(nn.Module):
    """What all of the zoo shares: a layer named `reduce` that is given the descriptor, and the map it comes from."""

    def pooled_map(self, x: Tensor) -> Tensor:
        """The map that is pooled; for most, the input."""
        return x


class Excitation(Attention):
    """Two layers from the descriptor (B, C) to the gate (B, C)."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, 2 * channels)
        self.expand = nn.Linear(2 * channels, channels)

    def gate(self, descriptor: Tensor) -> Tensor:
        return self.expand(self.reduce(descriptor).relu()).sigmoid()


class MeanBroadcast(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class MeanKeepdim(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        descriptor = x.mean((2, 3), keepdim=True)
        return x * self.gate(descriptor.flatten(1)).unsqueeze(-1).unsqueeze(-1)


class TorchMeanOfNegativeAxes(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, _, _ = x.size()
        return x * self.gate(torch.mean(x, dim=[-1, -2])).view(batch, channels, 1, 1)


class FlattenMean(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x.flatten(2).mean(-1))[..., None, None] * x


class ViewMean(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x * self.gate(x.view(b, c, h * w).mean(2)).view(b, c, 1, 1)


class FunctionalAdaptivePool(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return torch.mul(x, self.gate(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))[:, :, None, None])


class FlattenMeanKeepdim(Excitation):
    """The pooled value is (B, C, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.flatten(2).mean(-1, keepdim=True).squeeze(-1))[:, :, None, None]


class PoolInSequential(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            OrderedDict(
                pool=nn.AdaptiveAvgPool2d(1),
                reduce=nn.Conv2d(CHANNELS, 2 * CHANNELS, 1),
                relu=nn.ReLU(),
                expand=nn.Conv2d(2 * CHANNELS, CHANNELS, 1),
                sigmoid=nn.Sigmoid(),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class PoolAndExpandAs(Excitation):
    def __init__(self) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.avg_pool(x).view(b, c)
        y = self.gate(y).view(b, c, 1, 1)
        return x * y.expand_as(x)


class SumOverArea(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2], x.shape[3]
        return x * self.gate(x.sum((2, 3)) / (height * width))[:, :, None, None]


class SumOverAreaAndExpand(Excitation):
    """The sizes serve the pooling and, later, the full map."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x * self.gate(x.sum((2, 3)) / (h * w)).view(b, c, 1, 1).expand(b, c, h, w)


class PoolOfTheMapsSize(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(F.avg_pool2d(x, x.shape[2:]).flatten(1))[:, :, None, None]


class OneAxisAfterTheOther(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(3).mean(2))[:, :, None, None]


class MethodMul(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul(self.gate(x.mean((2, 3)))[:, :, None, None])


class FunctionMultiply(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return torch.multiply(self.gate(x.mean((2, 3)))[:, :, None, None], x)


class InPlaceMul(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gate(x.mean((2, 3)))[:, :, None, None])


class InPlaceOperator(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        x *= self.gate(x.mean((2, 3)))[:, :, None, None]
        return x


class InlineInBlock(Excitation):
    """A residual block that holds its convolution and its attention itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def pooled_map(self, x: Tensor) -> Tensor:
        return self.conv(x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pooled_map(x)
        y = y * self.gate(y.mean((2, 3)))[:, :, None, None]
        return F.relu(x + y)


class TrainingBranch(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x.mean((2, 3)))
        if self.training:
            gate = gate * 0.5
        return x * gate[:, :, None, None]


class OptionalMask(Excitation):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = x * mask
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class PooledAfterRelu(Excitation):
    def pooled_map(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pooled_map(x).mean((2, 3)))[:, :, None, None]


class GroupsOfChannels(Excitation):
    """The map that is pooled and gated has five axes."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        groups = x.view(b, 2, c // 2, h, w)
        gate = self.gate(groups.mean((-2, -1)).flatten(1))
        return (groups * gate.view(b, 2, c // 2, 1, 1)).flatten(1, 2)


class GroupsPooledTogether(Excitation):
    """The map has five axes, its pooled value, (B, C, 1, 1), four."""

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        groups = x.view(b, 2, c // 2, h, w)
        gate = self.gate((groups.sum((-2, -1)).view(b, c, 1, 1) / (h * w)).squeeze(-1).squeeze(-1))
        return (groups * gate.view(b, 2, c // 2, 1, 1)).flatten(1, 2)


class IdentityInFront(Excitation):
    """The input has the same mean as the map that is pooled and gated."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(x)
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class GateOnly(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x.mean((2, 3)))[:, :, None, None]


class SequentialWithItsOwnForward(nn.Sequential, Attention):
    def __init__(self) -> None:
        layers = {"reduce": nn.Conv2d(CHANNELS, CHANNELS, 1), "sigmoid": nn.Sigmoid()}
        super().__init__(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), **layers))

    def forward(self, x: Tensor) -> Tensor:
        return x * super().forward(x)


class BufferInGate(Excitation):
    """torch.fx gives buffers a node without a proxy."""

    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.full((CHANNELS,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3)) + self.shift - self.shift)[:, :, None, None]


class ConstantInGate(Excitation):
    """torch.fx leaves the tensor that the forward makes on the module."""

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x.mean((2, 3)))
        return x * (gate * torch.tensor([0.5, 2.0]).repeat(CHANNELS // 2))[:, :, None, None]


class OwnPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class PoolOfOwnClass(Excitation):
    """Child and parent hold the pooled value; the parent is the attention."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = OwnPool()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x))[:, :, None, None]


class GateReturnedToParent(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.gate = GateOnly()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class OneAxisAfterTheOtherKeepdim(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean(3, keepdim=True).mean(2, keepdim=True).flatten(1))[:, :, None, None]


class MeanOfOneLongRow(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x * self.gate(x.view(b, c, 1, h * w).mean(-1).flatten(1))[:, :, None, None]


class HardCodedKernel(Excitation):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(MAP_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x).flatten(1))[:, :, None, None]


class HardCodedKernelOfFunction(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(F.avg_pool2d(x, MAP_SIZE).flatten(1))[:, :, None, None]


class HardCodedArea(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.sum((2, 3)) / AREA)[:, :, None, None]


class HardCodedView(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.view(-1, CHANNELS, AREA).mean(2))[:, :, None, None]


ANY_SIZE: list[type[Attention]] = [
    MeanBroadcast,
    MeanKeepdim,
    TorchMeanOfNegativeAxes,
    FlattenMean,
    FlattenMeanKeepdim,
    ViewMean,
    FunctionalAdaptivePool,
    PoolInSequential,
    PoolAndExpandAs,
    SumOverArea,
    SumOverAreaAndExpand,
    PoolOfTheMapsSize,
    OneAxisAfterTheOther,
    OneAxisAfterTheOtherKeepdim,
    MeanOfOneLongRow,
    MethodMul,
    FunctionMultiply,
    InPlaceMul,
    InPlaceOperator,
    InlineInBlock,
    TrainingBranch,
    OptionalMask,
    PooledAfterRelu,
    GroupsOfChannels,
    GroupsPooledTogether,
    IdentityInFront,
    SequentialWithItsOwnForward,
    BufferInGate,
    ConstantInGate,
    PoolOfOwnClass,
    GateReturnedToParent,
]
ONE_SIZE: list[type[Attention]] = [HardCodedKernel, HardCodedKernelOfFunction, HardCodedArea, HardCodedView]


class PlainCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(CHANNELS, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).mean((2, 3)))


class SpatialAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()


class FocalModulation(nn.Module):
    """The mean of a context is itself gated and joins a modulator of a query; it gates no map of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Conv2d(CHANNELS, 2 * CHANNELS + 2, 1)
        self.focal = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS)
        self.mix = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = torch.split(self.project(x), [CHANNELS, CHANNELS, 2], 1)
        context = F.gelu(self.focal(context))
        context_all = context * gates[:, :1]
        context_all = context_all + F.gelu(context.mean((2, 3), keepdim=True)) * gates[:, 1:]
        return query * self.mix(context_all)


class GlobalContext(nn.Module):
    """Pools with softmax weights that the map itself decides."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.Conv2d(CHANNELS, 1, 1)
        self.transform = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        weights = self.attend(x).flatten(2).softmax(-1)
        context = (x.flatten(2) @ weights.transpose(1, 2)).view(b, c, 1, 1)
        return x * self.transform(context).sigmoid()


class PooledAndConcatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, x.mean((2, 3), keepdim=True).expand_as(x)], 1))


class PooledAndAdded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.mean((2, 3), keepdim=True)


class LocallyPooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * F.avg_pool2d(x, 3, 1, 1).sigmoid()


class LocallyPooledAndEnlarged(nn.Module):
    """As GhostNetV2: on a map of 2 x 2 its pooling is the mean of all of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * F.interpolate(F.avg_pool2d(x, 2, 2, ceil_mode=True).sigmoid(), x.shape[-2:])


class MaxGate(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.amax((2, 3)))[:, :, None, None]


class InstanceNorm(nn.Module):
    """Written out: the map without its mean is multiplied by something of the mean of its square."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        return centred * (centred.square().mean((2, 3), keepdim=True) + 1e-5).rsqrt() * self.weight


class RootMeanSquareNorm(nn.Module):
    """As the filter response normalization of timm."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x * x).mean((2, 3), keepdim=True).add(1e-5).rsqrt()


NOT_ATTENTION = [
    PlainCnn,
    SpatialAttention,
    FocalModulation,
    GlobalContext,
    PooledAndConcatenated,
    PooledAndAdded,
    LocallyPooled,
    LocallyPooledAndEnlarged,
    MaxGate,
    InstanceNorm,
    RootMeanSquareNorm,
]


def feature_map(batch: int = 2, height: int = MAP_SIZE[0], width: int = MAP_SIZE[1]) -> Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return torch.randn(batch, CHANNELS, height, width, generator=generator)
