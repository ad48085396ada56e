"""Choosing attention modules by class and name; attention that doesn't multiply, taken at the user's word."""

import functools
from collections.abc import Callable

import pytest
import torch
from each import each
from timm.layers import EcaModule, SEModule
from timm.layers.cbam import CbamModule
from torch import Tensor, nn

from srp_exp.errors import UserError
from srp_exp.srp import Findings, Linear, Where, apply_srp, find_attention, read_regions, srp_modules
from srp_exp.srp.choose import choose

CHANNELS = 8


class Stage(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.conv(x))


class Net(nn.Module):
    """Two stages with SE, one with ECA, one with CBAM, and a classifier with a pooling of its own class."""

    def __init__(self, *more: nn.Module) -> None:
        super().__init__()
        attentions = [SEModule(CHANNELS), EcaModule(CHANNELS), SEModule(CHANNELS), CbamModule(CHANNELS), *more]
        self.stages = nn.Sequential(*(Stage(attention) for attention in attentions))
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(x))


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Shift(nn.Module):
    """A pooled value that is added."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Linear(CHANNELS, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(x.mean((2, 3)))[:, :, None, None]


class EinsumGate(Shift):
    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,bc->bchw", x, self.reduce(x.mean((2, 3))).sigmoid())


class Descriptor(Shift):
    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(x.mean((2, 3)))[:, :, None, None]


class ShiftByParent(nn.Module):
    """The child pools, the parent adds."""

    def __init__(self) -> None:
        super().__init__()
        self.descriptor = Descriptor()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.descriptor(x)


def images() -> Tensor:
    return torch.randn(2, CHANNELS, 6, 5, generator=torch.Generator().manual_seed(0))


def chosen(net: nn.Module, where: Where | None) -> list[str]:
    return [pooling.module for pooling in choose(net, find_attention(net, images()).poolings, where)]


@functools.cache
def net_with_shift() -> tuple[Net, Findings]:
    """It and what is found in it: one search for all choices."""
    net = Net(Shift())
    return net, find_attention(net, images())


FIRST, SECOND, THIRD, FOURTH = (f"stages.{i}.attention" for i in range(4))
FOURTH = f"{FOURTH}.channel"


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, [FIRST, SECOND, THIRD, FOURTH]),
        (SEModule, [FIRST, THIRD]),
        (CbamModule, [FOURTH]),
        ((EcaModule, SEModule), [FIRST, SECOND, THIRD]),
        (Stage, [FIRST, SECOND, THIRD, FOURTH]),
        (Net, [FIRST, SECOND, THIRD, FOURTH]),
        ("*", [FIRST, SECOND, THIRD, FOURTH]),
        ("stages.1.attention", [SECOND]),
        ("stages.1", [SECOND]),
        ("stages.[12]", [SECOND, THIRD]),
        ("*.attention", [FIRST, SECOND, THIRD, FOURTH]),
        (["stages.3", EcaModule], [SECOND, FOURTH]),
        (["stages.0", SEModule], [FIRST, THIRD]),
    ],
)
def test_found_modules_that_match_are_kept_in_running_order(where: Where, expected: list[str]) -> None:
    net, findings = net_with_shift()
    assert [pooling.module for pooling in choose(net, findings.poolings, where)] == expected


def test_only_the_chosen_modules_get_srp_and_depth() -> None:
    net = Net()
    records = apply_srp(net, Linear(1.0, 0.5), where=SEModule, example_input=images())
    assert list(srp_modules(net)) == [FIRST, THIRD] == [record.name for record in records]
    assert [record.scale for record in records] == [1.0, 0.5]
    assert [record.depth.count for record in records] == [2, 2]


@pytest.mark.parametrize(("attention", "by_name"), [(Shift, True), (EinsumGate, False)])
def test_module_that_does_not_multiply_is_taken_where_it_is_named(
    attention: Callable[[], nn.Module], by_name: bool
) -> None:
    net = Net(attention()).train()
    where = "stages.4.attention" if by_name else type(net.stages[4].attention)
    (record,) = apply_srp(net, 0.5, where=where, example_input=images())
    assert record.name == "stages.4.attention"
    module, x = net.stages[4].attention, images()
    descriptors: list[Tensor] = []
    module.reduce.register_forward_pre_hook(lambda _, inputs: descriptors.append(inputs[0]))
    module(x)
    drawn = read_regions(net)["stages.4.attention"]
    assert drawn[:, 0, 2:].tolist() == [[3, 3], [3, 3]]
    means = [
        x[b, :, top : top + 3, left : left + 3].mean((1, 2)) for b, [[top, left, _, _]] in enumerate(drawn.tolist())
    ]
    torch.testing.assert_close(descriptors[0], torch.stack(means))
    module.eval()(x)
    torch.testing.assert_close(descriptors[1], x.mean((2, 3)))


@each(where=[ShiftByParent, Descriptor, "stages.4"])
def test_value_that_the_parent_adds(where: Where) -> None:
    assert chosen(Net(ShiftByParent()), where) == ["stages.4.attention.descriptor"]


def test_both_kinds_can_be_named_together() -> None:
    net, findings = net_with_shift()
    named = choose(net, findings.poolings, (Shift, "stages.0"))
    assert [pooling.module for pooling in named] == [FIRST, "stages.4.attention"]


@each(where=[Head, "head", "head*", nn.Linear])
def test_the_classifiers_pooling_is_never_chosen(where: Where) -> None:
    net, findings = net_with_shift()
    with pytest.raises(UserError, match="chooses no attention module of Net"):
        choose(net, findings.poolings, where)


@each(where=["*", Head, nn.Module])
def test_nor_without_any_attention(where: Where) -> None:
    with pytest.raises(ValueError, match="chooses no attention module of Sequential: it has none to choose"):
        chosen(nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), Head()), where)


@pytest.mark.parametrize(("where", "name"), [("stage.1", "stage.1"), (nn.GELU, "GELU"), ((SEModule, "x"), "x")])
def test_error_names_what_can_be_chosen(where: Where, name: str) -> None:
    net = Net(Shift())
    with pytest.raises(ValueError) as error:
        apply_srp(net, 0.5, where=where, example_input=images())
    assert str(error.value) == (
        f"where={name!r} chooses no attention module of Net: it can choose 2 SEModule such as 'stages.0.attention', "
        "1 EcaModule such as 'stages.1.attention', 1 ChannelAttn such as 'stages.3.attention.channel', "
        "1 Shift such as 'stages.4.attention'"
    )
    assert srp_modules(net) == {}
