"""What is cut out of a picture and how it is varied, with torchvision.transforms.v2 on uint8.

Every draw comes from torch's default generator, which is seeded for each picture; the operations are torchvision's own,
in the order of its training script, and RandAugment and TrivialAugment interpolate bilinearly.
Differs from torchvision's reference: what is erased gets the mean colour before normalisation, which is the zero after
it that the reference fills with.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.augmentation import FileAugmentation, mean_colour, sides
from srp_exp.errors import UserError

Transform = Callable[[Tensor], Tensor]
"""Maps a picture, (3, H', W') uint8, to (3, H, W) uint8."""


def train_transform(augmentation: FileAugmentation, mean: tuple[float, ...]) -> v2.Transform:
    """A random crop, then the random operations that `augmentation` asks for. mean: of the channels, in [0, 1]."""
    a, colour = augmentation, mean_colour(mean)
    mode, turned = v2.InterpolationMode(a.interpolation), v2.InterpolationMode.BILINEAR
    height, width = size = sides(a.crop_size)
    covered = sides(a.resize) if a.crop == "random" else size
    ratios = 3 / 4 * width / height, 4 / 3 * width / height
    crop = v2.RandomResizedCrop(size, scale=(a.min_area, 1.0), ratio=ratios, interpolation=mode)
    chosen: dict[Transform, bool] = {
        partial(_random_resized_crop, crop=crop): a.crop == "random_resized",
        partial(_cover, size=covered, mode=mode): a.crop != "random_resized",
        v2.CenterCrop(size): a.crop == "pad",
        v2.RandomCrop(size, padding=a.crop_padding or None): a.crop != "random_resized",
        _flipped: a.flip,
        v2.ColorJitter(*(a.color_jitter,) * 3): a.color_jitter > 0,
        v2.RandAugment(magnitude=a.rand_augment, interpolation=turned): a.rand_augment > 0,
        v2.TrivialAugmentWide(interpolation=turned): a.trivial_augment,
        v2.RandomErasing(a.random_erasing, value=colour): a.random_erasing > 0,
        partial(cutout, size=a.cutout, colour=colour): a.cutout > 0,
    }
    return v2.Compose([operation for operation, is_chosen in chosen.items() if is_chosen])


def eval_transform(augmentation: FileAugmentation) -> v2.Transform:
    """The middle, after the picture has been resized, as timm's evaluation transform has it. Draws nothing.

    Pictures are resized by Pillow, as in timm: torchvision's resizing of uint8, in a quarter of the time, differs from
    Pillow's by up to 2 of 255.
    """
    a = augmentation
    size, mode = sides(a.resize), v2.InterpolationMode(a.interpolation)
    resize = v2.Resize(size, mode) if a.eval_crop == "squash" else partial(_cover, size=size, mode=mode)
    return v2.Compose([v2.ToPILImage(), resize, v2.CenterCrop(sides(a.eval_crop_size)), v2.PILToTensor()])


def fit_transform(channels: int, height: int, width: int) -> v2.Transform:
    """For a network whose pictures were held in memory at their size, (channels, height, width).

    A picture of another size is resized until it covers that one, bilinearly by Pillow, and its middle is taken. For a
    network of one channel colours become grey, by ITU-R 601-2.
    """
    covering = partial(ImageOps.cover, size=(width, height), method=Image.Resampling.BILINEAR)
    grey = [v2.Grayscale()] if channels == 1 else []
    return v2.Compose([v2.ToPILImage(), covering, v2.CenterCrop([height, width]), *grey, v2.PILToTensor()])


def cutout(image: Tensor, size: int, colour: list[int]) -> Tensor:
    """The picture with a square of `size` pixels filled around a random pixel; what lies outside is cut off.

    Source: arXiv:1708.04552, section 3.2, where the fill is zero after normalisation: the mean colour.
    """
    top, left = (int(torch.randint(side, ())) - size // 2 for side in image.shape[1:])
    rows, columns = (slice(max(0, start), start + size) for start in (top, left))
    image = image.clone()
    image[:, rows, columns] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return image


def _flipped(image: Tensor) -> Tensor:
    """As v2.RandomHorizontalFlip() draws and flips, which takes a twentieth of reading a small picture to dispatch."""
    return image.flip(-1) if torch.rand(1) < 0.5 else image


def _random_resized_crop(image: Tensor, crop: v2.RandomResizedCrop) -> Tensor:
    drawn = crop.make_params([image])
    top, left, height, width = (drawn[name] for name in ("top", "left", "height", "width"))
    return _resize(image[:, top : top + height, left : left + width], crop.size, crop.interpolation)


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


def _cover(image: Any, size: tuple[int, int], mode: v2.InterpolationMode) -> Any:
    """A picture, or one of Pillow's, at the size at which it just covers `size`; rounded down, as torchvision does."""
    (height, width), (tall, wide) = F.get_size(image), size
    by_height = tall * width >= wide * height
    covering = [tall, int(tall * width / height)] if by_height else [int(wide * height / width), wide]
    return _resize(image, covering, mode) if isinstance(image, Tensor) else F.resize(image, covering, mode)


def _resize(image: Tensor, size: list[int], mode: v2.InterpolationMode) -> Tensor:
    """As torchvision does; copying the pixels together first, as (H, W, 3), makes it faster by a third."""
    packed = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    other: Tensor = F.resize(packed, size, interpolation=mode, antialias=True)
    return other
