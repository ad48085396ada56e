"""Batches for training and evaluation, cut out of a split that lives on the device as uint8.

There are no worker processes: gathering, augmenting and normalising a batch of small images takes a few
milliseconds on one CPU core and less on a GPU. On N processes rank r takes rows r, r + N, r + 2N, ... of each
global batch, so that together they see the very batches that a single process sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from srp_exp.datasets.augment import crop_and_flip, draw
from srp_exp.datasets.image_set import ImageSet
from srp_exp.datasets.split import Split
from srp_exp.seeding import generator


@dataclass(frozen=True)
class Batch:
    """images: (B, C, H, W) float32, normalised. labels, index: (B,) int64. All on the loader's device."""

    images: Tensor
    labels: Tensor
    index: Tensor


class _DeviceSplit:
    """A split on the device, and the normalisation of its images to (pixel / 255 - mean) / std."""

    def __init__(self, dataset: ImageSet, split: Split, device: torch.device | str, memory_format: torch.memory_format):
        self._images = split.images.to(device)
        self._labels = split.labels.to(device)
        self._index = split.index.to(device)
        self._memory_format = memory_format
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (dataset.mean, dataset.std))
        self._scale = (1 / (255 * std)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-mean / std).float().view(1, -1, 1, 1).to(device)

    def images(self, rows: Tensor) -> Tensor:
        """The uint8 images at `rows`, (B,) int64 on the device."""
        return self._images.index_select(0, rows)

    def batch(self, images: Tensor, rows: Tensor) -> Batch:
        """Normalise `images`, (B, C, H, W) uint8, and join the labels and indices at `rows`."""
        pixels = images.to(torch.float32, memory_format=self._memory_format)
        normalised = torch.addcmul(self._shift, pixels, self._scale)
        return Batch(normalised, self._labels.index_select(0, rows), self._index.index_select(0, rows))


class BatchLoader:
    """Training batches: a new order and new augmentation every epoch, whole batches only.

    The order is a pure function of (seed, epoch), the augmentation of a sample of (seed, epoch, its position
    in the split). `batch_size` counts the images of all processes together. Raises ValueError where the split
    is smaller than one batch, and where the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        dataset: ImageSet,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not 1 <= batch_size <= len(split):
            raise ValueError(
                f"batch size {batch_size}: the training part has {len(split)} samples; choose 1 to {len(split)}"
            )
        if batch_size % world_size:
            raise ValueError(f"batch size {batch_size} on {world_size} processes: choose a multiple of {world_size}")
        self.batch_size = batch_size
        self.steps_per_epoch = len(split) // batch_size
        self._num_samples = len(split)
        self._padding, self._flip = dataset.crop_padding, dataset.flip
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._device = torch.device(device)
        self._data = _DeviceSplit(dataset, split, device, memory_format)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of steps first_step, first_step + 1, ... of an epoch, as this rank sees them.

        The batches are those that a full pass over the epoch gives at these steps.
        """
        # Transfers happen here and not in the steps, where they would make a GPU wait for the CPU.
        source = generator(self._seed, "order", epoch)
        order = torch.randperm(self._num_samples, generator=source).to(self._device)
        draws = draw(self._num_samples, self._padding, self._flip, self._seed, epoch)
        offsets, flips = draws.offsets.to(self._device), draws.flips.to(self._device)
        augments = self._padding > 0 or self._flip
        for step in range(first_step, self.steps_per_epoch):
            global_rows = order[step * self.batch_size : (step + 1) * self.batch_size]
            rows = global_rows[self._rank :: self._world_size]
            images = self._data.images(rows)
            if augments:
                images = crop_and_flip(images, offsets[rows], flips[rows], self._padding)
            yield self._data.batch(images, rows)


class EvalLoader:
    """Evaluation batches: every sample once, in the order of the split, without augmentation.

    `batch_size` counts the images of all processes together. The last batch may be smaller, and no rank gets
    a sample twice: ranks may differ by one sample a batch, and a rank skips a last batch in which it has
    none.
    """

    def __init__(
        self,
        dataset: ImageSet,
        split: Split,
        *,
        batch_size: int,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
        rank: int = 0,
        world_size: int = 1,
    ):
        if batch_size < world_size:
            raise ValueError(f"evaluation batch size {batch_size}: choose at least {world_size}, one per process")
        positions = torch.arange(len(split), device=device)
        shards = (rows[rank::world_size] for rows in positions.split(batch_size))
        self._rows = [rows for rows in shards if len(rows)]
        self._data = _DeviceSplit(dataset, split, device, memory_format)

    def __len__(self) -> int:
        """The number of batches of this rank."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._rows:
            yield self._data.batch(self._data.images(rows), rows)
