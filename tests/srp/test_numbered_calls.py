"""The call that training answers is the one that was found, whatever else the forward and its children call."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import DropBlock2d

from srp_exp.srp import apply_srp, read_regions

CHANNELS = 8


def images() -> Tensor:
    return torch.randn(4, CHANNELS, 12, 10, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Keeps the map and the descriptor of its last call; subclasses say what comes before."""

    map: Tensor
    descriptor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(CHANNELS, CHANNELS)

    def gated(self, x: Tensor, descriptor: Tensor) -> Tensor:
        self.map, self.descriptor = x.detach(), descriptor.detach()
        return x * self.fc(descriptor).sigmoid()[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(x, x.mean((2, 3)))


class BatchNorm(nn.Module):
    """By hand: its means are those of training only."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x - self.mean
        mean = x.mean((0, 2, 3), keepdim=True)
        self.mean = 0.9 * self.mean + 0.1 * mean.detach()
        return (x - mean) * ((x - mean).square().mean((0, 2, 3), keepdim=True) + 1e-5).rsqrt()


class BehindDropBlock(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.drop = DropBlock2d(0.1, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(x)
        return x + self.gated(y, y.sum((2, 3)) / (y.shape[2] * y.shape[3]))


class BehindBatchNorm(Attention):
    dropout = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.norm = BatchNorm()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + F.dropout(self.gated(y, y.mean((2, 3))), self.dropout, self.training)


class BehindBatchNormAndDropout(BehindBatchNorm):
    dropout = 0.1


class BehindFrozenBatchNorm(BehindBatchNorm):
    def train(self, mode: bool = True) -> "BehindFrozenBatchNorm":
        super().train(mode)
        self.norm.eval()
        return self


class FlattensAndPools(Attention):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        return self.gated(y, y.flatten(2).mean(-1))


class SeldomSkips(Attention):
    skips = 0

    def forward(self, x: Tensor) -> Tensor:
        if torch.rand(1).item() < 0.03:
            self.skips += 1
            return x
        return super().forward(x)


def with_srp(module: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(module)
    apply_srp(net, 0.5, example_input=images())
    return net.train()


def check_regions(net: nn.Sequential) -> None:
    """That the descriptor is the mean of the map over the regions, by crops."""
    corners = read_regions(net)["0"][:, 0].tolist()
    crops = [x[:, t : t + h, c : c + w].mean((1, 2)) for x, (t, c, h, w) in zip(net[0].map, corners, strict=True)]
    torch.testing.assert_close(net[0].descriptor, torch.stack(crops))
    assert not torch.allclose(net[0].descriptor, net[0].map.mean((2, 3)), atol=1e-3)


@pytest.mark.parametrize(
    "module", [BehindDropBlock, BehindBatchNorm, BehindBatchNormAndDropout, BehindFrozenBatchNorm, FlattensAndPools]
)
def test_children_that_act_otherwise_in_training_move_no_call(module: type[Attention]) -> None:
    net = with_srp(module())
    for _ in range(3):
        net(images())
        check_regions(net)


def test_a_random_branch_that_no_look_saw_may_skip_the_pooling() -> None:
    net = with_srp(SeldomSkips())
    for _ in range(100):
        net(images())
    assert net[0].skips > 0


def test_a_hook_that_calls_the_same_functions_moves_no_call() -> None:
    net = with_srp(FlattensAndPools())
    net[0].conv.register_forward_hook(
        lambda module, inputs, output: None if output.flatten(2).mean(-1).isfinite().all() else output
    )
    net(images())
    check_regions(net)


@pytest.mark.parametrize("parameter", [torch.ones(CHANNELS), torch.ones(1)])
def test_a_gain_between_sum_and_mean_that_begins_as_one_is_not_dropped(parameter: Tensor) -> None:
    class Gain(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(parameter.clone())

        def forward(self, x: Tensor) -> Tensor:
            return self.gated(x, x.sum((2, 3)) * self.gain / (x.shape[2] * x.shape[3]))

    net = nn.Sequential(Attention(), Gain()).train()
    records = apply_srp(net, 0.5, example_input=images())
    assert [record.name for record in records] == ["0"]
    assert [one.name for one in records.left_out] == ["1"]
    net(images()).sum().backward()
    assert net[1].gain.grad is not None


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_hook_of_the_module_itself_calls_nothing_in_its_forward(dropout: float) -> None:
    class Dropping(Attention):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), dropout, self.training)

    module, seen = Dropping(), []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((2, 3))))
    module.register_forward_hook(lambda _, inputs, output: seen.append(output.mean((2, 3))))
    net = with_srp(module)
    net(images())
    check_regions(net)
    torch.testing.assert_close(seen[-2], images().mean((2, 3)))


def test_attention_in_a_hook_is_that_of_the_module_around_it() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.hooked = Attention(), nn.Identity()
            self.hooked.register_forward_hook(lambda _, inputs, x: self.body.gated(x, x.mean((2, 3))))

        def forward(self, x: Tensor) -> Tensor:
            return self.hooked(x)

    around = Around()
    net = nn.Sequential(around).train()
    assert [record.name for record in apply_srp(net, 0.5, example_input=images())] == ["0"]
    net(images())
    corners = read_regions(net)["0"][:, 0].tolist()
    crops = [x[:, t : t + h, c : c + w].mean((1, 2)) for x, (t, c, h, w) in zip(around.body.map, corners, strict=True)]
    torch.testing.assert_close(around.body.descriptor, torch.stack(crops))


class Mixing(nn.Module):
    """In half of the training steps it takes a mean of its own, of a map with as many channels, as MixStyle does."""

    mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.mean = None
        if not self.training or random.random() > 0.5:
            return x
        self.seen = x.detach()
        self.mean = x.mean((2, 3), keepdim=True).detach()
        return x - self.mean + self.mean[torch.randperm(len(x))]


class Statistic(nn.Module):
    """Behind stochastic depth: keeps the mean of its map."""

    mean: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.mean = None
        if self.training and torch.rand(()) < 0.5:
            return x
        self.seen = x.detach()
        self.mean = x.mean((2, 3), keepdim=True).detach()
        return x + 0.1 * x.square()


class Behind(Attention):
    """Pools in its own forward, behind children that take means of their own in some steps."""

    def __init__(self, *children: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*children)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.gated(x, x.mean((2, 3)))


@pytest.mark.parametrize("kind", [Mixing, Statistic])
def test_means_that_children_take_at_random_are_those_of_the_whole_map(kind: type[Any]) -> None:
    children = [kind() for _ in range(3)]
    random.seed(0)
    net = with_srp(Behind(*children))
    taken = 0
    for _ in range(40):
        net(images())
        check_regions(net)
        for child in children:
            if child.mean is not None:
                taken += 1
                assert torch.equal(child.mean, child.seen.mean((2, 3), keepdim=True))
    assert 0 < taken < 120


def test_a_module_whose_calls_differ_is_not_compiled() -> None:
    """A compiler can't tell in which line of the code a call is made."""
    random.seed(0)
    net = with_srp(Behind(Mixing(), Statistic()))
    torch.compiler.reset()
    step = torch.compile(net, backend="eager")
    for _ in range(20):
        step(images())
        check_regions(net)
    torch.compiler.reset()
    with pytest.raises(Exception, match="calls of a forward with SRP differ from run to run"):
        torch.compile(net, backend="eager", fullgraph=True)(images())
    torch.compiler.reset()


def test_what_runs_later_is_deeper_though_the_first_look_skips_it() -> None:
    class Skipping(Attention):
        skipped = 0

        def forward(self, x: Tensor) -> Tensor:
            if torch.rand(()) < 0.5:
                return x
            return super().forward(x)

    net = nn.Sequential(*(Skipping() for _ in range(4)))
    assert [record.name for record in apply_srp(net, 0.5, example_input=images())] == ["0", "1", "2", "3"]
