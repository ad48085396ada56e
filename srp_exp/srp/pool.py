"""Pooling over random regions, in training, in place of the global average pooling of one attention module."""

import operator
from typing import Any, NamedTuple, SupportsIndex

import torch
from torch import Tensor

from srp_exp.errors import UserError
from srp_exp.srp.region import (
    PLACEMENTS,
    SHARES,
    RegionPlacement,
    Share,
    Size,
    check_scale,
    corners,
    in_units,
    region_side,
    traced_side,
)
from srp_exp.srp.region_mean import region_mean


class Regions(NamedTuple):
    """Regions of size `sides` in maps of `map_size`: uniform numbers (2, N, k) for their corners, top and left.

    N is the number of images, or 1 where the batch shares a region; k is the number of regions.
    """

    numbers: Tensor
    sides: tuple[Any, Any]
    map_size: Size


class RegionPool:
    """Average pooling of maps (N, C, H, W), or (N, P, C, H, W), over random regions, in training.

    Every call draws its regions from torch's default generator of the map's device. Activation checkpointing restores
    that generator, so a block that is computed again pools over the same regions.

    Args:
        scale: side of the region over the side of the map, in (0, 1]; 1 is the whole map.
        share: "sample" draws regions for every image, "batch" the same for all of the batch.
        regions: number of regions, >= 1, pooled together.
        placement: "corner" inside the map, "wrap" around its edges.

    `scale` is the present one; `last` are the regions of the last call, None where it pooled all of the map.
    """

    def __init__(
        self, scale: float = 1.0, share: Share = "sample", regions: int = 1, placement: RegionPlacement = "corner"
    ) -> None:
        for name, value, choices in (("share", share, SHARES), ("placement", placement, PLACEMENTS)):
            if value not in choices:
                raise UserError(f"{name}={value!r} is not one of {', '.join(choices)}")
        if not isinstance(regions, SupportsIndex):
            raise UserError(f"regions={regions!r} is no whole number: give how many regions are pooled together")
        if regions < 1:
            raise UserError(f"regions={regions} is below 1: at least one region is pooled")
        self.scale = self.final_scale = check_scale(scale)
        self.share, self.regions, self.placement = share, operator.index(regions), placement
        self.is_folded = False
        """Whether maps (C, H, W) of an image follow one another in the batch, as groups do: they share its region."""
        self.images = 0
        """How many images the model was given; 0 where that isn't known, and every map has a region of its own."""
        self.map_size: Size = (1, 1)
        """(H, W) of the map in the example run."""
        self.pools_several = False
        """Whether a step pools several maps with it."""
        self.fixed: Regions | None = None
        """Regions that every call takes instead of drawing."""
        self.version = 0
        """Counts the changes of scale and fixed regions."""
        self.last: Regions | None = None
        self._units: Tensor | None = None  # what compiled code reads: a number would be compiled in

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "last": None}

    def set_ramp(self, weight: float, device: torch.device | str = "cpu") -> None:
        """Move the scale to 1 - (1 - final scale) * `weight`, with `weight` in [0, 1]; no recompilation follows.

        `device` is that of the maps, for compiled code.
        """
        scale = 1 - (1 - self.final_scale) * weight
        if self._units is None or self._units.device != torch.device(device):
            self._units = torch.empty((), dtype=torch.int64, device=device)
        elif scale == self.scale:
            return
        self.scale, self.last, self.version = scale, None, self.version + 1
        self._units.fill_(in_units(scale))

    def fix(self, regions: Regions | None) -> None:
        """Let every call pool over `regions`; None: draw again."""
        self.fixed, self.last, self.version = regions, None, self.version + 1

    def sides(self, map_size: Size) -> Size:
        """(h, w) of a region of the present scale in a map (H, W)."""
        return region_side(self.scale, map_size[0]), region_side(self.scale, map_size[1])

    def draw(self, x: Tensor) -> Regions | None:
        """Regions for the map x (N, ..., H, W); None where all of it is pooled."""
        map_size = (x.shape[-2], x.shape[-1])
        self.last = None
        if torch.compiler.is_compiling() and self._units is not None:
            if self.final_scale == 1 or map_size == (1, 1):
                return None
            sides: Any = (traced_side(self._units, map_size[0]), traced_side(self._units, map_size[1]))
        else:
            sides = self.sides(map_size)
            if sides == map_size:
                return None
        images = 1 if self.share == "batch" else self._images(x)
        if self.fixed is not None:
            numbers = self._fixed_numbers(x, images, sides, map_size)
        else:
            numbers = torch.rand(2, images, self.regions, device=x.device, dtype=torch.float32)
        self.last = Regions(numbers, sides, map_size)
        return self.last

    def pool(self, x: Tensor, regions: Regions) -> Tensor:
        """Mean of x (N, ..., H, W) over the regions, (N, ..., 1, 1)."""
        return region_mean(x, regions.numbers, regions.sides, self.placement)

    def __call__(self, x: Tensor) -> Tensor:
        """Mean over regions, or over all of the map, (N, ..., 1, 1)."""
        regions = self.draw(x)
        return x.mean((-2, -1), keepdim=True) if regions is None else self.pool(x, regions)

    def corners(self, regions: Regions) -> Tensor:
        """Their upper left corners: int64 (N, k, 2), top and left."""
        height, width = (int(side) for side in regions.sides)
        return corners(regions.numbers, (height, width), regions.map_size, self.placement)

    def _images(self, x: Tensor) -> int:
        """Of how many images the map x (N, ..., H, W) is."""
        rows = x.shape[0]
        return self.images if self.is_folded and self.images and rows % self.images == 0 else rows

    def _fixed_numbers(self, x: Tensor, images: int, sides: tuple[Any, Any], map_size: Size) -> Tensor:
        assert self.fixed is not None
        samples = self.fixed.numbers.shape[1]
        is_known = isinstance(sides[0], int)  # not in compiled code whose scale may change
        if map_size != self.fixed.map_size or (is_known and sides != self.fixed.sides) or samples not in (1, images):
            raise UserError(
                f"the regions were fixed for {samples} samples, maps {self.fixed.map_size} and sides "
                f"{self.fixed.sides}, not for maps {tuple(x.shape)} and sides {sides}: call fix_regions(model, None), "
                f"and fix them for these"
            )
        return self.fixed.numbers
