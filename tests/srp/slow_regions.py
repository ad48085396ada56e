"""Regions and the mean over them position by position: what the fast ways are compared with."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from srp_exp.srp.region import PLACEMENTS, RegionPlacement

Corner = tuple[int, int]
Size = tuple[int, int]

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
placements = pytest.mark.parametrize("placement", PLACEMENTS)


def positions(corner: Corner, region: Size, map_size: Size) -> list[Corner]:
    """The positions of a region, one by one; those beyond the edge come in again at the other side."""
    (top, left), (height, width) = corner, map_size
    inside = []
    for i in range(region[0]):
        for j in range(region[1]):
            row, column = top + i, left + j
            inside.append((row - height if row >= height else row, column - width if column >= width else column))
    return inside


def all_corners(map_size: Size, region: Size, placement: RegionPlacement) -> list[Corner]:
    """Every corner that a region may have: with `corner`, those where it lies inside the map."""
    return [
        (top, left)
        for top in range(map_size[0])
        for left in range(map_size[1])
        if placement == "wrap" or (top + region[0] <= map_size[0] and left + region[1] <= map_size[1])
    ]


def slow_coverage(corners: list[Corner], region: Size, map_size: Size) -> list[list[int]]:
    """How many regions cover each position."""
    counts = [[0] * map_size[1] for _ in range(map_size[0])]
    for corner in corners:
        for row, column in positions(corner, region, map_size):
            counts[row][column] += 1
    return counts


def slow_mean(map_: Tensor, corners: list[Corner], region: Size) -> float:
    """Mean of one channel (H, W) over all regions, position by position; overlaps count twice."""
    size = (map_.shape[0], map_.shape[1])
    values = [Fraction(map_[position].item()) for corner in corners for position in positions(corner, region, size)]
    return float(sum(values) / len(values))


def numbers_of(corner_lists: list[list[Corner]], region: Size, map_size: Size, placement: RegionPlacement) -> Tensor:
    """Uniform numbers (2, M, k) in the middle of those that mean the M lists of k corners."""
    corners = torch.tensor(corner_lists, dtype=torch.float64).movedim(-1, 0)
    ranges = [side if placement == "wrap" else side - r + 1 for side, r in zip(map_size, region, strict=True)]
    return ((corners + 0.5) / torch.tensor(ranges).view(2, 1, 1)).float()
