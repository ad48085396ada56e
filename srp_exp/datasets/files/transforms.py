"""What is cut out of a picture and how it is varied, with torchvision.transforms.v2 on uint8.

Every draw comes from torch's default generator, which is seeded for each picture; the operations are torchvision's own,
in the order of its training script, and RandAugment and TrivialAugment interpolate bilinearly.
Differs from torchvision's reference: what is erased gets the mean colour before normalisation, which is the zero after
it that the reference fills with.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.augmentation import FileAugmentation, mean_colour
from srp_exp.errors import UserError

Transform = Callable[[Tensor], Tensor]
"""Maps a picture, (3, H, W) uint8, to (3, S, S) uint8."""


class TrainTransform:
    """A random crop, then the random operations that `augmentation` asks for. mean: of the channels, in [0, 1]."""

    def __init__(self, augmentation: FileAugmentation, mean: tuple[float, ...]):
        a, colour = augmentation, mean_colour(mean)
        mode, turned = v2.InterpolationMode(a.interpolation), v2.InterpolationMode.BILINEAR
        side = a.resize if a.crop == "random" else a.crop_size
        whole = v2.RandomResizedCrop(a.crop_size, scale=(a.min_area, 1.0), interpolation=mode)
        chosen: dict[Transform, bool] = {
            partial(_random_resized_crop, drawn_by=whole): a.crop == "random_resized",
            partial(_shorter_side, side=side, mode=mode): a.crop != "random_resized",
            v2.CenterCrop(a.crop_size): a.crop == "pad",
            v2.RandomCrop(a.crop_size, padding=a.crop_padding or None): a.crop != "random_resized",
            _flipped: a.flip,
            v2.ColorJitter(*(a.color_jitter,) * 3): a.color_jitter > 0,
            v2.RandAugment(magnitude=a.rand_augment, interpolation=turned): a.rand_augment > 0,
            v2.TrivialAugmentWide(interpolation=turned): a.trivial_augment,
            v2.RandomErasing(a.random_erasing, value=colour): a.random_erasing > 0,
            Cutout(a.cutout, colour): a.cutout > 0,
        }
        self._operations = [operation for operation, is_chosen in chosen.items() if is_chosen]

    def __call__(self, image: Tensor) -> Tensor:
        for operation in self._operations:
            image = operation(image)
        return image


@dataclass(frozen=True)
class EvalTransform:
    """The middle square, after the picture has been resized, as timm's evaluation transform has it. Draws nothing.

    Pictures are resized by Pillow, as in timm: torchvision's resizing of uint8, in a quarter of the time, differs from
    Pillow's by up to 2 of 255.
    """

    augmentation: FileAugmentation

    def __call__(self, image: Tensor) -> Tensor:
        a = self.augmentation
        height, width = resized(image, a.resize)
        if a.eval_crop == "squash":
            height = width = a.resize
        whole = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        small = whole.resize((width, height), Image.Resampling[a.interpolation.upper()])
        square: Tensor = F.center_crop(torch.from_numpy(np.array(small)).permute(2, 0, 1), [a.eval_crop_size])
        return square


class FitTransform:
    """For a network whose pictures were held in memory at their size, (channels, height, width).

    A picture of another size is resized until it covers that one, bilinearly by Pillow, and its middle is taken. For a
    network of one channel colours become grey, by ITU-R 601-2.
    """

    def __init__(self, channels: int, height: int, width: int):
        self._channels, self._size = channels, (height, width)

    def __call__(self, image: Tensor) -> Tensor:
        whole = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        height, width = self._size
        factor = max(height / whole.height, width / whole.width)
        if (whole.height, whole.width) != self._size:
            covering = max(width, round(whole.width * factor)), max(height, round(whole.height * factor))
            whole = whole.resize(covering, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(whole.convert("L"))[None] if self._channels == 1 else np.array(whole))
        fitted: Tensor = F.center_crop(pixels if self._channels == 1 else pixels.permute(2, 0, 1), [height, width])
        return fitted


class Cutout:
    """Fills a square of `size` pixels around a random pixel; what lies outside the image is cut off.

    Source: arXiv:1708.04552, section 3.2, where the fill is zero after normalisation: the mean colour.
    """

    def __init__(self, size: int, colour: list[int]):
        self._size, self._colour = size, torch.tensor(colour, dtype=torch.uint8)[:, None, None]

    def __call__(self, image: Tensor) -> Tensor:
        _, height, width = image.shape
        top, left = (int(torch.randint(side, ())) - self._size // 2 for side in (height, width))
        rows, columns = (slice(max(0, start), start + self._size) for start in (top, left))
        image = image.clone()
        image[:, rows, columns] = self._colour
        return image


def _flipped(image: Tensor) -> Tensor:
    """As v2.RandomHorizontalFlip() draws and flips, which takes a twentieth of reading a small picture to dispatch."""
    return image.flip(-1) if torch.rand(1) < 0.5 else image


def _random_resized_crop(image: Tensor, drawn_by: v2.RandomResizedCrop) -> Tensor:
    drawn = drawn_by.make_params([image])
    top, left, height, width = (drawn[name] for name in ("top", "left", "height", "width"))
    return _resize(image[:, top : top + height, left : left + width], drawn_by.size, drawn_by.interpolation)


def _shorter_side(image: Tensor, side: int, mode: v2.InterpolationMode) -> Tensor:
    return _resize(image, resized(image, side), mode)


def resized(image: Tensor, shorter_side: int) -> tuple[int, int]:
    """Height and width after the shorter became `shorter_side`; the longer is rounded down, as in torchvision."""
    _, height, width = image.shape
    if height <= width:
        return shorter_side, int(shorter_side * width / height)
    return int(shorter_side * height / width), shorter_side


def cut_to_box(image: Tensor, box: Tensor, name: str) -> Tensor:
    """The pixels of a picture (3, H, W) that a box (4,), left, top, right and bottom, touches.

    What lies outside the picture is cut off. Raises UserError, with `name`, where nothing is left.
    """
    left, top, right, bottom = box.tolist()
    _, height, width = image.shape
    top, bottom = max(0, math.floor(top)), min(height, math.ceil(bottom))
    left, right = max(0, math.floor(left)), min(width, math.ceil(right))
    if top >= bottom or left >= right:
        raise UserError(
            f"{name}: the box {box.tolist()} has no pixel of the {height} x {width} picture; mend the annotation, or "
            f"set dataset.crop_to_box=false"
        )
    return image[:, top:bottom, left:right]


def _resize(image: Tensor, size: Sequence[int], mode: v2.InterpolationMode) -> Tensor:
    """As torchvision does; copying the pixels together first, as (H, W, 3), makes it faster by a third."""
    packed = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    other: Tensor = F.resize(packed, list(size), interpolation=mode, antialias=True)
    return other
