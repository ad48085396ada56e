"""Batches for training and evaluation, cut out of a split that lives on the device as uint8.

There are no worker processes: gathering, augmenting and normalising a batch of small images takes a few
milliseconds on one CPU core and less on a GPU.
"""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.batches import (
    Batch,
    Normalisation,
    Placement,
    check_training_batch,
    evaluation_rows,
    training_rows,
)
from srp_exp.datasets.memory.augment import EpochAugmentation
from srp_exp.datasets.split import Split

ALONE = Placement()


class SmallPictures(Protocol):
    """The facts of a data set that its batches need."""

    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def augmentation(self) -> Augmentation: ...
    @property
    def image_size(self) -> tuple[int, int]: ...


class _DeviceSplit:
    """A split on the device, and the normalisation of its images."""

    def __init__(self, dataset: SmallPictures, split: Split, placement: Placement):
        device = placement.device
        self._images = split.images.to(device)
        self._labels = split.labels.to(device)
        self._index = split.index.to(device)
        self._normalise = Normalisation(dataset.mean, dataset.std, device, placement.memory_format)

    def images(self, rows: Tensor) -> Tensor:
        """The uint8 images at `rows`, (B,) int64 on the device."""
        return self._images.index_select(0, rows)

    def batch(self, images: Tensor, rows: Tensor) -> Batch:
        """Normalise `images`, (B, C, H, W) uint8, and join the labels and indices at `rows`."""
        return Batch(self._normalise(images), self._labels.index_select(0, rows), self._index.index_select(0, rows))


class BatchLoader:
    """Training batches: a new order and new augmentation every epoch, whole batches only.

    The order is a pure function of (seed, epoch), the augmentation of a sample of (seed, epoch, its position
    in the split). `batch_size` counts the images of all processes together. Raises UserError where the split
    is smaller than one batch, and where the processes cannot share a batch evenly.
    """

    def __init__(
        self,
        dataset: SmallPictures,
        split: Split,
        *,
        batch_size: int,
        seed: int,
        placement: Placement = ALONE,
    ):
        check_training_batch(len(split), batch_size, placement.world_size)
        self.batch_size = batch_size
        self.steps_per_epoch = len(split) // batch_size
        self._num_samples = len(split)
        self._settings = dataset.augmentation, dataset.mean, dataset.image_size
        self._seed, self._rank, self._world_size = seed, placement.rank, placement.world_size
        self._device = torch.device(placement.device)
        self._data = _DeviceSplit(dataset, split, placement)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of steps first_step, first_step + 1, ... of an epoch, as this rank sees them.

        The batches are those that a full pass over the epoch gives at these steps.
        """
        steps = training_rows(self._num_samples, self.batch_size, self._seed, epoch)[first_step:]
        if not steps:
            return
        local_size = self.batch_size // self._world_size
        local_rows = torch.cat([rows[self._rank :: self._world_size] for rows in steps])
        augment = EpochAugmentation(*self._settings, self._num_samples, self._seed, epoch, self._device)
        # Transferred here and not in the steps, where it would make a GPU wait for the CPU.
        local_rows_there = local_rows.to(self._device)
        for rows, there in zip(local_rows.split(local_size), local_rows_there.split(local_size), strict=True):
            yield self._data.batch(augment(self._data.images(there), rows, there), there)


class EvalLoader:
    """Evaluation batches: every sample once, in the order of the split, without augmentation.

    Who gets which sample: `evaluation_rows`, which also says what is raised.
    """

    def __init__(
        self,
        dataset: SmallPictures,
        split: Split,
        *,
        batch_size: int,
        placement: Placement = ALONE,
    ):
        rows = evaluation_rows(len(split), batch_size, placement.rank, placement.world_size)
        self._rows = [batch.to(placement.device) for batch in rows]
        self._data = _DeviceSplit(dataset, split, placement)

    def __len__(self) -> int:
        """The number of batches of this rank."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        for rows in self._rows:
            yield self._data.batch(self._data.images(rows), rows)
