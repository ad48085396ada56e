"""Generated images repeat, follow their settings, and carry their classes in parts rather than in colour."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.sets.synthetic import Synthetic

SETTINGS = {
    "data_seed": 0, "num_classes": 4, "train_size": 64, "test_size": 32, "image_size": [20, 24],
    "channels": 3, "parts_per_class": 3, "part_size": 7, "augmentation": Augmentation(),
}  # fmt: skip


def synthetic(**changes):
    return Synthetic(**{**SETTINGS, **changes})


def top1(model, split):
    with torch.no_grad():
        return (model(split.images / 255 - 0.5).argmax(1) == split.labels).double().mean().item()


def fit(model, split, steps, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    source = torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(0, len(split), (128,), generator=source)
        loss = F.cross_entropy(model(split.images[rows] / 255 - 0.5), split.labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def probed():
    return synthetic(train_size=4000, test_size=1000, image_size=[24, 24])


def test_a_small_convolution_with_pooling_learns_it(probed):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 24, 7, padding=3), nn.BatchNorm2d(24), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(),
        nn.Linear(24, 4),
    )  # fmt: skip
    fit(model, probed.train, steps=150, lr=0.02)
    assert top1(model.eval(), probed.test) > 0.8  # chance is 0.25


def test_mean_colour_says_nothing_about_the_class(probed):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(3),
        nn.Linear(3, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )
    fit(model, probed.train, steps=300, lr=0.01)
    bound = 0.25 + 5 * math.sqrt(0.25 * 0.75 / len(probed.test))  # five standard deviations of guessing
    assert top1(model.eval(), probed.test) < bound


@pytest.mark.parametrize("channels, image_size", [(3, [20, 24]), (1, [33, 17])])
def test_shapes_and_balance_follow_the_settings(channels, image_size):
    dataset = synthetic(channels=channels, image_size=image_size)
    assert dataset.train.images.shape == (64, channels, *image_size)
    assert dataset.test.images.shape == (32, channels, *image_size)
    assert (dataset.num_classes, dataset.channels, dataset.image_size) == (4, channels, tuple(image_size))
    assert dataset.train.labels.bincount().tolist() == [16] * 4
    assert len(dataset.mean) == len(dataset.std) == channels


def test_the_data_seed_decides_the_images():
    first, same, other = synthetic(), synthetic(), synthetic(data_seed=1)
    assert torch.equal(first.train.images, same.train.images)
    assert torch.equal(first.test.images, same.test.images)
    assert not torch.equal(first.train.images, other.train.images)
    assert not torch.equal(first.train.images[:32], first.test.images)


def test_chunks_differ():
    images = synthetic(train_size=2004, image_size=[16, 16]).train.images
    assert not torch.equal(images[:4], images[2000:])


def test_mean_and_std_are_those_of_the_images(probed):
    pixels = probed.train.images.double() / 255
    assert (pixels.mean((0, 2, 3)) - torch.tensor(probed.mean)).abs().max() < 0.01
    assert (pixels.std((0, 2, 3)) - torch.tensor(probed.std)).abs().max() < 0.03


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(
        ValueError, match="dataset.part_size=13: 3 parts .* 20 x 24 pixels have cells of 10 x 12; choose 3"
    ):
        synthetic(part_size=13)
    with pytest.raises(ValueError, match="dataset.test_size=3: choose at least 4"):
        synthetic(test_size=3)


def test_the_smallest_parts_still_differ_from_the_background():
    smallest = synthetic(part_size=3, image_size=[6, 6])
    assert len({image.numpy().tobytes() for image in smallest.train.images}) == 64
    assert smallest.train.images.double().std() > 30  # a background alone has less than 24
