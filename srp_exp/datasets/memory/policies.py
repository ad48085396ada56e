"""Colour jitter, RandAugment and TrivialAugment of a batch: images that draw the same operation are changed together.

Operations and strengths are those of torchvision.transforms.v2, to 1 of 255; what is turned or moved is interpolated
bilinearly, and black comes in from outside. Each image is changed alike whichever others it is among. Nothing waits for
the device, and all numbers of an epoch are copied to it at once.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.augmentation import Augmentation

_LEVELS = 30  # the highest of both policies
_NUMBERS = 6
"""Of an operation: those of an affine map, or its strength first."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""Maps images (B, C, H, W) uint8 and numbers (B, 6, 1, 1) float32 to images of the same shape and type."""


class Kind(NamedTuple):
    """An operation, whose strength is start + largest * level / 30, of either sign where it is signed.

    largest: of RandAugment, and of TrivialAugment. affine: maps strengths (N,) to the numbers (N, 6) of `moved`.
    """

    apply: Operation
    largest: tuple[float, float] = (0.0, 0.0)
    start: float = 0.0
    is_signed: bool = True
    affine: Callable[[Tensor], Tensor] | None = None


class Draws(NamedTuple):
    """Operations of N samples, one after another. kinds: (N, L) int64. strengths: (N, L) float32. On the CPU."""

    kinds: Tensor
    strengths: Tensor

    def take(self, rows: Tensor) -> "Draws":
        return Draws(self.kinds[rows], self.strengths[rows])


class Policy:
    """Draws operations for every sample of an epoch of images of `size`, H and W."""

    def __init__(self, augmentation: Augmentation, size: tuple[int, int]):
        self._wide, self._magnitude = augmentation.trivial_augment, augmentation.rand_augment
        self.kinds = kinds(*size)

    def draw(self, num_samples: int, source: torch.Generator) -> Draws:
        shape = (num_samples, 1 if self._wide else 2)
        chosen = torch.randint(len(self.kinds), shape, generator=source)
        levels = torch.randint(_LEVELS + 1, shape, generator=source) if self._wide else self._magnitude
        signs = 1 - 2 * torch.randint(2, shape, generator=source)
        largest, start, is_signed = (
            torch.tensor(column)[chosen]
            for column in zip(*((k.largest[self._wide], k.start, k.is_signed) for k in self.kinds), strict=True)
        )
        return Draws(chosen, start + largest * levels / _LEVELS * torch.where(is_signed, signs, 1))


class ColorJitter:
    """Brightness, contrast and saturation, each by a factor of its own, in an order of the sample's own."""

    def __init__(self, strength: float):
        self._strength = strength
        self.kinds = [Kind(brightness), Kind(contrast), Kind(saturation)]

    def draw(self, num_samples: int, source: torch.Generator) -> Draws:
        order = torch.rand(num_samples, 3, generator=source).argsort(1)
        factors = 1 + self._strength * (2 * torch.rand(num_samples, 3, generator=source) - 1)
        return Draws(order, factors)


def policies(augmentation: Augmentation, size: tuple[int, int]) -> dict[str, Policy | ColorJitter]:
    """What is chosen for images of `size`, by the purpose of its random draws, in the order in which it is applied."""
    chosen: dict[str, Policy | ColorJitter] = {}
    if augmentation.color_jitter:
        chosen["color jitter"] = ColorJitter(augmentation.color_jitter)
    if augmentation.rand_augment or augmentation.trivial_augment:
        chosen["policy"] = Policy(augmentation, size)
    return chosen


