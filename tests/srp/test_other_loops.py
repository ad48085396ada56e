"""What training loops of others do to a model: copies that are averaged, and wrappers. Their own: docs/library.md."""

import copy

import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from srp_exp.srp import Linear, apply_srp, remove_srp, set_progress, srp_modules

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("test_efficientnet", num_classes=4)
    apply_srp(model, Linear(1.0, 0.5), example_input=IMAGES)
    return model


def scales(model: nn.Module) -> list[float]:
    return [pool.scale for pool in srp_modules(model).values()]


@pytest.mark.parametrize("make", [copy.deepcopy, AveragedModel, ModelEmaV3])
def test_a_copy_has_srp_of_its_own(model: nn.Module, make) -> None:
    set_progress(model, 0.5)
    copied = make(model)
    set_progress(model, 1.0)
    assert scales(copied) == [1.0, 0.75]
    assert scales(model) == [1.0, 0.5]
    set_progress(copied, 0.0)
    assert scales(copied) == [1.0, 1.0]
    remove_srp(copied)
    assert scales(model) == [1.0, 0.5]


def test_an_average_is_evaluated_as_that_of_the_plain_network(model: nn.Module) -> None:
    plain = copy.deepcopy(model)
    remove_srp(plain)
    averages = [AveragedModel(network) for network in (model, plain)]
    for network, average in zip((model, plain), averages, strict=True):
        with torch.no_grad():
            next(network.parameters()).add_(0.1)
        average.update_parameters(network)
    assert torch.equal(averages[0].eval()(IMAGES), averages[1].eval()(IMAGES))


def test_batch_norms_of_an_average_are_those_of_the_plain_network_without_srp_alone(model: nn.Module) -> None:
    """What update_bn runs in training mode: the average keeps SRP until remove_srp."""
    found = []
    for removes in (False, True):
        plain = copy.deepcopy(model)
        remove_srp(plain)
        average, reference = AveragedModel(model), AveragedModel(plain)
        if removes:
            remove_srp(average)
        for network in (average, reference):
            update_bn([IMAGES], network)
        pairs = zip(average.buffers(), reference.buffers(), strict=True)
        found.append(all(torch.equal(*pair) for pair in pairs))
    assert found == [False, True]


def test_a_wrapped_model_is_reached(model: nn.Module) -> None:
    wrapped = nn.ModuleDict({"module": model})  # as DistributedDataParallel and others hold it
    set_progress(wrapped, 0.5)
    assert scales(model) == [1.0, 0.75]
    assert [*srp_modules(wrapped)] == [f"module.{name}" for name in srp_modules(model)]
