"""Generated images for tests and benchmarks only: no result on them says anything about real data.

What makes a class is a handful of small parts at random places, as fine-grained recognition has them: a
network must find the parts, wherever they are, and tell their patterns apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.memory.image_set import ImageSet
from srp_exp.datasets.split import Split
from srp_exp.errors import UserError
from srp_exp.seeding import generator

# Grey levels, of 255. The parts stand out, but not so far that clipping at 0 and 255 shifts the mean colour.
_BASE, _CLOUD_STD, _GRAIN_STD, _PART_STD = 128.0, 20.0, 12.0, 45.0
_CHUNK = 2000  # images made at a time, which bounds the memory


class Synthetic(ImageSet):
    """A set made from `data_seed`, which is apart from the run's seed: same arguments, same images.

    Every class has `parts_per_class` patterns of its own, coloured textures of part_size x part_size pixels
    whose mean is zero in each channel, so that the mean colour of an image says nothing about its class. An
    image shows each part of its class once, at random contrast in a random cell of a grid (hence without
    overlap) and anywhere in its cell, on a background of random clouds and grain. Sample i has class i mod
    num_classes.

    image_size: (height, width) in pixels. Raises UserError where a split has fewer samples than there are
    classes, and where the parts do not fit into the image.
    """

    def __init__(
        self,
        data_seed: int,
        num_classes: int,
        train_size: int,
        test_size: int,
        image_size: Sequence[int],
        channels: int,
        parts_per_class: int,
        part_size: int,
        augmentation: Augmentation,
    ):
        for name, size in (("train_size", train_size), ("test_size", test_size)):
            if size < num_classes:
                raise UserError(f"dataset.{name}={size}: choose at least {num_classes}, one sample of each class")
        height, width = image_size
        recipe = _Recipe.draw(data_seed, num_classes, (height, width), channels, parts_per_class, part_size)
        super().__init__(
            train=recipe.make_split("train", train_size),
            test=recipe.make_split("test", test_size),
            class_names=tuple(f"class {label}" for label in range(num_classes)),
            mean=(0.5,) * channels,
            std=(0.12,) * channels,
            augmentation=augmentation,
            read_from=(),
        )


@dataclass(frozen=True)
class _Recipe:
    """How images are made.

    parts: (classes, parts, C, S, S) in grey levels. grid: cells a side. cell: (height, width) in pixels.
    """

    data_seed: int
    image_size: tuple[int, int]
    parts: Tensor
    grid: int
    cell: tuple[int, int]

    @classmethod
    def draw(
        cls,
        data_seed: int,
        num_classes: int,
        image_size: tuple[int, int],
        channels: int,
        parts: int,
        part_size: int,
    ) -> "_Recipe":
        """Draw the parts, and choose the coarsest grid that has a cell for each part of an image."""
        height, width = image_size
        grid = math.ceil(math.sqrt(parts))
        cell = (height // grid, width // grid)
        if not 3 <= part_size <= min(cell):
            raise UserError(
                f"dataset.part_size={part_size}: {parts} parts in an image of {height} x {width} pixels "
                f"have cells of {cell[0]} x {cell[1]}; choose 3 pixels to a cell's smaller side"
            )
        source = generator(data_seed, "synthetic parts")
        coarse = (part_size + 1) // 2
        noise = torch.randn(num_classes * parts, channels, coarse, coarse, generator=source)
        textures = F.interpolate(noise, size=(part_size, part_size))
        textures = textures - textures.mean((2, 3), keepdim=True)
        textures = _PART_STD * textures / textures.std((1, 2, 3), keepdim=True)
        return cls(data_seed, image_size, textures.unflatten(0, (num_classes, parts)), grid, cell)

    def make_split(self, name: str, size: int) -> Split:
        """Make `size` images. Chunk by chunk, each from a generator of its own."""
        index = torch.arange(size)
        labels = index % self.parts.shape[0]
        chunks = [
            self._make_images(chunk_labels, generator(self.data_seed, f"synthetic {name}", chunk))
            for chunk, chunk_labels in enumerate(labels.split(_CHUNK))
        ]
        return Split(torch.cat(chunks), labels, index)

    def _make_images(self, labels: Tensor, source: torch.Generator) -> Tensor:
        """(B,) labels to (B, C, H, W) uint8 images."""
        images = self._backgrounds(len(labels), source)
        _, num_parts, _, size, _ = self.parts.shape
        cells = torch.rand(len(labels), self.grid**2, generator=source).argsort(1)[:, :num_parts]
        slack = torch.tensor(self.cell) - size + 1
        jitter = (torch.rand(len(labels), num_parts, 2, generator=source) * slack).long()
        corners = torch.stack((cells // self.grid, cells % self.grid), 2) * torch.tensor(self.cell) + jitter
        contrast = 0.75 + 0.5 * torch.rand(len(labels), num_parts, generator=source)
        patches = self.parts[labels] * contrast[:, :, None, None, None]
        samples, side = torch.arange(len(labels)), torch.arange(size)
        for part in range(num_parts):
            rows = (corners[:, part, :1] + side)[:, :, None]
            columns = (corners[:, part, 1:] + side)[:, None, :]
            # Indexing puts the indexed axes first: (B, S, S, C).
            images[samples[:, None, None], :, rows, columns] += patches[:, part].permute(0, 2, 3, 1)
        return images.round_().clamp_(0, 255).to(torch.uint8)

    def _backgrounds(self, batch: int, source: torch.Generator) -> Tensor:
        """Clouds, interpolated from a coarse grid, plus grain in every pixel, (B, C, H, W) float32."""
        channels, (height, width) = self.parts.shape[2], self.image_size
        coarse = torch.randn(batch, channels, 4, 4, generator=source)
        clouds = F.interpolate(coarse, size=(height, width), mode="bilinear")
        grain = torch.randn(batch, channels, height, width, generator=source)
        return grain.mul_(_GRAIN_STD).add_(clouds, alpha=_CLOUD_STD).add_(_BASE)
