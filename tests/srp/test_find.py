"""Channel attention in the spellings of many authors, and what looks like it but isn't."""

import copy
import itertools
import random
from collections.abc import Callable

import pytest
import timm
import torch
from attention_zoo import (
    ANY_SIZE,
    CHANNELS,
    MAP_SIZE,
    NOT_ATTENTION,
    ONE_SIZE,
    Attention,
    ConstantInGate,
    Excitation,
    FlattenMean,
    FlattenMeanKeepdim,
    GateReturnedToParent,
    GroupsOfChannels,
    GroupsPooledTogether,
    HardCodedKernel,
    InlineInBlock,
    MeanBroadcast,
    MeanKeepdim,
    OneAxisAfterTheOther,
    OptionalMask,
    PooledAfterRelu,
    PoolInSequential,
    PoolOfTheMapsSize,
    SumOverArea,
    feature_map,
)
from each import each
from torch import Tensor, nn
from torch.nn import functional as F

from srp_exp.errors import UserError
from srp_exp.srp import Pooling, apply_srp, find_attention, read_regions, region_side, set_progress, srp_modules
from srp_exp.srp.region import Share

CROPS = [
    *((attention, "sample", 1) for attention in [*ANY_SIZE, *ONE_SIZE]),
    (GroupsOfChannels, "sample", 2),  # what is drawn doesn't depend on who pools it
    (HardCodedKernel, "batch", 2),
]
SMALL = [
    FlattenMean, GateReturnedToParent, GroupsPooledTogether, InlineInBlock, OneAxisAfterTheOther, PooledAfterRelu,
    PoolOfTheMapsSize, SumOverArea,
]  # fmt: skip


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


def gating(model: nn.Module, example: Tensor) -> list[Pooling]:
    """The poolings that `find_attention` finds without a choice of the user's."""
    return [pooling for pooling in find_attention(model, example).poolings if pooling.gates]


class TestZoo:
    @pytest.mark.parametrize("attention", SMALL)
    def test_is_found_once_in_every_stage_of_a_small_example(self, attention: type[Attention]) -> None:
        """Stages of 4x4, 2x2, 1x1: on the last, every value is its own mean."""
        net = nn.Sequential(attention(), nn.AvgPool2d(2), attention(), nn.AvgPool2d(2), attention())
        found = gating(net, feature_map(1, 4, 4))
        assert [pooling.module.split(".")[0] for pooling in found] == ["0", "2", "4"]
        assert [pooling.map_size for pooling in found] == [(4, 4), (2, 2), (1, 1)]

    def test_kernel_of_a_small_map(self) -> None:
        attention = HardCodedKernel()
        attention.pool = nn.AvgPool2d(4)
        assert [pooling.map_size for pooling in gating(attention, feature_map(2, 4, 4))] == [(4, 4)]

    @each(
        attention_and_shape=[
            (MeanBroadcast, (8,)),
            (MeanKeepdim, (8, 1, 1)),
            (FlattenMeanKeepdim, (8, 1)),
            (HardCodedKernel, (8, 1, 1)),
            (GroupsOfChannels, (2, 4)),
            (GroupsPooledTogether, (8, 1, 1)),
        ]
    )
    def test_shape_is_that_of_the_pooled_value(
        self, attention_and_shape: tuple[type[Attention], tuple[int, ...]]
    ) -> None:
        attention, shape = attention_and_shape
        (found,) = gating(nn.Sequential(attention()), feature_map())
        assert found.place.shape == shape

    @pytest.mark.parametrize(("attention", "share", "regions"), CROPS)
    def test_law(self, attention: type[Attention], share: Share, regions: int) -> None:
        """In training, SRP gives what the plain module makes of the map and its regions' mean as the descriptor.

        At scale 1, that of the whole map, it gives the plain output; in evaluation too, bit for bit.
        """
        torch.manual_seed(0)
        plain = attention().train().requires_grad_(False)
        for parameter in plain.parameters():
            parameter.mul_(3)  # gates that tell the regions apart
        with_srp = nn.Sequential(copy.deepcopy(plain))
        (record,) = apply_srp(with_srp, 0.5, share=share, regions=regions, example_input=feature_map())
        assert record.name == ("0.gate" if attention is GateReturnedToParent else "0")
        assert record.map_size == MAP_SIZE
        map_size = MAP_SIZE if attention in ONE_SIZE else (7, 6)  # of a different size than the example
        x = feature_map(4, *map_size)
        output = with_srp(x.clone())
        region = (region_side(0.5, map_size[0]), region_side(0.5, map_size[1]))
        (drawn,) = read_regions(with_srp).values()
        top, left, _, _ = drawn.expand(4, regions, 4).unbind(-1)
        descriptor = means_of_regions(plain.pooled_map(x), top, left, region)
        torch.testing.assert_close(output, with_descriptor(plain, descriptor)(x.clone()))
        expected = plain(x.clone())
        for image, plain_image in zip(output, expected, strict=True):
            assert not torch.allclose(image, plain_image, rtol=1e-4, atol=1e-5)
        set_progress(with_srp, 0)
        assert torch.equal(with_srp(x.clone()), expected)
        set_progress(with_srp, 1)
        assert torch.equal(with_srp.eval()(x.clone()), plain.eval()(x.clone()))


