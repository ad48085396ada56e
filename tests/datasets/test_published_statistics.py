"""Means and standard deviations are the published ones; settings replace them."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.models import ResNet50_Weights

from srp_exp.datasets import ImageSet, Split, with_statistics
from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.on_disk.picture_set import IMAGENET_MEAN, IMAGENET_STD
from srp_exp.datasets.sets.cifar import Cifar10, Cifar100
from srp_exp.datasets.sets.mnist5k import Mnist5k

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "cifar10_jpeg"


def test_imagenets_are_torchvisions_and_timms() -> None:
    preset = ResNet50_Weights.IMAGENET1K_V2.transforms()
    assert list(IMAGENET_MEAN) == preset.mean == list(IMAGENET_DEFAULT_MEAN)
    assert list(IMAGENET_STD) == preset.std == list(IMAGENET_DEFAULT_STD)


def test_cifars_are_the_published() -> None:
    """Over all pixels of the training images, as they are quoted everywhere, to four digits."""
    assert (Cifar10._mean, Cifar10._std) == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert (Cifar100._mean, Cifar100._std) == ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def test_mnists_are_the_published() -> None:
    digits = Mnist5k(Augmentation())
    assert (digits.mean, digits.std) == ((0.1307,), (0.3081,))
    pixels = digits.train.images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=0.002)
    assert pixels.std().item() == pytest.approx(0.3081, abs=0.002)


def test_cifar_10s_are_those_of_its_photographs() -> None:
    """Of 10,000 training pictures of a copy as JPEG files."""
    files = sorted(PHOTOGRAPHS.glob("train-*.parquet"))
    if not files:
        pytest.skip("needs the photographs of ../shared/data")
    rows = pq.read_table(files[0], columns=["image"])["image"].slice(0, 10_000).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in rows]) / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), Cifar10._mean, atol=0.005)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), Cifar10._std, atol=0.005)


@pytest.fixture
def images() -> ImageSet:
    split = Split(torch.zeros(2, 3, 8, 8).byte(), torch.arange(2), torch.arange(2))
    return ImageSet(split, split, ("a", "b"), (0.5,) * 3, (0.25,) * 3, Augmentation())


def test_settings_replace_a_sets_own_and_null_leaves_them(images) -> None:
    changed = with_statistics(images, [0.1, 0.2, 0.3], None)
    assert (changed.mean, changed.std) == ((0.1, 0.2, 0.3), (0.25,) * 3)
    assert (images.mean, type(changed)) == ((0.5,) * 3, ImageSet)


def test_statistics_that_cannot_be_are_refused(images) -> None:
    for mean, std, message in (
        ([0.5], None, r"dataset\.mean=\[0\.5\]: the images have 3 channels"),
        (None, [0.5, 0.0, 0.5], r"dataset\.std=\[0\.5, 0\.0, 0\.5\]: choose finite numbers, positive ones"),
    ):
        with pytest.raises(ValueError, match=message):
            with_statistics(images, mean, std)
