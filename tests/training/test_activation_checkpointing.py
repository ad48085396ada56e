"""Activation checkpointing: the same bits with less memory."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import SEModule
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from srp_exp.datasets import Batch
from srp_exp.srp import Linear, apply_srp, remove_srp
from srp_exp.training.activation_checkpointing import checkpoint_activations
from srp_exp.training.learner import Learner, StepSettings

SIDE = 32


class Block(nn.Module):
    """Convolution, batch norm and dropout beside an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.norm(self.conv(x)).relu())


def small() -> nn.Module:
    blocks = nn.Sequential(*(Block(8) for _ in range(4)))
    return nn.Sequential(nn.Conv2d(3, 8, 3), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def seresnet() -> nn.Module:
    model: nn.Module = timm.create_model("seresnet18", num_classes=4, drop_rate=0.2, drop_path_rate=0.2)
    apply_srp(model, Linear(0.8, 0.3), example_input=torch.zeros(2, 3, SIDE, SIDE))
    return model


def mobilenet() -> nn.Module:
    model: nn.Module = timm.create_model("mobilenetv3_small_050", num_classes=4, drop_rate=0.2)
    apply_srp(model, Linear(0.8, 0.3), example_input=torch.zeros(2, 3, SIDE, SIDE))
    return model


NETWORKS = {"small": (small, 4), "seresnet18": (seresnet, 8), "mobilenetv3": (mobilenet, 12)}


def make_learner(make: Callable[[], nn.Module], checkpointed: bool, **settings: Any) -> Learner:
    torch.manual_seed(0)
    model = make()
    if checkpointed:
        checkpoint_activations(model)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = LambdaLR(optimizer, lambda step: 0.9**step)
    return Learner(model, optimizer, schedule, StepSettings(3, 10, **settings), device=torch.device("cpu"))


def batch_of(step: int) -> Batch:
    source = torch.Generator().manual_seed(step)
    images = torch.randn(8, 3, SIDE, SIDE, generator=source)
    return Batch(images, torch.randint(0, 4, (8,), generator=source), torch.arange(8))


@pytest.mark.parametrize(
    ("name", "settings"),
    [("small", {"precision": "bf16", "ema_decay": 0.9, "accumulate_steps": 2}), ("seresnet18", {})],
)
def test_every_bit_is_the_same(name: str, settings: dict[str, Any], assert_same_state: Any) -> None:
    make, _ = NETWORKS[name]
    plain, checkpointed = (make_learner(make, either, **settings) for either in (False, True))
    for step in range(3):
        for learner in (plain, checkpointed):
            learner.train_step(batch_of(step))
    # loss, weights, running statistics and their count of batches, optimizer
    assert_same_state(checkpointed.state_dict(), plain.state_dict())
    for learner in (plain, checkpointed):
        learner.model.eval()
    images = batch_of(9).images
    with torch.no_grad():
        assert torch.equal(checkpointed.model(images), plain.model(images))


def kept(model: nn.Module) -> int:
    """Bytes that a forward pass in training keeps for the backward pass, each tensor once, without parameters."""
    storages: dict[int, int] = {}
    tensors = []
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            tensors.append(tensor)  # so that no other one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(batch_of(0).images)
    return sum(storages.values())


@pytest.mark.parametrize("name", ["seresnet18", "mobilenetv3"])
def test_less_is_kept(name: str) -> None:
    make, blocks = NETWORKS[name]
    plain, checkpointed = make(), make()
    assert checkpoint_activations(checkpointed) == blocks
    assert kept(checkpointed) < 0.5 * kept(plain)
    every_second = make()
    assert checkpoint_activations(every_second, every=2) == (blocks + 1) // 2
    assert kept(checkpointed) < kept(every_second) < kept(plain)


def test_blocks_stay_what_they_are() -> None:
    model = small()
    names = list(model.state_dict())
    checkpoint_activations(model)
    block = model.get_submodule("1.0")
    assert isinstance(block, Block)
    assert list(model.state_dict()) == names
    assert "Block(" in repr(model)
    twin = copy.deepcopy(model)
    assert isinstance(twin.get_submodule("1.0"), Block)


def test_srp_comes_out_of_an_attention_module_that_is_a_block() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), SEModule(16), nn.Flatten(2))
    apply_srp(model, 0.5, example_input=torch.zeros(2, 3, SIDE, SIDE))
    assert checkpoint_activations(model) == 1
    remove_srp(model)
    assert type(model[1]) is SEModule
    model(torch.zeros(2, 3, SIDE, SIDE))


def test_evaluation_and_passes_without_gradients_compute_once() -> None:
    model = small()
    calls: list[bool] = []
    checkpoint_activations(model)
    model.get_submodule("1.0.conv").register_forward_hook(lambda *_: calls.append(True))
    images = batch_of(0).images
    model(images).sum().backward()
    assert len(calls) == 2
    calls.clear()
    with torch.no_grad():
        model(images)
    model.eval()
    model(images).sum().backward()
    assert len(calls) == 2


def test_a_network_without_blocks_is_told_by_the_count() -> None:
    assert checkpoint_activations(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten())) == 0


@pytest.mark.long
@pytest.mark.parametrize("settings", [{}, {"precision": "bf16", "ema_decay": 0.9}])
def test_compiled_steps_are_the_same_with_it(settings: dict[str, Any], assert_same_state: Any) -> None:
    learners = []
    for checkpointed in (False, True):
        torch.compiler.reset()
        learner = make_learner(small, checkpointed, compile="default", **settings)
        for step in range(3):
            learner.train_step(batch_of(step))
        learners.append(learner)
    assert_same_state(learners[1].state_dict(), learners[0].state_dict())
    torch.compiler.reset()
