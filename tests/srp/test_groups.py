"""Maps whose first axis isn't the images alone: a region for each image, or none at all."""

import pytest
import torch
from torch import Tensor, nn

from srp_exp.errors import UserError
from srp_exp.srp import apply_srp, fix_regions, read_regions, remove_srp


def images(batch: int = 4) -> Tensor:
    return torch.randn(batch, 8, 12, 10, generator=torch.Generator().manual_seed(0))


class Gate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        self.map, self.descriptor = x, x.mean((-2, -1))
        return x * self.fc(self.descriptor).sigmoid()[..., None, None]


class Grouped(nn.Module):
    """Groups of channels folded into the batch, as in SGE and Shuffle Attention."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x.reshape(-1, 4, *x.shape[2:])).view_as(x)


class OverTime(nn.Module):
    """Time in front of the batch, folded into it or not."""

    def __init__(self, folded: bool) -> None:
        super().__init__()
        self.gate, self.folded = Gate(8), folded

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([x, x + 1, x + 2])
        return self.gate(x.flatten(0, 1) if self.folded else x).view_as(x).mean(0)


def check(gate: Gate, of_rows: list[int]) -> None:
    corners = read_regions(net_of[gate])["0.gate"][:, 0].tolist()
    for x, descriptor, row in zip(gate.map, gate.descriptor, of_rows, strict=True):
        t, c, h, w = corners[row]
        torch.testing.assert_close(descriptor, x[:, t : t + h, c : c + w].mean((1, 2)))


net_of: dict[nn.Module, nn.Module] = {}


def with_srp(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(module)
    apply_srp(net, 0.5, example_input=images())
    net_of[module.gate] = net  # type: ignore[index]
    return net.train()


def test_groups_in_the_batch_share_the_region_of_their_image() -> None:
    module = Grouped()
    net = with_srp(module)
    for batch in (4, 1, 3):
        net(images(batch)).sum().backward()
        regions = read_regions(net)["0.gate"]
        assert len(regions) == batch
        check(module.gate, [i // 2 for i in range(2 * batch)])
    fix_regions(net, {"0.gate": regions})
    net(images(3))
    check(module.gate, [0, 0, 1, 1, 2, 2])
    with pytest.raises(UserError, match="fixed for 3 samples"):
        net(images(4))
    fix_regions(net, None)
    torch.manual_seed(1)
    remove_srp(net)
    assert not net._forward_pre_hooks


class Windows(nn.Module):
    """Windows of 4 x 2 positions folded into the batch: how many an image has depends on its size."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(8)

    def forward(self, x: Tensor) -> Tensor:
        windows = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 4)).movedim((2, 4), (1, 2))
        return self.gate(windows.flatten(0, 2)).view_as(windows)


def test_windows_of_an_image_of_a_different_size_share_its_region() -> None:
    module = Windows()
    net = with_srp(module)
    net(torch.randn(3, 8, 24, 12))
    assert len(read_regions(net)["0.gate"]) == 3
    check(module.gate, [i // 36 for i in range(3 * 36)])


def test_maps_of_one_image_that_do_not_follow_one_another_have_regions_of_their_own() -> None:
    module = OverTime(folded=True)
    net = with_srp(module)
    net(images())
    check(module.gate, list(range(12)))


def test_time_in_front_of_the_batch_is_left_out() -> None:
    with pytest.raises(UserError, match="the first axis of its map isn't that of the images"):
        with_srp(OverTime(folded=False))
