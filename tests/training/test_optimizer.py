"""Which parameters decay, told by the kind of their module and by what a step does to them."""

from collections.abc import Callable

import pytest
import timm
import torch
from timm.layers import EcaModule, SEModule
from torch import nn
from torch.optim import SGD

from srp_exp.errors import UserError
from srp_exp.training.lr_schedule import cosine
from srp_exp.training.optimizer import parameter_groups


class Frame(nn.Module):
    """A body and a classifier, named as in our small networks."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body, self.classifier = nn.Sequential(*body), nn.Linear(8, 4)


class Scale(nn.Module):
    """A learned scalar, as some gates have one."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), SEModule(4, rd_channels=2), EcaModule(4), nn.Linear(4, 3), Scale()
    )


def decaying_names(model: nn.Module) -> set[str]:
    """Weights of convolutions and linear layers."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
    }


def names_of(model: nn.Module, parameters: object) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert isinstance(parameters, list)
    return sorted(names[id(parameter)] for parameter in parameters)


def test_norms_biases_and_scalars_do_not_decay(model: nn.Sequential) -> None:
    decaying, fixed = parameter_groups(model, 0.01, decay_norm_and_bias=False)
    expected = decaying_names(model)
    assert len(expected) == 5
    assert names_of(model, decaying["params"]) == sorted(expected)
    assert names_of(model, fixed["params"]) == sorted({name for name, _ in model.named_parameters()} - expected)


def test_all_decay_where_told_to(model: nn.Sequential) -> None:
    (group,) = parameter_groups(model, 0.01, decay_norm_and_bias=True)
    assert names_of(model, group["params"]) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_frozen_parameters_are_left_out(model: nn.Sequential, decay_norm_and_bias: bool) -> None:
    model[0].requires_grad_(False)
    groups = parameter_groups(model, 0.01, decay_norm_and_bias)
    seen = [name for group in groups for name in names_of(model, group["params"])]
    assert sorted(seen) == sorted(name for name, _ in model.named_parameters() if not name.startswith("0."))


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_a_step_without_gradient_shrinks_just_what_decays(model: nn.Sequential, decay_norm_and_bias: bool) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    SGD(parameter_groups(model, 0.01, decay_norm_and_bias), lr=0.5).step()
    for name, parameter in model.named_parameters():
        decays = decay_norm_and_bias or name in decaying_names(model)
        expected = 1 - 0.5 * 0.01 if decays else 1.0
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected), msg=name)


@pytest.mark.parametrize(
    ("make", "decay_norm_and_bias"),
    [
        (lambda: timm.create_model("seresnet18", num_classes=4), True),
        (lambda: Frame(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), False),
    ],
)
def test_the_head_is_trained_at_a_rate_of_its_own(make: Callable[[], nn.Module], decay_norm_and_bias: bool) -> None:
    model = make()
    name = "fc" if hasattr(model, "fc") else "classifier"
    groups = parameter_groups(model, 0.01, decay_norm_and_bias, lr=0.2, head_factor=10)
    optimizer = SGD(groups, lr=0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for parameter_name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(2.0 if parameter_name.startswith(f"{name}.") else 0.2)
    assert optimizer.param_groups[0]["lr"] == 0.2  # which is the one reported
    schedule = cosine(optimizer, epochs=2, steps_per_epoch=5, warmup_epochs=0.4, final_factor=0.1)
    for _ in range(10):
        assert optimizer.param_groups[-1]["lr"] == pytest.approx(10 * optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_a_head_that_nobody_names_is_refused() -> None:
    with pytest.raises(UserError, match="head_lr_factor: Sequential has neither"):
        parameter_groups(nn.Sequential(nn.Linear(3, 2)), 0.01, True, lr=0.2, head_factor=10)


def test_a_network_without_norms_and_biases_can_be_trained() -> None:
    model = nn.Linear(3, 2, bias=False)
    optimizer = SGD(parameter_groups(model, 0.01, decay_norm_and_bias=False), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * (1 + 0.01 * before))
