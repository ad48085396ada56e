"""Colour jitter, RandAugment and TrivialAugment of a batch: images that draw the same operation are changed together.

Operations and strengths are those of torchvision.transforms.v2, to 1 of 255; what is turned or moved is interpolated
bilinearly, and black comes in from outside. Each image is changed alike whichever others it is among. Nothing waits for
the device, and all numbers of an epoch are copied to it at once.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.augmentation import Augmentation

_LEVELS = 30  # the highest of both policies
_NUMBERS = 6
"""Of an operation: those of an affine map, or its strength first."""


class Draws(NamedTuple):
    """Operations of N samples, L one after another, on the CPU.

    operations: (N, L) int64, places in OPERATIONS. numbers: (N, L, 6) float32, what each takes.
    """

    operations: Tensor
    numbers: Tensor


def draw_jitter(strength: float, num_samples: int, source: torch.Generator) -> Draws:
    """Brightness, contrast and saturation, each by a factor of its own, in an order of the sample's own."""
    order = torch.rand(num_samples, 3, generator=source).argsort(1)
    factors = 1 + strength * (2 * torch.rand(num_samples, 3, generator=source) - 1)
    operations = torch.tensor([OPERATIONS.index(each) for each in (brightness, contrast, saturation)])
    return Draws(operations[order], pad(factors[..., None], (0, _NUMBERS - 1)))


