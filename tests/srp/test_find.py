"""Channel attention in the spellings of many authors, and what looks like it but isn't."""

import copy
import itertools
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from srp_exp.srp import StochasticRegionPool2d, apply_srp, find_attention, region_side, srp_modules
from srp_exp.srp.region import SHARES, Share

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
any_size = pytest.mark.parametrize("attention", ANY_SIZE)
zoo = pytest.mark.parametrize("attention", [*ANY_SIZE, *ONE_SIZE])


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


def with_descriptor(attention: Attention, descriptor: Tensor) -> Attention:
    """A copy of `attention` whose excitation is given `descriptor` (B, C) instead of what it pools."""
    replaced = copy.deepcopy(attention)
    (reduce,) = (module for name, module in replaced.named_modules() if name.split(".")[-1] == "reduce")
    reduce.register_forward_pre_hook(lambda _, inputs: descriptor.view_as(inputs[0]))
    return replaced


def means_of_regions(map_: Tensor, top: Tensor, left: Tensor, region: tuple[int, int]) -> Tensor:
    """Mean (B, C) of each image over its k regions of equal size, cropped one by one; top and left are (B, k)."""
    means = []
    for image, rows, columns in zip(map_, top.tolist(), left.tolist(), strict=True):
        crops = [image[:, i : i + region[0], j : j + region[1]] for i, j in zip(rows, columns, strict=True)]
        means.append(torch.stack([crop.mean((1, 2)) for crop in crops]).mean(0))
    return torch.stack(means)


class Averages(TorchDispatchMode):
    """Counts the means and sums of floats that are run under it."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket in (torch.ops.aten.mean, torch.ops.aten.sum) and args[0].is_floating_point()
        return func(*args, **(kwargs or {}))


class TestZoo:
    @zoo
    def test_is_found_once(self, attention: type[Attention]) -> None:
        net = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), attention(), nn.Conv2d(CHANNELS, CHANNELS, 1))
        (found,) = find_attention(net, feature_map())
        assert found.module == ("1.gate" if attention is GateReturnedToParent else "1")
        assert found.map_size == MAP_SIZE

    @any_size
    def test_is_found_once_in_every_stage_of_a_small_example(self, attention: type[Attention]) -> None:
        """Stages of 4x4, 2x2, 1x1: on the last, every value is its own mean."""
        net = nn.Sequential(attention(), nn.AvgPool2d(2), attention(), nn.AvgPool2d(2), attention())
        found = find_attention(net, feature_map(1, 4, 4))
        assert [pooling.module.split(".")[0] for pooling in found] == ["0", "2", "4"]
        assert [pooling.map_size for pooling in found] == [(4, 4), (2, 2), (1, 1)]

    def test_kernel_of_a_small_map(self) -> None:
        attention = HardCodedKernel()
        attention.pool = nn.AvgPool2d(4)
        assert [pooling.map_size for pooling in find_attention(attention, feature_map(2, 4, 4))] == [(4, 4)]

    @pytest.mark.parametrize(
        ("attention", "shape"),
        [
            (MeanBroadcast, (8,)),
            (MeanKeepdim, (8, 1, 1)),
            (FlattenMeanKeepdim, (8, 1)),
            (HardCodedKernel, (8, 1, 1)),
            (GroupsOfChannels, (2, 4)),
            (GroupsPooledTogether, (8, 1, 1)),
        ],
    )
    def test_shape_is_that_of_the_pooled_value(self, attention: type[Attention], shape: tuple[int, ...]) -> None:
        (found,) = find_attention(nn.Sequential(attention()), feature_map())
        assert found.shape == shape

    @pytest.mark.parametrize("regions", [1, 2])
    @pytest.mark.parametrize("share", SHARES)
    @zoo
    def test_crop_law(self, attention: type[Attention], share: Share, regions: int) -> None:
        """In training, SRP gives what the plain module makes of the map and its regions' mean as the descriptor."""
        torch.manual_seed(0)
        plain = attention().train().requires_grad_(False)
        for parameter in plain.parameters():
            parameter.mul_(3)  # gates that tell the regions apart
        with_srp = nn.Sequential(copy.deepcopy(plain))
        apply_srp(with_srp, 0.5, share=share, regions=regions, example_input=feature_map())
        (pool,) = srp_modules(with_srp).values()
        map_size = MAP_SIZE if attention in ONE_SIZE else (7, 6)  # another than that of the example
        x = feature_map(4, *map_size)
        torch.manual_seed(1)
        output = with_srp(x.clone())
        torch.manual_seed(1)
        region = (region_side(0.5, map_size[0]), region_side(0.5, map_size[1]))
        top, left = (corner.expand(4, regions) for corner in pool.draw(4, map_size, region, x.device))
        descriptor = means_of_regions(plain.pooled_map(x), top, left, region)
        torch.testing.assert_close(output, with_descriptor(plain, descriptor)(x.clone()))
        for image, plain_image in zip(output, plain(x.clone()), strict=True):
            assert not torch.allclose(image, plain_image, rtol=1e-4, atol=1e-5)

    @zoo
    def test_whole_map_gives_the_plain_output(self, attention: type[Attention]) -> None:
        """Up to rounding: a sum over an area isn't rounded as a mean is."""
        torch.manual_seed(0)
        plain = attention().train()
        with_srp = nn.Sequential(copy.deepcopy(plain))
        apply_srp(with_srp, 1.0, example_input=feature_map())
        torch.testing.assert_close(with_srp(feature_map()), plain(feature_map()))

    @zoo
    def test_evaluation_stays_bit_identical(self, attention: type[Attention]) -> None:
        plain = nn.Sequential(attention()).eval()
        with_srp = copy.deepcopy(plain)
        apply_srp(with_srp, 0.5, example_input=feature_map())
        assert torch.equal(with_srp(feature_map()), plain(feature_map()))

    @pytest.mark.parametrize("attention", [SumOverArea, OneAxisAfterTheOther, HardCodedArea])
    def test_map_is_averaged_only_once(self, attention: type[Attention]) -> None:
        net = nn.Sequential(attention())
        apply_srp(net, 0.5, example_input=feature_map())
        with Averages() as averages:
            net(feature_map())
        assert averages.count == 1


