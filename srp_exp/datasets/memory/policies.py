"""Colour jitter, RandAugment and TrivialAugment of a batch: images that draw the same operation are changed together.

Operations and strengths are those of torchvision.transforms.v2, to 1 of 255; what is turned or moved is interpolated
bilinearly, and black comes in from outside. Each image is changed alike whichever others it is among.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.augmentation import Augmentation

_LEVELS = 30  # the highest of both policies

Operation = Callable[[Tensor, Tensor], Tensor]
"""Maps images (B, C, H, W) uint8 and their strengths (B, 1, 1, 1) float32 to images of the same shape and type."""


class Kind(NamedTuple):
    """An operation, whose strength is start + largest * level / 30, of either sign where it is signed.

    largest: of RandAugment, and of TrivialAugment.
    """

    apply: Operation
    largest: tuple[float, float] = (0.0, 0.0)
    start: float = 0.0
    is_signed: bool = True


class Draws(NamedTuple):
    """Operations of N samples, one after another. kinds: (N, L) int64. strengths: (N, L) float32. On the CPU."""

    kinds: Tensor
    strengths: Tensor

    def take(self, rows: Tensor) -> "Draws":
        return Draws(self.kinds[rows], self.strengths[rows])


class Policy:
    """Draws operations for every sample of an epoch, and applies them to batches of images of `size`, H and W."""

    def __init__(self, augmentation: Augmentation, size: tuple[int, int]):
        self._wide, self._magnitude = augmentation.trivial_augment, augmentation.rand_augment
        self._kinds = kinds(*size)

    def draw(self, num_samples: int, source: torch.Generator) -> Draws:
        shape = (num_samples, 1 if self._wide else 2)
        chosen = torch.randint(len(self._kinds), shape, generator=source)
        levels = torch.randint(_LEVELS + 1, shape, generator=source) if self._wide else self._magnitude
        signs = 1 - 2 * torch.randint(2, shape, generator=source)
        largest, start, is_signed = (
            torch.tensor(column)[chosen]
            for column in zip(*((k.largest[self._wide], k.start, k.is_signed) for k in self._kinds), strict=True)
        )
        return Draws(chosen, start + largest * levels / _LEVELS * torch.where(is_signed, signs, 1))

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return apply_each([kind.apply for kind in self._kinds], images, draws)


class ColorJitter:
    """Brightness, contrast and saturation, each by a factor of its own, in an order of the sample's own."""

    def __init__(self, strength: float):
        self._strength = strength

    def draw(self, num_samples: int, source: torch.Generator) -> Draws:
        order = torch.rand(num_samples, 3, generator=source).argsort(1)
        factors = 1 + self._strength * (2 * torch.rand(num_samples, 3, generator=source) - 1)
        return Draws(order, factors)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return apply_each([brightness, contrast, saturation], images, draws)


def apply_each(operations: list[Operation], images: Tensor, draws: Draws) -> Tensor:
    """Apply to each image of (B, C, H, W) the operations of its row of `draws`, one after another."""
    for kinds_, strengths in zip(draws.kinds.T, draws.strengths.T, strict=True):
        order = kinds_.argsort()  # on the CPU, where nothing waits for a GPU
        counts = kinds_.bincount(minlength=len(operations)).tolist()
        rows, values = order.to(images.device), strengths[order].to(images.device).view(-1, 1, 1, 1)
        parts = zip(operations, images[rows].split(counts), values.split(counts), strict=True)
        changed = torch.empty_like(images)
        changed[rows] = torch.cat([apply(part, value) if len(part) else part for apply, part, value in parts])
        images = changed
    return images


def kinds(height: int, width: int) -> list[Kind]:
    """The operations of both policies, in torchvision's order: Identity, ShearX, ShearY, TranslateX, ..., Equalize."""
    part = 150 / 331  # of the side
    return [
        Kind(lambda images, _: images),
        Kind(lambda images, s: _moved(images, x_of_y=s, x=s * height / 2), (0.3, 0.99)),
        Kind(lambda images, s: _moved(images, y_of_x=s, y=s * width / 2), (0.3, 0.99)),
        Kind(lambda images, s: _moved(images, x=-s.trunc()), (part * width, 32.0)),
        Kind(lambda images, s: _moved(images, y=-s.trunc()), (part * height, 32.0)),
        Kind(_rotated, (30.0, 135.0)),
        Kind(brightness, (0.9, 0.99), start=1.0),
        Kind(saturation, (0.9, 0.99), start=1.0),
        Kind(contrast, (0.9, 0.99), start=1.0),
        Kind(_sharpened, (0.9, 0.99), start=1.0),
        Kind(lambda images, bits: images & (256 - 2 ** (8 - bits.round())).byte(), (-4.0, -6.0), 8.0, is_signed=False),
        Kind(_solarized, (-1.0, -1.0), start=1.0, is_signed=False),
        Kind(lambda images, _: F.autocontrast(images)),
        Kind(lambda images, _: F.equalize(images)),
    ]


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 255).byte()


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(images)
    return _blend(images, grey.sum((1, 2, 3), keepdim=True) / grey[0].numel(), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, _grey(images), factor) if images.shape[1] == 3 else images


def _sharpened(images: Tensor, factor: Tensor) -> Tensor:
    blurred: Tensor = F.adjust_sharpness(images, 0.0)
    return (images + (blurred.float() - images) * (1 - factor)).clamp_(0, 255).byte()


def _solarized(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images >= 255 * threshold, 255 - images, images)


def _grey(images: Tensor) -> Tensor:
    """(B, 1, H, W), rounded down; the images themselves where they have one channel."""
    grey: Tensor = F.rgb_to_grayscale(images) if images.shape[1] == 3 else images
    return grey


def _blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).add_(others * (1 - factor)).clamp_(0, 255).byte()


def _rotated(images: Tensor, degrees: Tensor) -> Tensor:
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return _moved(images, x_of_x=cos, x_of_y=-sin, y_of_x=sin, y_of_y=cos)


def _moved(
    images: Tensor,
    *,
    x_of_x: Tensor | float = 1.0,
    x_of_y: Tensor | float = 0.0,
    x: Tensor | float = 0.0,
    y_of_x: Tensor | float = 0.0,
    y_of_y: Tensor | float = 1.0,
    y: Tensor | float = 0.0,
) -> Tensor:
    """Each pixel from where an affine map of its place, in pixels from the centre, says; (B, 1, 1, 1) each number."""
    height, width = images.shape[2:]
    down, across = (torch.arange(side, device=images.device) - (side - 1) / 2 for side in (height, width))
    down = down[:, None]
    # Sums and no matrix product, whose last bits depend on how many images there are.
    xs, ys = across * x_of_x + down * x_of_y + x, across * y_of_x + down * y_of_y + y
    places = [(value / (side / 2)).expand(len(images), 1, height, width) for value, side in ((xs, width), (ys, height))]
    grid = torch.stack(places, 4).squeeze(1)
    return grid_sample(images.float(), grid, align_corners=False).round_().byte()
