"""What can't be done right is refused in one line, and the model stays as it was."""

import abc
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrize

from srp_exp.errors import UserError
from srp_exp.srp import Linear, apply_srp, fix_regions, read_regions, remove_srp, srp_modules

IMAGES = torch.randn(4, 8, 12, 10, generator=torch.Generator().manual_seed(0))


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        self.descriptor = x.mean((2, 3))
        return x * (self.descriptor @ self.weight).sigmoid()[:, :, None, None]


def refused(message: str, net: nn.Module | None = None, schedule: Any = 0.5, **settings: Any) -> None:
    net = nn.Sequential(Gate(), Gate()) if net is None else net
    before = [(type(module), dict(vars(module))) for module in net.modules()]
    with pytest.raises(UserError, match=message) as error:
        apply_srp(net, schedule, example_input=IMAGES, **settings)
    assert "\n" not in str(error.value)
    assert [(type(module), dict(vars(module))) for module in net.modules()] == before


def test_a_schedule_by_depth_that_leaves_the_only_module_whole() -> None:
    for schedule in (None, Linear(1.0, 0.25)):
        refused(
            r"the only attention module, '0', has the scale first=1.0.*SRP would do nothing: give one scale",
            nn.Sequential(Gate()),
            schedule,
        )
    for schedule, scale in ((1.0, 1.0), (Linear(0.9, 0.5), 0.9), (Linear(1.0, 1.0), 1.0)):
        assert apply_srp(nn.Sequential(Gate()), schedule, example_input=IMAGES)[0].scale == scale


def test_settings_of_another_type() -> None:
    refused("^regions=2.5 is no whole number", regions=2.5)
    refused(r"^scale=None is not in \(0, 1\]", schedule=lambda depth: None)
    refused(r"^where=\[\] names nothing", where=[])


def test_lazy_modules_must_have_run() -> None:
    refused("^0.weight has no shape yet: run the model once", nn.Sequential(nn.LazyConv2d(8, 1), Gate()))


class Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_class_on_top_of_that_with_srp_is_not_lost() -> None:
    net = nn.Sequential(Gate(), Gate()).train()
    apply_srp(net, 0.5, example_input=IMAGES)
    parametrize.register_parametrization(net[1], "weight", Double())
    with pytest.raises(UserError, match="^1 was parametrized since apply_srp: undo that first"):
        remove_srp(net)
    assert list(srp_modules(net)) == ["0", "1"]
    net(IMAGES)
    parametrize.remove_parametrizations(net[1], "weight")
    remove_srp(net)
    assert [type(module) for module in net] == [Gate, Gate]


def test_subclasses_that_are_listed_are_those_of_the_user() -> None:
    listed: list[type] = []

    class Listed(Gate):
        def __init_subclass__(cls) -> None:
            listed.append(cls)

    class Mine(Listed):
        pass

    apply_srp(nn.Sequential(Mine()), 0.5, example_input=IMAGES)
    assert listed == [Mine]


def test_a_class_that_can_not_be_derived_from_is_refused_with_all_undone() -> None:
    class Abstract(abc.ABC, Gate):
        pass

    refused("^1 is a Abstract, a class from which none with SRP can be derived", nn.Sequential(Gate(), Abstract()))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_forward_mode_derivatives() -> None:
    net = nn.Sequential(Gate()).train()
    apply_srp(net, 0.5, example_input=IMAGES)
    net(IMAGES)
    regions = read_regions(net)
    fix_regions(net, regions)
    tangent = IMAGES.flip(0)
    with forward_ad.dual_level():
        net(forward_ad.make_dual(IMAGES, tangent))
        found = forward_ad.unpack_dual(net[0].descriptor).tangent
    corners = regions["0"][:, 0].tolist()
    crops = [x[:, t : t + h, c : c + w].mean((1, 2)) for x, (t, c, h, w) in zip(tangent, corners, strict=True)]
    torch.testing.assert_close(found, torch.stack(crops))