class TestNotAttention:
    @pytest.mark.parametrize("module", NOT_ATTENTION)
    @pytest.mark.parametrize("side", [1, 2, 6])
    def test_is_not_found(self, module: Callable[[], nn.Module], side: int) -> None:
        torch.manual_seed(0)
        assert (
            find_attention(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), module()), feature_map(2, side, side)) == []
        )

    def test_map_gated_by_the_mean_of_a_foreign_one(self) -> None:
        class Foreign(Excitation):
            def forward(self, x: Tensor, other: Tensor) -> Tensor:
                return x * self.gate(other.mean((2, 3)))[:, :, None, None]

        class TwoBranches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.foreign = Foreign()

            def forward(self, x: Tensor) -> Tensor:
                return self.foreign(x, x.flip(1))

        assert find_attention(TwoBranches(), feature_map()) == []

    def test_classifier_pooling_next_to_attention(self) -> None:
        net = nn.Sequential(MeanBroadcast(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 3), PlainHead())
        assert [pooling.module for pooling in find_attention(net, feature_map())] == ["0"]


class PlainHead(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)


class Dropping(Excitation):
    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(F.dropout(x.mean((2, 3)), 0.5, self.training))
        return x * gate[:, :, None, None]


class DefinedInReverse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = FlattenMean()
        self.middle = nn.ModuleList([MeanKeepdim(), MeanBroadcast()])
        self.first = PoolInSequential()

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.first(x), 2)
        for attention in reversed(self.middle):
            x = attention(x)
        return self.last(F.avg_pool2d(x, 2))


class FunctionalNorm(nn.Module):
    """Batch normalization written by hand, as in timm: tracing it in training mode would count a batch."""

    running_mean: Tensor
    running_var: Tensor
    batches: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(CHANNELS))
        self.register_buffer("running_var", torch.ones(CHANNELS))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.batches.add_(1)
        return F.batch_norm(x, self.running_mean, self.running_var, training=self.training)


