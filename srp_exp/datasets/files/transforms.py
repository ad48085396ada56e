"""What is cut out of a picture and how it is varied, with torchvision.transforms.v2 on uint8.

Every draw comes from torch's default generator, which `seeded` sets; the operations are those of torchvision's and
timm's training scripts.
Sources: random resized crop, arXiv:1409.4842; RandAugment, arXiv:1909.13719; random erasing, arXiv:1708.04896.
Differs from torchvision's reference: random erasing fills with the mean colour before normalisation, which is the
zero after it that the reference fills with.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.files.decode import Picture, Region
from srp_exp.errors import UserError

Transform = Callable[[Picture, Region], Tensor]
"""Maps the part of a picture that is to be seen, in its pixels, to (3, S, S) uint8."""

_CROPS = ("random_resized", "random")


@dataclass(frozen=True)
class Augmentation:
    """How pictures become squares of `crop_size` pixels, for training and for evaluation.

    crop: in training, `random_resized` (a random part of the area between min_area and 1, of an aspect ratio
    between 3/4 and 4/3) or `random` (the shorter side to `resize` pixels, then a random square). Evaluation takes
    the middle square after the shorter side has become `resize` pixels. flip: training mirrors half of the
    pictures left to right. color_jitter: brightness, contrast and saturation change by a factor of up to 1 plus
    or minus it. rand_augment: magnitude of its two operations, 0 to 30; 0: none. random_erasing: the probability.

    Raises ValueError where a value is out of its range.
    """

    crop: str = "random_resized"
    resize: int = 256
    crop_size: int = 224
    flip: bool = True
    min_area: float = 0.08
    color_jitter: float = 0.0
    rand_augment: int = 0
    random_erasing: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "crop": (self.crop in _CROPS, " or ".join(_CROPS)),
            "crop_size": (1 <= self.crop_size <= self.resize, f"1 to resize={self.resize} pixels"),
            "min_area": (0 < self.min_area <= 1, "a part in (0, 1]"),
            "color_jitter": (0 <= self.color_jitter <= 1, "a strength in [0, 1]"),
            "rand_augment": (0 <= self.rand_augment <= 30, "a magnitude of 0 to 30"),
            "random_erasing": (0 <= self.random_erasing <= 1, "a probability in [0, 1]"),
        }
        for name, (is_valid, choices) in ranges.items():
            if not is_valid:
                raise UserError(f"dataset.augmentation.{name}={getattr(self, name)}: choose {choices}")


class TrainTransform:
    """A random crop, then the random operations that `augmentation` asks for. mean: of the channels, in [0, 1]."""

    def __init__(self, augmentation: Augmentation, mean: tuple[float, ...]):
        a = augmentation
        self._crop: Transform
        if a.crop == "random_resized":
            self._crop = _RandomResizedCrop(a.crop_size, a.min_area)
        else:
            self._crop = _ResizeAndCrop(a.resize, a.crop_size, v2.RandomCrop(a.crop_size))
        chosen: dict[Any, bool] = {
            v2.RandomHorizontalFlip(): a.flip,
            v2.ColorJitter(*(a.color_jitter,) * 3): a.color_jitter > 0,
            v2.RandAugment(magnitude=a.rand_augment): a.rand_augment > 0,
            v2.RandomErasing(a.random_erasing, value=[255 * m for m in mean]): a.random_erasing > 0,
        }
        self._operations = [operation for operation, is_chosen in chosen.items() if is_chosen]

    def __call__(self, picture: Picture, window: Region) -> Tensor:
        image = self._crop(picture, window)
        for operation in self._operations:
            image = operation(image)
        return image


class EvalTransform:
    """The middle square, after the shorter side has been resized. Draws nothing."""

    def __init__(self, augmentation: Augmentation):
        crop_size = augmentation.crop_size
        self._crop = _ResizeAndCrop(augmentation.resize, crop_size, v2.CenterCrop(crop_size))

    def __call__(self, picture: Picture, window: Region) -> Tensor:
        return self._crop(picture, window)


class _RandomResizedCrop:
    def __init__(self, size: int, min_area: float):
        self._size = size
        self._draw = v2.RandomResizedCrop(size, scale=(min_area, 1.0))

    def __call__(self, picture: Picture, window: Region) -> Tensor:
        # The draw looks at the size only: a meta tensor has one, and no pixels.
        drawn = self._draw.make_params([torch.empty(3, window.height, window.width, device="meta")])
        region = Region(window.top + drawn["top"], window.left + drawn["left"], drawn["height"], drawn["width"])
        return _resize(picture.pixels(region, self._size, self._size), self._size, self._size)


class _ResizeAndCrop:
    def __init__(self, shorter_side: int, size: int, crop: Any):
        self._shorter_side, self._size, self._crop = shorter_side, size, crop

    def __call__(self, picture: Picture, window: Region) -> Tensor:
        height, width = resized(window.height, window.width, self._shorter_side)
        image: Tensor = self._crop(_resize(picture.pixels(window, height, width), height, width))
        return image


def resized(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Height and width after the shorter became `shorter_side`; the longer is rounded down, as in torchvision."""
    if height <= width:
        return shorter_side, int(shorter_side * width / height)
    return int(shorter_side * height / width), shorter_side


def window_of(picture: Picture, box: Tensor | None) -> Region:
    """The pixels that a box (4,), left, top, right and bottom, touches; the whole picture without a box.

    What lies outside the picture is cut off. Raises ValueError where nothing is left.
    """
    if box is None:
        return Region(0, 0, picture.height, picture.width)
    left, top, right, bottom = box.tolist()
    top, bottom = max(0, math.floor(top)), min(picture.height, math.ceil(bottom))
    left, right = max(0, math.floor(left)), min(picture.width, math.ceil(right))
    if top >= bottom or left >= right:
        raise UserError(
            f"{picture.name}: the box {box.tolist()} has no pixel of the {picture.height} x {picture.width} picture; "
            f"mend the annotation, or set dataset.crop_to_box=false"
        )
    return Region(top, left, bottom - top, right - left)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws from torch's CPU generator start from `seed` inside, and go on outside as if nothing had been drawn."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def _resize(image: Tensor, height: int, width: int) -> Tensor:
    """As torchvision does; copying the pixels together first, as (H, W, 3), makes it faster by a third."""
    packed = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    smaller: Tensor = F.resize(packed, [height, width], antialias=True)
    return smaller
