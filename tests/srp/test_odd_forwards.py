"""Forwards that look harmless and mislead: answered rightly, left out, or refused in one line."""

import functools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from srp_exp.srp import SrpRecords, apply_srp, find_attention, read_regions

CHANNELS = 8


def images(side: int = 16) -> Tensor:
    return torch.randn(4, CHANNELS, side, side, generator=torch.Generator().manual_seed(0))


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def gated(self, x: Tensor, descriptor: Tensor) -> Tensor:
        self.map, self.descriptor = x.detach(), descriptor.detach()
        return x * self.fc(descriptor).sigmoid()[:, :, None, None]

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        return x if skip else self.gated(x, x.mean((2, 3)))


def with_srp(*modules: nn.Module, scale: Any = 0.5) -> tuple[nn.Sequential, SrpRecords]:
    torch.manual_seed(0)
    random.seed(0)
    net = nn.Sequential(Gate(), *modules).train()
    return net, apply_srp(net, scale, example_input=images())


class InAnyOrder(Gate):
    """The means of two maps, taken by one line in any order; the second is a statistic."""

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        maps, means = [x, x.flip(1).square()], {}
        for i in random.sample(range(2), 2):
            means[i] = maps[i].mean((2, 3))
        self.statistic, self.expected = means[1], maps[1].mean((2, 3))
        return self.gated(x, means[0])


class DropsTokens(Gate):
    """What is pooled is dropped out first."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        return self.gated(x, self.drop(x.flatten(2)).mean(-1))


@pytest.mark.parametrize("kind", [InAnyOrder, DropsTokens])
def test_left_out_with_the_reason(kind: type[Gate]) -> None:
    net, records = with_srp(kind())
    assert [record.name for record in records] == ["0"]
    assert [one.name for one in records.left_out] == ["1"]
    for _ in range(5):
        net(images())
        if kind is InAnyOrder:
            assert torch.equal(net[1].statistic, net[1].expected)


class Nested(Gate):
    """A block in a block of its class, as in a U-Net; the inner map is pooled whole."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.shrinks = inner, nn.AvgPool2d(8)

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        return self.gated(x, x.mean((2, 3))) + self.inner(self.shrinks(x)).mean()


class InnerFirst(Nested):
    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        inner = self.inner(self.shrinks(x)).mean()
        return self.gated(x, x.mean((2, 3))) + inner


@pytest.mark.parametrize("kind", [Nested, InnerFirst])
def test_a_block_in_a_block_of_its_class_pools_its_own_map(kind: Callable[[nn.Module], Nested]) -> None:
    inner = kind(nn.Identity())
    inner.shrinks = nn.Identity()
    net, records = with_srp(kind(inner), scale=0.75)
    assert sorted(record.name for record in records) == ["0", "1", "1.inner"]
    net(images())
    block = net[1]
    corners = read_regions(net)["1"][:, 0].tolist()
    crops = [x[:, t : t + h, c : c + w].mean((1, 2)) for x, (t, c, h, w) in zip(block.map, corners, strict=True)]
    torch.testing.assert_close(block.descriptor, torch.stack(crops))


class BesideItsAverage(Gate):
    """What averages neighbours has the mean of the map too, and is used later."""

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        small = nn.functional.avg_pool2d(x, 2)
        other = small.relu().mean()
        return self.gated(x, x.flatten(2).mean(-1)) + other


def test_the_map_is_the_one_that_the_mean_comes_from() -> None:
    records = with_srp(BesideItsAverage())[1]
    assert [(record.name, record.map_size) for record in records] == [("0", (16, 16)), ("1", (16, 16))]


class WritesInBetween(Gate):
    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        x = x + 0
        total = x.sum((2, 3))
        x.relu_()
        return self.gated(x, total / (x.shape[2] * x.shape[3]))


def test_a_map_that_is_written_to_before_its_mean_is_taken_is_an_error() -> None:
    net, records = with_srp(WritesInBetween())
    if "1" in [record.name for record in records]:
        with pytest.raises(RuntimeError, match="^WritesInBetween: its map is written to in place"):
            net(images())


class TwoBranches(Gate):
    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        total = x.sum((2, 3)) if random.random() < 0.5 else torch.einsum("bchw->bc", x)
        return self.gated(x, total / (x.shape[2] * x.shape[3]))


class SkipsItsChild(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x, skip=random.random() < 0.5)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [TwoBranches, SkipsItsChild])
def test_branches_that_are_taken_at_random_train(kind: type[nn.Module]) -> None:
    net, records = with_srp(kind())
    assert len(records) == 2
    for _ in range(20):
        net(images()).sum().backward()


def test_a_backward_hook_is_no_hindrance() -> None:
    gate = Gate()
    gate.register_full_backward_hook(lambda *_: None)
    assert len(with_srp(gate)[1]) == 2


@functools.lru_cache
def coordinates(side: int) -> Tensor:
    return torch.linspace(-1, 1, side)


class Remembers(Gate):
    cache: dict[int, Tensor] = {}

    def forward(self, x: Tensor, skip: bool = False) -> Tensor:
        side = x.shape[-1]
        self.cache.setdefault(side, torch.linspace(-1, 1, side))
        return super().forward(x + coordinates(side) + self.cache[side])


def test_what_classes_and_functions_remember_is_not_of_the_search() -> None:
    find_attention(Remembers(), images())
    assert Remembers.cache == {}
    assert coordinates(16).dtype == torch.float32


def test_a_hook_that_refers_to_the_model_meets_a_copy() -> None:
    net = nn.Sequential(Gate())
    net.calls = 0

    def count(module: nn.Module, inputs: Any, output: Any, model: Any = net) -> None:
        model.calls += 1

    def outer() -> Callable[..., None]:
        return lambda *_: count(*_)

    net[0].register_forward_hook(count)
    net[0].register_forward_hook(outer())
    find_attention(net, images())
    assert net.calls == 0