class TestSearch:
    def test_order_is_that_of_running(self) -> None:
        found = find_attention(DefinedInReverse(), feature_map(1, 8, 8))
        assert [(p.module, p.map_size) for p in found] == [
            ("first", (8, 8)),
            ("middle.1", (4, 4)),
            ("middle.0", (4, 4)),
            ("last", (2, 2)),
        ]

    def test_module_that_runs_twice_is_found_once(self) -> None:
        attention = MeanBroadcast()
        found = find_attention(nn.Sequential(attention, nn.ReLU(), attention), feature_map())
        assert [pooling.module for pooling in found] == ["0"]

    def test_model_that_is_itself_attention(self) -> None:
        model = MeanBroadcast()
        assert [pooling.module for pooling in find_attention(model, feature_map())] == [""]
        (record,) = apply_srp(model, 0.5, example_input=feature_map())
        assert list(srp_modules(model)) == [record.name] == [""]

    def test_zeros_as_example_and_zero_gamma_hide_nothing(self) -> None:
        class ZeroGammaBlock(Excitation):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.BatchNorm2d(CHANNELS)
                nn.init.zeros_(self.norm.weight)

            def forward(self, x: Tensor) -> Tensor:
                y = self.norm(x)
                return x + y * self.gate(y.mean((2, 3)))[:, :, None, None]

        (found,) = find_attention(nn.Sequential(ZeroGammaBlock()), torch.zeros(2, CHANNELS, 6, 5))
        assert (found.module, found.map_size) == ("0", (6, 5))

    @pytest.mark.parametrize("mask", [None, torch.ones(1)], ids=["none", "tensor"])
    def test_attention_called_by_keywords(self, mask: Tensor | None) -> None:
        class CallsByKeyword(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = OptionalMask()

            def forward(self, x: Tensor) -> Tensor:
                return self.attention(x=x, mask=mask)

        net = CallsByKeyword().train()
        (record,) = apply_srp(net, 1.0, example_input=feature_map())
        assert record.name == "attention"
        trained = net(feature_map())
        assert torch.equal(trained, net.eval()(feature_map()))

    def test_dropout_in_the_gate_is_no_hindrance(self) -> None:
        assert len(find_attention(nn.Sequential(Dropping()), feature_map())) == 1


class TestNothingChanges:
    """find_attention leaves no trace on the model or the random state."""

    @pytest.mark.parametrize(
        "build",
        [
            lambda: nn.Sequential(nn.BatchNorm2d(CHANNELS), MeanBroadcast(), ConstantInGate(), FunctionalNorm()),
            lambda: timm.create_model("mobilenetv3_small_050", in_chans=CHANNELS),
            lambda: timm.create_model("skresnet18", in_chans=CHANNELS),
        ],
        ids=["hand-written", "mobilenetv3_small_050", "skresnet18"],
    )
    def test_parameters_and_statistics(self, build: Callable[[], nn.Module]) -> None:
        model = build().train()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        attributes = {name: set(vars(module)) for name, module in model.named_modules()}
        assert find_attention(model, feature_map(2, 32, 32))
        after = model.state_dict()
        assert [name for name, tensor in before.items() if not torch.equal(tensor, after[name])] == []
        assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert all(p.grad is None for p in model.parameters())

    def test_training_flags(self) -> None:
        model = DefinedInReverse()
        for module, training in zip(model.modules(), itertools.cycle([True, False, False])):
            module.training = training
        flags = [module.training for module in model.modules()]
        find_attention(model, feature_map())
        assert [module.training for module in model.modules()] == flags

    def test_training_flags_after_an_error(self) -> None:
        model = nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), nn.Linear(99, 1)).train()
        with pytest.raises(RuntimeError):
            find_attention(model, feature_map())
        assert all(module.training for module in model.modules())

    def test_random_states_and_example(self) -> None:
        model = nn.Sequential(Dropping(), DefinedInReverse())  # tracing in training mode draws
        example = feature_map()
        before, torch_state, python_state = example.clone(), torch.get_rng_state(), random.getstate()
        find_attention(model, example)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert random.getstate() == python_state
        assert torch.equal(example, before)

    def test_repeating_finds_the_same(self) -> None:
        model = DefinedInReverse()
        first, second = (find_attention(model, feature_map()) for _ in range(2))
        assert [(p.module, p.shape, p.map_size) for p in first] == [(p.module, p.shape, p.map_size) for p in second]
        assert not any(isinstance(module, StochasticRegionPool2d) for module in model.modules())
