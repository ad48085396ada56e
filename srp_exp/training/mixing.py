"""Mixing of the images of a batch in pairs: MixUp, CutMix, or either.

Image i is mixed with image i + B/2 of its batch. Rank r of N processes has the images r, r + N, ... of a batch, whose
own halves are then the same pairs wherever 2N divides B; the shares and boxes are those of the step, the same on every
rank. So N processes mix as one does.

Differs from the publications: they pair by a random permutation; the images of a batch are in random order already.
torchvision's transforms pair neighbours, which lie on different ranks, and draw from the generator that regions use.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from srp_exp.training.losses import soft_labels


class Mix(Protocol):
    """Maps images (B, C, H, W) and labels (B,) to mixed images and soft labels (B, classes); `seed` names the draw."""

    def __call__(self, images: Tensor, labels: Tensor, seed: int, /) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class MixUp:
    """A weighted mean of two images, the weight drawn from Beta(alpha, alpha) for the batch. arXiv:1710.09412."""

    alpha: float
    num_classes: int

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        share = float(np.random.default_rng(seed).beta(self.alpha, self.alpha))
        return torch.lerp(images, _partners(images), 1 - share), _soft(labels, share, self.num_classes)


@dataclass(frozen=True)
class CutMix:
    """A box of the other image, at a place and of an area drawn for the batch. arXiv:1905.04899.

    The area without the box is a part of the map drawn from Beta(alpha, alpha); what of the box lies beyond the border
    is cut off, and the labels have the shares of the areas.
    """

    alpha: float
    num_classes: int

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        height, width = images.shape[-2:]
        draw = np.random.default_rng(seed)
        side = math.sqrt(1 - draw.beta(self.alpha, self.alpha))
        top, bottom = _cut(int(draw.integers(height)), side, height)
        left, right = _cut(int(draw.integers(width)), side, width)
        mixed = images.clone()
        mixed[..., top:bottom, left:right] = _partners(images)[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, _soft(labels, share, self.num_classes)


@dataclass(frozen=True)
class MixUpOrCutMix:
    """For each batch MixUp or CutMix, equally likely."""

    mixup_alpha: float
    cutmix_alpha: float
    num_classes: int

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        chosen, inner = np.random.SeedSequence(seed).generate_state(2, np.uint64).tolist()
        if chosen % 2:
            return MixUp(self.mixup_alpha, self.num_classes)(images, labels, inner)
        return CutMix(self.cutmix_alpha, self.num_classes)(images, labels, inner)


def _partners(values: Tensor) -> Tensor:
    """What each of a batch is mixed with: that half a batch further, around its end."""
    half = len(values) // 2
    return torch.cat([values[half:], values[:half]])  # not roll, which on CUDA gives up channels_last


def _soft(labels: Tensor, share: float, num_classes: int) -> Tensor:
    """Soft labels (B, classes): `share` of the own label, the rest of the partner's. Nothing waits for the device."""
    hard = soft_labels(labels, num_classes)
    return torch.lerp(hard, _partners(hard), 1 - share)


def _cut(centre: int, side: float, length: int) -> tuple[int, int]:
    """First and last + 1 position of a box of `side` times the `length`, within the border."""
    reach = int(side * length / 2)
    return max(0, centre - reach), min(length, centre + reach)