class TestNotAttention:
    @each(side=(1, 2, 6))
    @pytest.mark.parametrize("module", NOT_ATTENTION)
    def test_is_not_found(self, module: Callable[[], nn.Module], side: int) -> None:
        torch.manual_seed(0)
        assert gating(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), module()), feature_map(2, side, side)) == []

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

        assert gating(TwoBranches(), feature_map()) == []

    def test_classifier_pooling_next_to_attention(self) -> None:
        net = nn.Sequential(MeanBroadcast(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 3), PlainHead())
        assert [pooling.module for pooling in gating(net, feature_map())] == ["0"]


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
        found = gating(DefinedInReverse(), feature_map(1, 8, 8))
        assert [(p.module, p.map_size) for p in found] == [
            ("first", (8, 8)),
            ("middle.1", (4, 4)),
            ("middle.0", (4, 4)),
            ("last", (2, 2)),
        ]

    def test_module_that_runs_twice_is_found_once(self) -> None:
        attention = MeanBroadcast()
        found = gating(nn.Sequential(attention, nn.ReLU(), attention), feature_map())
        assert [pooling.module for pooling in found] == ["0"]

    def test_model_that_is_itself_attention(self) -> None:
        model = MeanBroadcast()
        assert [pooling.module for pooling in gating(model, feature_map())] == [""]
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

        (found,) = gating(nn.Sequential(ZeroGammaBlock()), torch.zeros(2, CHANNELS, 6, 5))
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
        assert len(gating(nn.Sequential(Dropping()), feature_map())) == 1


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
        assert gating(model, feature_map(2, 32, 32))
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
        gating(model, feature_map())
        assert [module.training for module in model.modules()] == flags

    def test_training_flags_after_an_error(self) -> None:
        model = nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), nn.Linear(99, 1)).train()
        with pytest.raises(UserError, match="can't be run on images"):
            gating(model, feature_map())
        assert all(module.training for module in model.modules())

    def test_random_states_and_example(self) -> None:
        model = nn.Sequential(Dropping(), DefinedInReverse())  # tracing in training mode draws
        example = feature_map()
        before, torch_state, python_state = example.clone(), torch.get_rng_state(), random.getstate()
        gating(model, example)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert random.getstate() == python_state
        assert torch.equal(example, before)

    def test_repeating_finds_the_same(self) -> None:
        model = DefinedInReverse()
        first, second = (gating(model, feature_map()) for _ in range(2))
        assert [(p.module, p.place, p.map_size) for p in first] == [(p.module, p.place, p.map_size) for p in second]
        assert not srp_modules(model)
