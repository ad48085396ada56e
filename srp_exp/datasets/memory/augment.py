"""Random changes of the images of a batch, on the device they are on.

Drawing and applying are apart: the draws of an epoch are made at once for all samples on the CPU, so that a
sample's draw depends on neither the batch size, the step, the device nor the number of processes.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from srp_exp.datasets.augmentation import Augmentation, mean_colour
from srp_exp.datasets.memory.erasing import draw_cutout, draw_erasing, erase
from srp_exp.seeding import generator


class EpochAugmentation:
    """The changes that `augmentation` asks for, drawn for N samples of an epoch, which are seen in `groups`.

    mean: of the channels, in [0, 1], to fill with. size: height and width of the images. groups: (B,) int64 each, on
    the CPU: which of the N draws each image gets. All that is drawn is copied to the device here and not in the steps,
    where it would make a GPU wait.
    """

    def __init__(
        self,
        augmentation: Augmentation,
        mean: tuple[float, ...],
        size: tuple[int, int],
        num_samples: int,
        seed: int,
        epoch: int,
        groups: list[Tensor],
        device: torch.device,
    ):
        a, rows = augmentation, torch.cat(groups)
        self._padding, self._crops = a.crop_padding, None
        if a.crop_padding or a.flip:
            self._crops = [each.to(device) for each in draw(num_samples, a.crop_padding, a.flip, seed, epoch)]
        sizes = [len(group) for group in groups]
        self._changes: list[Any] = []
        if a.color_jitter or a.rand_augment or a.trivial_augment:
            # Only who chooses one of them waits for the import of torchvision.
            from srp_exp.datasets.memory.policies import Changes, draw_jitter, draw_policy, draws_of

            if a.color_jitter:
                draws = draw_jitter(a.color_jitter, num_samples, generator(seed, "color jitter", epoch))
                self._changes.append(Changes(draws, rows, sizes, device))
            if a.rand_augment or a.trivial_augment:
                drawn = draw_policy(a, size, num_samples, generator(seed, "policy", epoch))
                self._changes.append(Changes(draws_of(*drawn, size), rows, sizes, device))
        boxes = []
        if a.random_erasing:
            boxes.append(draw_erasing(num_samples, size, a.random_erasing, generator(seed, "erasing", epoch)))
        if a.cutout:
            boxes.append(draw_cutout(num_samples, size, a.cutout, generator(seed, "cutout", epoch)))
        self._boxes = [each.to(device) for each in boxes]
        self._colour = torch.tensor(mean_colour(mean), dtype=torch.uint8, device=device).view(-1, 1, 1)

    def __call__(self, images: Tensor, rows: Tensor, group: int) -> Tensor:
        """Change images (B, C, H, W) uint8 as the draws `rows`, (B,) int64 on the device, of a group say."""
        if self._crops is not None:
            offsets, flips = self._crops
            images = crop_and_flip(images, offsets[rows], flips[rows], self._padding)
        for changes in self._changes:
            images = changes(images, group)
        for boxes in self._boxes:
            images = erase(images, boxes[rows], self._colour)
        return images


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
