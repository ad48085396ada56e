"""A data set held in memory, whichever it is."""

import logging
from dataclasses import dataclass

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.batches import Sharding
from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.labels import check_classes
from srp_exp.datasets.memory.memory_reader import MemoryReader
from srp_exp.datasets.split import Split
from srp_exp.errors import UserError

_LOG = logging.getLogger("srp_exp")


@dataclass(frozen=True)
class ImageSet(DataSet):
    """A data set whose images have one size and are held in memory. A subclass reads or makes the splits.

    Raises UserError for classes and labels that `check_classes` refuses, where the padding for a crop is not smaller
    than the image, and where RandAugment or TrivialAugment meets images of neither one nor three channels.
    """

    train: Split
    test: Split
    augmentation: Augmentation

    def __post_init__(self) -> None:
        labels = {name: split.labels.numpy() for name, split in (("train", self.train), ("test", self.test))}
        for note in check_classes(self.class_names, labels, type(self).__name__):
            _LOG.warning("%s", note)
        chosen, side = self.augmentation, min(self.image_size)
        if chosen.crop_padding >= side:
            raise UserError(
                f"dataset.augmentation.crop_padding={chosen.crop_padding}: choose 0 to {side - 1} pixels, "
                f"less than the smaller side of the image"
            )
        if (chosen.rand_augment or chosen.trivial_augment or chosen.color_jitter) and self.channels not in (1, 3):
            raise UserError(
                f"dataset.augmentation: rand_augment, trivial_augment and color_jitter are for 1 or 3 channels, and "
                f"the images have {self.channels}; leave them out"
            )

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        height, width = self.train.images.shape[2:]
        return height, width

    def reader(self, split: Split, placement: Sharding, seed: int | None) -> MemoryReader:
        return MemoryReader(self, split, placement, seed)
