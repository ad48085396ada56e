"""Activation checkpointing: a block that is computed again pools over the regions that it pooled over at first."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from each import each
from timm.layers import SEModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from srp_exp.srp import apply_srp, fix_regions, read_regions, set_progress
from srp_exp.srp.region import RegionPlacement, Share

Wrap = Callable[..., Any]
plain: Wrap = lambda block, x: block(x)  # noqa: E731
WRAPS = [functools.partial(checkpoint, use_reentrant=False), functools.partial(checkpoint, use_reentrant=True)]
wraps = pytest.mark.parametrize("wrap", WRAPS, ids=["non-reentrant", "reentrant"])


class Block(nn.Module):
    """Dropout in front of the attention and behind it, so that the block draws numbers of its own too."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.before, self.after = nn.Dropout(dropout), nn.Dropout2d(dropout)
        self.attention = SEModule(6, rd_channels=3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.after(self.attention(self.before(self.conv(x).relu())))


class Net(nn.Module):
    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(dropout) for _ in range(3))
        self.fc = nn.Linear(6, 4)
        self.wraps: list[Wrap] = [plain] * 3

    def forward(self, x: Tensor) -> Tensor:
        for block, wrap in zip(self.blocks, self.wraps, strict=True):
            x = wrap(block, x)
        return self.fc(x.mean((2, 3)))


def net_of(
    wraps: list[Wrap],
    share: Share = "sample",
    regions: int = 1,
    placement: RegionPlacement = "corner",
    dropout: float = 0.3,
) -> Net:
    net = copy.deepcopy(with_srp(share, regions, placement, dropout))
    net.wraps = wraps
    return net


@functools.cache
def with_srp(share: Share, regions: int, placement: RegionPlacement, dropout: float) -> Net:
    torch.manual_seed(0)
    net = Net(dropout).train()
    for parameter in net.parameters():
        parameter.data.mul_(2)
    apply_srp(net, 0.4, share=share, regions=regions, placement=placement, example_input=images(0))
    return net


def images(seed: int, batch: int = 4) -> Tensor:
    return torch.randn(batch, 6, 9, 8, generator=torch.Generator().manual_seed(seed), requires_grad=True)


def gradients(net: Net, *inputs: Tensor) -> list[Tensor]:
    """Outputs and gradients of forward passes that all come before the backward passes, and what is drawn next."""
    torch.manual_seed(1)
    outputs = [net(x) for x in inputs]
    for index, output in enumerate(outputs):
        (output.square().sum() * (index + 1)).backward()
    grads = [p.grad for p in net.parameters()] + [x.grad for x in inputs]
    for thing in (*net.parameters(), *inputs):
        thing.grad = None
    assert all(grad is not None for grad in grads)
    return [*(output.detach() for output in outputs), *(g for g in grads if g is not None), torch.rand(3)]


def assert_same(one: list[Tensor], other: list[Tensor]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("share", "passes", "pattern"),
    [
        ("sample", 1, (True, True, True)),
        ("batch", 2, (True, False, True)),
        ("sample", 3, (False, True, False)),
        ("batch", 3, (True, True, True)),
    ],
    ids=str,
)
@wraps
def test_gradients_are_those_without(wrap: Wrap, share: Share, passes: int, pattern: tuple[bool, ...]) -> None:
    inputs = [images(seed) for seed in range(passes)]
    expected = gradients(net_of([plain] * 3, share), *inputs)
    net = net_of([wrap if checkpointed else plain for checkpointed in pattern], share)
    for _ in range(2):
        assert_same(gradients(net, *inputs), expected)


@pytest.mark.parametrize(("placement", "regions"), [("corner", 2), ("wrap", 1)])
@wraps
def test_with_other_settings(wrap: Wrap, placement: RegionPlacement, regions: int) -> None:
    settings: dict[str, Any] = {"placement": placement, "regions": regions, "dropout": 0.0}
    expected = gradients(net_of([plain] * 3, **settings), images(0))
    assert_same(gradients(net_of([wrap] * 3, **settings), images(0)), expected)


def test_the_check_can_fail() -> None:
    """Other regions give other gradients than the tolerance forgives."""
    torch.manual_seed(1)
    expected = gradients(net_of([plain] * 3, dropout=0.0), images(0))
    net = net_of([WRAPS[0]] * 3, dropout=0.0)
    net(images(0))
    fix_regions(net, read_regions(net))
    net(images(0))
    other = gradients(net, images(0))
    assert max(float((a - b).abs().amax()) for a, b in zip(expected, other, strict=True)) > 1e-3


@wraps
def test_the_whole_network(wrap: Wrap) -> None:
    expected = gradients(net_of([plain] * 3), images(0), images(1))
    net = net_of([plain] * 3)
    whole: Any = copy.deepcopy(net)
    outer = nn.Module()
    outer.forward = lambda x: wrap(whole, x)  # type: ignore[method-assign]
    outer.parameters = whole.parameters  # type: ignore[method-assign]
    assert_same(gradients(outer, images(0), images(1)), expected)  # type: ignore[arg-type]


@wraps
def test_the_regions_of_a_step_can_be_read_after_it(wrap: Wrap) -> None:
    net = net_of([plain] * 3)
    output = wrap(net, images(0))
    before = read_regions(net)
    output.sum().backward()
    after = read_regions(net)
    assert len(before) == 3
    assert all(torch.equal(after[name], regions) for name, regions in before.items())


@wraps
def test_one_in_the_other(wrap: Wrap) -> None:
    expected = gradients(net_of([plain] * 3), images(0), images(1))
    net = net_of([lambda block, x: wrap(lambda y: wrap(block, y), x)] * 3)
    assert_same(gradients(net, images(0), images(1)), expected)


@wraps
def test_a_batch_of_another_size_between(wrap: Wrap) -> None:
    inputs = [images(0), images(1, 2), images(2)]
    expected = gradients(net_of([plain] * 3), *inputs)
    assert_same(gradients(net_of([wrap] * 3), *inputs), expected)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # of torch, under no_grad
@wraps
def test_evaluation_and_no_grad_between_forward_and_backward(wrap: Wrap) -> None:
    results = []
    for how in (plain, wrap):
        net, x = net_of([how] * 3), images(0)
        torch.manual_seed(1)
        output = net(x)
        with torch.no_grad():
            net(images(1))
            net.eval()(images(1))
        net.train()
        output.square().sum().backward()
        results.append([p.grad for p in net.parameters()])
    assert_same(*results)  # type: ignore[arg-type]


@wraps
def test_the_same_seed_for_two_passes_of_different_batches(wrap: Wrap) -> None:
    results = []
    for how in (plain, wrap):
        net = net_of([how] * 3)
        outputs = []
        for batch in (4, 2):
            torch.manual_seed(5)
            outputs.append(net(images(0, batch)))
        for output in outputs:
            output.square().sum().backward()
        results.append([p.grad for p in net.parameters()])
    assert_same(*results)  # type: ignore[arg-type]


def halfway(net: Net) -> None:
    set_progress(net, 0.5)


def fixed(net: Net) -> None:
    fix_regions(net, read_regions(net))


@each(change=[halfway, fixed])
@wraps
def test_what_changed_between_forward_and_backward_is_refused(wrap: Wrap, change: Callable[[Net], None]) -> None:
    """As where the ramp is moved at the end of a step, and a second loss of the step is still to come."""
    net = net_of([wrap] * 3)
    output = net(images(0))
    change(net)
    with pytest.raises(RuntimeError, match=r"^SEModule [^\n]*call backward before set_progress or fix_regions$"):
        output.sum().backward()
    net(images(0)).sum().backward()
