"""Rectangles of a batch filled with one colour: random erasing (arXiv:1708.04896) and Cutout (arXiv:1708.04552)."""

import math

import torch
from torch import Tensor

_AREA, _RATIO = (0.02, 0.33), (0.3, 3.3)  # of torchvision's RandomErasing; parts of the area, height over width
_ATTEMPTS = 10


def erase(images: Tensor, boxes: Tensor, colour: Tensor) -> Tensor:
    """Fill boxes, (B, 4) int64, top, left, height and width, of (B, C, H, W) with `colour`, (C, 1, 1).

    The part of a box outside its image is ignored.
    """
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
    top, left, height, width = boxes[:, :, None].unbind(1)
    in_rows, in_columns = (rows >= top) & (rows < top + height), (columns >= left) & (columns < left + width)
    return torch.where(in_rows[:, None, :, None] & in_columns[:, None, None, :], colour, images)


def draw_erasing(num_samples: int, size: tuple[int, int], probability: float, source: torch.Generator) -> Tensor:
    """Boxes (N, 4) as torchvision's RandomErasing draws them: the first of ten that fits; (0, 0, 0, 0) for none."""
    shape = (num_samples, _ATTEMPTS)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=source, dtype=torch.float64)

    area = math.prod(size) * uniform(*_AREA)
    ratio = uniform(*(math.log(bound) for bound in _RATIO)).exp()
    sides = torch.stack([(area * ratio).sqrt().round(), (area / ratio).sqrt().round()], 2)
    fits = (sides < torch.tensor(size)).all(2)
    first = fits.int().argmax(1)
    chosen = sides[torch.arange(num_samples), first]
    corners = torch.rand(num_samples, 2, generator=source, dtype=torch.float64) * (torch.tensor(size) - chosen + 1)
    is_erased = fits.any(1) & (torch.rand(num_samples, generator=source) < probability)
    return torch.cat([corners.floor(), chosen], 1).long() * is_erased[:, None]


def draw_cutout(num_samples: int, size: tuple[int, int], side: int, source: torch.Generator) -> Tensor:
    """Squares (N, 4) around uniformly drawn pixels, from `side` // 2 above and left of them on."""
    centres = torch.stack([torch.randint(length, (num_samples,), generator=source) for length in size], 1)
    return torch.cat([centres - side // 2, torch.full((num_samples, 2), side)], 1)