def draw_policy(
    augmentation: Augmentation, size: tuple[int, int], num_samples: int, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Kinds, (N, L) int64 places in torchvision's list, and strengths, (N, L) float32, for images of `size`, H and W.

    A strength is a start and a part of the largest, of either sign for all but Posterize and Solarize.
    """
    (height, width), wide = size, augmentation.trivial_augment
    largest = [0.0, 0.3, 0.3, 150 / 331 * width, 150 / 331 * height, 30.0, *4 * [0.9], -4.0, -1.0, 0.0, 0.0]
    if wide:
        largest = [0.0, 0.99, 0.99, 32.0, 32.0, 135.0, *4 * [0.99], -6.0, -1.0, 0.0, 0.0]
    start = [*6 * [0.0], *4 * [1.0], 8.0, 1.0, 0.0, 0.0]
    shape = (num_samples, 1 if wide else 2)
    kinds = torch.randint(len(start), shape, generator=source)
    levels = torch.randint(_LEVELS + 1, shape, generator=source) if wide else augmentation.rand_augment
    signs = torch.where(kinds < 10, 1 - 2 * torch.randint(2, shape, generator=source), 1)
    return kinds, torch.tensor(start)[kinds] + torch.tensor(largest)[kinds] * levels / _LEVELS * signs


def draws_of(kinds: Tensor, strengths: Tensor, size: tuple[int, int]) -> Draws:
    """The operations that are the kinds of a policy: the first is none, the next five move pixels."""
    height, width = size
    shear_x, shear_y, right, down, degrees = (torch.where(kinds == move, strengths, 0) for move in range(1, 6))
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    of_x = torch.stack([cos, shear_x - sin, shear_x * height / 2 - right.trunc()], -1) * (2 / width)
    of_y = torch.stack([shear_y + sin, cos, shear_y * width / 2 - down.trunc()], -1) * (2 / height)
    others = pad(strengths[..., None], (0, _NUMBERS - 1))
    numbers = torch.where((kinds < 6)[..., None], torch.cat([of_x, of_y], -1), others)
    return Draws(torch.tensor([0, *5 * [1], *range(2, len(OPERATIONS))])[kinds], numbers)


class Changes:
    """What draws do to the samples `rows`, (N,) int64, which come in groups of `sizes`, on `device`."""

    def __init__(self, draws: Draws, rows: Tensor, sizes: list[int], device: torch.device):
        starts = (torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)).repeat_interleave(torch.tensor(sizes))
        group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        places, numbers = [], []
        self._counts: list[list[list[int]]] = []
        for operations, of_sample in zip(draws.operations[rows].T, draws.numbers[rows].unbind(1), strict=True):
            sort_by = group * len(OPERATIONS) + operations
            order = sort_by.argsort(stable=True)
            counts = sort_by.bincount(minlength=len(sizes) * len(OPERATIONS))
            self._counts.append(counts.view(len(sizes), -1).tolist())
            places += [order - starts, order.argsort() - starts]
            numbers.append(of_sample[order])
        self._places = torch.stack(places).to(device).split(sizes, 1)
        self._numbers = torch.stack(numbers)[..., None, None].to(device).split(sizes, 1)

    def __call__(self, images: Tensor, group: int) -> Tensor:
        """The images (B, C, H, W) of a group with their operations, one after another."""
        for stage, counts in enumerate(self._counts):
            order, back = self._places[group][2 * stage : 2 * stage + 2]
            numbers = self._numbers[group][stage].split(counts[group])
            parts = zip(OPERATIONS, images.index_select(0, order).split(counts[group]), numbers, strict=True)
            changed = torch.cat([apply(part, of_part) if len(part) else part for apply, part, of_part in parts])
            images = changed.index_select(0, back)
        return images


def _same(images: Tensor, _: Tensor) -> Tensor:
    return images


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor[:, :1]).clamp_(0, 255).byte()


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images)
    return _blend(images, grey.sum((1, 2, 3), keepdim=True) / grey[0].numel(), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images), factor) if images.shape[1] == 3 else images


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Away from, or towards, a blur whose kernel has 5/13 in the middle and 1/13 around; the border stays."""
    if min(images.shape[2:]) < 3:
        return images
    pixels = images.float()
    inner = pixels[..., 1:-1, 1:-1]
    blurred = torch.lerp(inner, avg_pool2d(pixels, 3, 1), 9 / 13).round_()
    inner.add_(blurred.sub_(inner).mul_(1 - factor[:, :1]))
    return pixels.clamp_(0, 255).byte()


def posterized(images: Tensor, bits: Tensor) -> Tensor:
    return images & (256 - 2 ** (8 - bits[:, :1].round())).byte()


def solarized(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= 255 * threshold[:, :1], 255 - images, images)


def stretched(images: Tensor, _: Tensor) -> Tensor:
    """Each channel over the whole range, where it has more than one level."""
    darkest = images.amin((2, 3), keepdim=True)
    span = images.amax((2, 3), keepdim=True) - darkest
    scaled = (images - darkest) / (span.clamp(min=1) * (1 / 255))
    return torch.where(span > 0, scaled.clamp_(max=255).byte(), images)


def equalized(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's levels by how many of its pixels are darker, as PIL rounds it."""
    pixels = images.flatten(2)
    darker = torch.searchsorted(pixels.sort(2).values, pixels)
    step = darker.amax(2, keepdim=True) // 255
    levels = (darker + step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(max=255)
    return torch.where(step > 0, levels.byte(), pixels).view_as(images)


def _grey(images: Tensor) -> Tensor:
    """(B, 1, H, W), rounded down; the images themselves where they have one channel."""
    grey: Tensor = F.rgb_to_grayscale(images) if images.shape[1] == 3 else images
    return grey


def _blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    return (images * factor[:, :1]).add_(others * (1 - factor[:, :1])).clamp_(0, 255).byte()


def moved(images: Tensor, numbers: Tensor) -> Tensor:
    """Each pixel from where an affine map says: x of its own x and y and 1, then y of them; 1 is half a side."""
    across, down = _from_centre(*images.shape[2:], images.device)
    of_x, of_y, shift = numbers.view(-1, 1, 1, 2, 3).unbind(4)
    # Sums and no matrix product, whose last bits depend on how many images there are.
    places = torch.addcmul(torch.addcmul(shift, down, of_y), across, of_x)
    return grid_sample(images.float(), places, align_corners=False).round_().byte()


@lru_cache(4)
def _from_centre(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """How many pixels right of the centre each column is, (W, 1), and below it each row, (H, 1, 1)."""
    across, down = (torch.arange(side, device=device) - (side - 1) / 2 for side in (width, height))
    return across[:, None], down[:, None, None]


OPERATIONS = (
    *(_same, moved, brightness, saturation, contrast),
    *(sharpness, posterized, solarized, stretched, equalized),
)
"""Each maps images (B, C, H, W) uint8 and numbers (B, 6, 1, 1) float32 to images of the same shape and type."""
