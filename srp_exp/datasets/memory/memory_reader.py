"""Batches cut out of a split that lives on the device as uint8.

There are no worker processes: gathering, augmenting and normalising a batch of small images takes a few
milliseconds on one CPU core and less on a GPU.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from srp_exp.datasets.batches import Batch, Normalisation, Sharding
from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.memory.augment import EpochAugmentation
from srp_exp.datasets.split import Split

_BYTES_TOGETHER = 2**25
"""Of uint8 pixels that are augmented at once on a GPU; some of them are float32 meanwhile."""


class MemoryReader:
    """Reads a split in memory. seed: of its augmentation; None: there is none."""

    def __init__(self, dataset: DataSet, split: Split, placement: Sharding, seed: int | None):
        self._device = torch.device(placement.device)
        self._images, self._labels, self._index = (
            values.to(self._device) for values in (split.images, split.labels, split.index)
        )
        self._normalise = Normalisation(dataset.mean, dataset.std, self._device, placement.memory_format)
        self._settings = dataset.augmentation, dataset.mean, dataset.image_size, len(split)
        self._seed = seed

    def batches(self, epoch: int, steps: list[Tensor], draws: list[Tensor] | None = None) -> Iterator[Batch]:
        if not steps:
            return
        together = self.batches_together(len(steps[0]))
        groups = [steps[start : start + together] for start in range(0, len(steps), together)]
        # Transferred here and not in the steps, where it would make a GPU wait for the CPU.
        sizes = [sum(map(len, group)) for group in groups]
        rows_of = torch.cat(steps).to(self._device).split(sizes)
        draws_of = rows_of if draws is None else torch.cat(draws).to(self._device).split(sizes)
        augment = None
        if self._seed is not None:
            in_groups = list(torch.cat(steps if draws is None else draws).split(sizes))
            augment = EpochAugmentation(*self._settings, self._seed, epoch, in_groups, self._device)
        for number, (group, rows, drawn) in enumerate(zip(groups, rows_of, draws_of, strict=True)):
            images = self._images.index_select(0, rows)
            if augment is not None:
                images = augment(images, drawn, number)
            labels, index = self._labels.index_select(0, rows), self._index.index_select(0, rows)
            parts = (values.split([len(step) for step in group]) for values in (images, labels, index))
            for of_step, *others in zip(*parts, strict=True):
                yield Batch(self._normalise(of_step), *others)

    def batches_together(self, batch_size: int) -> int:
        """How many batches are cut out and augmented at once: several where a GPU is bound by launches."""
        if self._device.type == "cpu":
            return 1  # a batch stays in the cache
        return max(1, _BYTES_TOGETHER // (batch_size * self._images[0].numel()))