class Changes:
    """What `draws` does to images that come in groups, of `sizes` images each, in the order of the draws.

    kinds: those that the draws number. The groups lie on `device`.
    """

    def __init__(self, kinds: list[Kind], draws: Draws, sizes: list[int], device: torch.device):
        self._operations = list(dict.fromkeys(kind.apply for kind in kinds))
        starts = (torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)).repeat_interleave(torch.tensor(sizes))
        group = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        operation_of = torch.tensor([self._operations.index(kind.apply) for kind in kinds])
        places, numbers = [], []
        self._counts: list[list[list[int]]] = []
        for chosen, strengths in zip(draws.kinds.T, draws.strengths.T, strict=True):
            sort_by = group * len(self._operations) + operation_of[chosen]
            order = sort_by.argsort(stable=True)
            counts = sort_by.bincount(minlength=len(sizes) * len(self._operations))
            self._counts.append(counts.view(len(sizes), -1).tolist())
            places += [order - starts, order.argsort() - starts]
            numbers.append(_numbers(kinds, chosen, strengths)[order])
        self._places = torch.stack(places).to(device).split(sizes, 1)
        self._numbers = torch.stack(numbers)[..., None, None].to(device).split(sizes, 1)

    def __call__(self, images: Tensor, group: int) -> Tensor:
        """The images (B, C, H, W) of a group with their operations, one after another."""
        for stage, counts in enumerate(self._counts):
            order, back = self._places[group][2 * stage : 2 * stage + 2]
            numbers = self._numbers[group][stage].split(counts[group])
            parts = zip(self._operations, images.index_select(0, order).split(counts[group]), numbers, strict=True)
            changed = torch.cat([apply(part, of_part) if len(part) else part for apply, part, of_part in parts])
            images = changed.index_select(0, back)
        return images


def _numbers(kinds: list[Kind], chosen: Tensor, strengths: Tensor) -> Tensor:
    """The numbers (N, 6) of the chosen kinds (N,) with strengths (N,)."""
    numbers = torch.nn.functional.pad(strengths[:, None], (0, _NUMBERS - 1))
    for number, kind in enumerate(kinds):
        if kind.affine is not None:
            numbers[chosen == number] = kind.affine(strengths[chosen == number])
    return numbers


def kinds(height: int, width: int) -> list[Kind]:
    """The operations of both policies, in torchvision's order: Identity, ShearX, ShearY, TranslateX, ..., Equalize."""
    part = 150 / 331  # of the side

    def affine(x_of_x: Tensor, x_of_y: Tensor, x: Tensor, y_of_x: Tensor, y_of_y: Tensor, y: Tensor) -> Tensor:
        numbers = torch.stack([x_of_x, x_of_y, x, y_of_x, y_of_y, y], 1)
        return numbers * torch.tensor(3 * [2 / width] + 3 * [2 / height])

    def turned(degrees: Tensor) -> Tensor:
        cos, sin, zero = degrees.deg2rad().cos(), degrees.deg2rad().sin(), torch.zeros_like(degrees)
        return affine(cos, -sin, zero, sin, cos, zero)

    def units(s: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(s), torch.ones_like(s)

    def shifted_x(s: Tensor, by: Tensor, x_of_y: Tensor) -> Tensor:
        zero, one = units(s)
        return affine(one, x_of_y, by, zero, one, zero)

    def shifted_y(s: Tensor, by: Tensor, y_of_x: Tensor) -> Tensor:
        zero, one = units(s)
        return affine(one, zero, zero, y_of_x, one, by)

    return [
        Kind(_same),
        Kind(moved, (0.3, 0.99), affine=lambda s: shifted_x(s, s * height / 2, s)),
        Kind(moved, (0.3, 0.99), affine=lambda s: shifted_y(s, s * width / 2, s)),
        Kind(moved, (part * width, 32.0), affine=lambda s: shifted_x(s, -s.trunc(), 0 * s)),
        Kind(moved, (part * height, 32.0), affine=lambda s: shifted_y(s, -s.trunc(), 0 * s)),
        Kind(moved, (30.0, 135.0), affine=turned),
        Kind(brightness, (0.9, 0.99), start=1.0),
        Kind(saturation, (0.9, 0.99), start=1.0),
        Kind(contrast, (0.9, 0.99), start=1.0),
        Kind(sharpness, (0.9, 0.99), start=1.0),
        Kind(posterized, (-4.0, -6.0), 8.0, is_signed=False),
        Kind(solarized, (-1.0, -1.0), start=1.0, is_signed=False),
        Kind(stretched),
        Kind(equalized),
    ]


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
