"""A small network with everything random in it, a data set of random pixels, and learners of them."""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from timm.layers import SEModule
from torch import nn
from torch.optim import SGD

from srp_exp.datasets import BatchLoader, ImageSet, Split
from srp_exp.datasets.augmentation import Augmentation
from srp_exp.srp import Linear, apply_srp
from srp_exp.training.learner import Learner, Mix, StepSettings
from srp_exp.training.lr_schedule import cosine

torch.set_num_threads(1)

CLASSES = 3
STEPS_PER_EPOCH = 5
SCALES = (0.75, 0.25)
"""Of the regions in front of the two attention modules of `make_network`."""


@pytest.fixture(scope="module")
def dataset() -> ImageSet:
    """22 training and 7 test images of (C, H, W) = (3, 8, 8)."""
    source = torch.Generator().manual_seed(0)

    def split(size: int) -> Split:
        images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=source)
        return Split(images, torch.arange(size) % CLASSES, torch.arange(size))

    return ImageSet(
        split(22), split(7), ("a", "b", "c"), (0.5,) * 3, (0.3,) * 3, Augmentation(crop_padding=1, flip=True)
    )


@pytest.fixture(scope="module")
def batches(dataset: ImageSet) -> BatchLoader:
    """Five batches of four images in an epoch; two images are left over."""
    return BatchLoader(dataset, dataset.train, batch_size=4, seed=3)


def make_network() -> nn.Sequential:
    """A network with batch norm, dropout and two attention modules with SRP, always with the same weights."""
    return copy.deepcopy(network_with_srp())


@cache
def network_with_srp() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        SEModule(8, rd_channels=4),
        nn.Conv2d(8, 8, 3, padding=1),
        SEModule(8, rd_channels=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, CLASSES),
    )
    apply_srp(model, Linear(*SCALES), example_input=torch.zeros(2, 3, 8, 8))
    return model


@pytest.fixture(scope="session")
def make_learner() -> Callable[..., Learner]:
    """Makes a learner of that network, or of `model`, over `epochs`: Nesterov momentum, a cosine after a warm-up."""

    def make(
        model: nn.Module | None = None, *, mix: Mix | None = None, epochs: int = 3, seed: int = 7, **settings: Any
    ) -> Learner:
        model = make_network() if model is None else model
        optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
        schedule = cosine(
            optimizer, epochs=epochs, steps_per_epoch=STEPS_PER_EPOCH, warmup_epochs=0.4, final_factor=0.01
        )
        step_settings = StepSettings(seed=seed, total_steps=epochs * STEPS_PER_EPOCH, **settings)
        return Learner(model, optimizer, schedule, step_settings, mix=mix, device=torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def assert_same_state() -> Callable[[Any, Any], None]:
    """Fails unless two states, nested as state_dicts are, agree in every bit and every type."""

    def compare(state: Any, other: Any, where: str = "state") -> None:
        assert type(state) is type(other), where
        if isinstance(state, torch.Tensor):
            assert state.dtype == other.dtype, where
            assert torch.equal(state, other), where
        elif isinstance(state, dict):
            assert list(state) == list(other), where
            for key in state:
                compare(state[key], other[key], f"{where}[{key!r}]")
        elif isinstance(state, list | tuple):
            assert len(state) == len(other), where
            for index, (value, other_value) in enumerate(zip(state, other, strict=True)):
                compare(value, other_value, f"{where}[{index}]")
        else:
            assert state == other, where

    return compare
