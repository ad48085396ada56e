"""Random crops and flips of a batch, on the device the images are on.

Drawing and applying are apart: the draws of an epoch are made at once for all samples on the CPU, so that a
sample's draw depends on neither the batch size, the step, the device nor the number of processes.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from srp_exp.seeding import generator


class AugmentationDraws(NamedTuple):
    """One epoch's draws for N samples. offsets: (N, 2) int64, row and column of a crop. flips: (N,) bool."""

    offsets: Tensor
    flips: Tensor


def draw(num_samples: int, padding: int, flip: bool, seed: int, epoch: int) -> AugmentationDraws:
    """Draw crop offsets, uniform over [0, 2 * padding], and flips: one half of the time, or never."""
    source = generator(seed, "augment", epoch)
    offsets = torch.randint(0, 2 * padding + 1, (num_samples, 2), generator=source)
    coins = torch.randint(0, 2, (num_samples,), generator=source).bool()
    return AugmentationDraws(offsets, coins if flip else torch.zeros_like(coins))


def crop_and_flip(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Pad every image with zeros, crop it back to its size at its offset, and mirror it where told.

    images: (B, C, H, W), any type. offsets: (B, 2) int64 in [0, 2 * padding]; (padding, padding) is the image
    itself. flips: (B,) bool. Returns (B, C, H, W); the input is unchanged.

    Indexes the view of all windows of the padded images: each crop is copied whole, in less than half the time of
    a gather pixel by pixel on the CPU.
    """
    batch, _, height, width = images.shape
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    samples = torch.arange(batch, device=images.device)
    crops = windows[samples, :, offsets[:, 0], offsets[:, 1]]
    return torch.where(flips[:, None, None, None], crops.flip(3), crops)
