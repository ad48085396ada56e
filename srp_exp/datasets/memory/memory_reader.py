"""Batches cut out of a split that lives on the device as uint8.

There are no worker processes: gathering, augmenting and normalising a batch of small images takes a few
milliseconds on one CPU core and less on a GPU.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from srp_exp.datasets.batches import Batch, Normalisation, Placement
from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.memory.augment import EpochAugmentation
from srp_exp.datasets.split import Split


class MemoryReader:
    """Reads a split in memory. seed: of its augmentation; None: there is none."""

    def __init__(self, dataset: DataSet, split: Split, placement: Placement, seed: int | None):
        self._device = torch.device(placement.device)
        self._images, self._labels, self._index = (
            values.to(self._device) for values in (split.images, split.labels, split.index)
        )
        self._normalise = Normalisation(dataset.mean, dataset.std, self._device, placement.memory_format)
        self._settings = dataset.augmentation, dataset.mean, dataset.image_size, len(split)
        self._seed = seed

    def batches(self, epoch: int, steps: list[Tensor]) -> Iterator[Batch]:
        if not steps:
            return
        augment = None
        if self._seed is not None:
            augment = EpochAugmentation(*self._settings, self._seed, epoch, self._device)
        # Transferred here and not in the steps, where it would make a GPU wait for the CPU.
        steps_there = torch.cat(steps).to(self._device).split([len(rows) for rows in steps])
        for rows, there in zip(steps, steps_there, strict=True):
            images = self._images.index_select(0, there)
            if augment is not None:
                images = augment(images, rows, there)
            labels, index = self._labels.index_select(0, there), self._index.index_select(0, there)
            yield Batch(self._normalise(images), labels, index)
