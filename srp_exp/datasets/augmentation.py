"""How pictures are varied in training and cut for evaluation: the settings that all data sets share."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from srp_exp.errors import UserError

PictureSize: TypeAlias = int | Sequence[int]
"""Pixels: the side of a square, or height and width."""


def sides(size: PictureSize) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training does to pictures, in this order; evaluation does none of it.

    The settings and their ranges: config/schemas/datasets.py. What is erased gets the mean colour, which is zero after
    normalisation: by random_erasing a rectangle of 2 to 33 % of the area, by cutout a square around a random pixel, so
    that a part of it may lie outside. Raises UserError where both policies are asked for.

    Sources: RandAugment, arXiv:1909.13719; TrivialAugment, arXiv:2103.10158; random erasing, arXiv:1708.04896; Cutout,
    arXiv:1708.04552. Differs from the publications: the mean colour is rounded to a whole level of 255.
    """

    crop_padding: int = 0
    flip: bool = False
    color_jitter: float = 0.0
    rand_augment: int = 0
    trivial_augment: bool = False
    random_erasing: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        self._demand("rand_augment", not (self.rand_augment and self.trivial_augment), "0, or trivial_augment=false")

    def _demand(self, name: str, is_valid: bool, choices: str) -> None:
        if not is_valid:
            raise UserError(f"dataset.augmentation.{name}={getattr(self, name)}: choose {choices}")


@dataclass(frozen=True, kw_only=True)
class FileAugmentation(Augmentation):
    """How pictures of any size become of one: `crop_size` in training, `eval_crop_size` in evaluation.

    crop: `random_resized` (a random part of the area between min_area and 1, of 3/4 to 4/3 times the aspect ratio of
    crop_size), `random` (a random part of that size of the picture that was resized until it covers `resize`) or `pad`
    (the middle of that size of the picture that was resized until it covers it; then crop_padding). eval_crop:
    `center` (the middle of the picture that was resized until it covers `resize`) or `squash` (of the picture that was
    resized to `resize`, whatever its aspect ratio). interpolation: of resizing, `bilinear` or `bicubic`, antialiased.
    """

    crop: str = "random_resized"
    crop_size: PictureSize = 224
    eval_crop_size: PictureSize = 224
    resize: PictureSize = 256
    eval_crop: str = "center"
    interpolation: str = "bilinear"
    min_area: float = 0.08
    flip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_size", "eval_crop_size", "resize"):
            if not isinstance(size := getattr(self, name), int):
                object.__setattr__(self, name, tuple(size))
        fits = self.crop != "random" or self._fits(self.crop_size)
        self._demand("crop_size", fits, f"1 to {self.resize} pixels, those of resize")
        self._demand("eval_crop_size", self._fits(self.eval_crop_size), f"1 to resize={self.resize} pixels")
        self._demand("crop_padding", self.crop == "pad" or not self.crop_padding, "0, or crop=pad")

    def _fits(self, size: PictureSize) -> bool:
        return all(side <= largest for side, largest in zip(sides(size), sides(self.resize), strict=True))

    @property
    def leaves_size(self) -> bool:
        """Whether nothing was chosen that resizes or cuts, so that pictures that all have one size may keep it."""
        chosen: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(Augmentation)}
        chosen |= {"crop": "pad", "resize": 224} if self.crop == "pad" else {}
        return self == FileAugmentation(**chosen)


def mean_colour(mean: tuple[float, ...]) -> list[int]:
    """The mean of the channels, in [0, 1], in levels of 255."""
    return [round(255 * value) for value in mean]
