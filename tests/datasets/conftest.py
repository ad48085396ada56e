"""A data set of random pixels, in which no wrong row, crop or flip can pass unseen, and a slow reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from srp_exp.datasets import ImageSet, Split
from srp_exp.datasets.augmentation import Augmentation


@pytest.fixture
def make_set() -> Callable[..., ImageSet]:
    """Makes a set of random (C, H, W) = (3, 5, 7) images with `train` and `test` samples of three classes."""

    def make(train: int = 23, test: int = 7, crop_padding: int = 2, flip: bool = True, **more: Any) -> ImageSet:
        source = torch.Generator().manual_seed(0)

        def split(size: int, first_index: int) -> Split:
            images = torch.randint(0, 256, (size, 3, 5, 7), dtype=torch.uint8, generator=source)
            return Split(images, torch.arange(size) % 3, torch.arange(size) + first_index)

        augmentation = Augmentation(crop_padding=crop_padding, flip=flip, **more)
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.1)
        return ImageSet(split(train, 100), split(test, 500), ("a", "b", "c"), mean, std, augmentation)

    return make


@pytest.fixture
def slow_crop_and_flip() -> Callable[[Tensor, Tensor, Tensor, int], Tensor]:
    """The reference of `crop_and_flip`: one image at a time, padded, sliced and mirrored."""

    def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
        _, _, height, width = images.shape
        results = []
        for image, (top, left), flip in zip(images, offsets.tolist(), flips.tolist(), strict=True):
            padded = F.pad(image, (padding, padding, padding, padding))
            crop = padded[:, top : top + height, left : left + width]
            results.append(crop.flip(-1) if flip else crop)
        return torch.stack(results)

    return crop_and_flip
