"""Networks on the meta device: SRP goes where it goes with values, and nothing is allocated or kept."""

import gc
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers import SEModule
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from srp_exp.srp import Linear, apply_srp, find_attention, remove_srp, srp_modules
from srp_exp.srp.region import PLACEMENTS, RegionPlacement
from srp_exp.srp.region_mean import region_mean

NETWORKS = ["seresnet18", "skresnet18", "resnest14d", "ecaresnet26t", "ese_vovnet19b_dw", "mobilenet_v3_small"]


def build(name: str) -> nn.Module:
    if name in torchvision.models.list_models():
        return torchvision.models.get_model(name)
    return timm.create_model(name)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_modules_at_the_same_depth_as_with_values(name: str) -> None:
    with torch.device("meta"):
        on_meta = build(name)
    keys = list(on_meta.state_dict())
    with_values = apply_srp(build(name), Linear(1.0, 0.5), example_input=torch.zeros(2, 3, 64, 64))
    assert apply_srp(on_meta, Linear(1.0, 0.5), example_input=torch.zeros(2, 3, 64, 64, device="meta")) == with_values
    assert list(on_meta.state_dict()) == keys
    assert all(tensor.is_meta for tensor in on_meta.state_dict().values())


def test_network_of_more_than_a_hundred_million_parameters() -> None:
    with torch.device("meta"):
        model = timm.create_model("senet154")
    keys = list(model.state_dict())
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000_000
    records = apply_srp(model, 0.5)
    assert [record.attention for record in records] == ["SEModule"] * 50
    assert [record.map_size[0] for record in records] == [56] * 3 + [28] * 8 + [14] * 36 + [7] * 3
    output = model.train()(torch.empty(2, 3, 64, 64, device="meta"))
    assert output.shape == (2, 1000)
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    remove_srp(model)
    assert list(model.state_dict()) == keys


class Devices(TorchDispatchMode):
    """Where the tensors lie that are made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not any(isinstance(arg, Tensor) for arg in args):
            self.made.add((func.overloadpacket.__name__, result.device.type))
        return result


@pytest.mark.parametrize("reentrant", [True, False])
def test_regions_are_drawn_and_read_where_the_maps_are(reentrant: bool) -> None:
    """An accelerator is not at hand; tensors on meta, which no one on the CPU meets without an error, stand for its."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), SEModule(8, rd_channels=4))
    apply_srp(net, 0.5, example_input=torch.zeros(2, 3, 8, 8))
    net.to("meta").train()
    images = torch.empty(2, 3, 8, 8, device="meta", requires_grad=True)
    with Devices() as devices:
        checkpoint(net, images, use_reentrant=reentrant).sum().backward()
    assert ("rand", "meta") in devices.made
    assert not {name for name, device in devices.made if device == "cpu"} - {"_to_copy"}, devices.made
    (pool,) = srp_modules(net).values()
    assert pool.last is not None
    assert pool.corners(pool.last).is_meta


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_a_compiler_traces_stays_where_the_map_is(placement: RegionPlacement) -> None:
    numbers = torch.empty(2, 2, 1, device="meta")
    assert region_mean(torch.empty(2, 3, 6, 5, device="meta"), numbers, (3, 2), placement).is_meta


class WithTables(nn.Module):
    """A gate with a weight and tables of its own, of floats and of integers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.register_buffer("shift", torch.ones(8))
        self.register_buffer("order", torch.arange(8))

    def forward(self, x: Tensor) -> Tensor:
        gate = (x.mean((2, 3)) * self.weight + self.shift)[:, self.order].sigmoid()
        return x * gate[:, :, None, None]


def test_weights_and_tables_of_the_module_itself() -> None:
    with torch.device("meta"):
        model = nn.Sequential(WithTables())
    (found,) = find_attention(model, torch.zeros(2, 8, 6, 5, device="meta")).poolings
    assert (found.module, found.map_size) == ("0", (6, 5))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_no_value_outlives_the_search(device: str) -> None:
    """What lies in reference cycles would wait for the garbage collector by the gigabyte."""
    with torch.device(device):
        model = timm.create_model("mobilenetv3_small_050")

    def floats() -> int:
        return sum(issubclass(type(thing), Tensor) and thing.is_floating_point() for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = floats()
        findings = find_attention(model, torch.zeros(2, 3, 64, 64, device=device))
        assert floats() - before == 0
    finally:
        gc.enable()
    assert len(findings.poolings) == 9
