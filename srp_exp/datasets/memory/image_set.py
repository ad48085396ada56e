"""What every data set held in memory offers: its splits, and the facts that training needs about them."""

from dataclasses import dataclass

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.batches import Placement
from srp_exp.datasets.memory.loader import BatchLoader, EvalLoader
from srp_exp.datasets.split import Split
from srp_exp.errors import UserError


@dataclass(frozen=True)
class ImageSet:
    """An image classification data set. A subclass reads or makes the splits and passes them on.

    train, test: the published division. class_names: one per label. mean, std: one per channel, of the
    training images, in units of the pixel range [0, 1]. read_from: as of `DataSet`.

    Raises UserError where the padding for a crop is not smaller than the image, and where RandAugment or
    TrivialAugment meets images of neither one nor three channels.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    read_from: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
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
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.train.images.shape[2:]
        return height, width

    def training_batches(self, split: Split, batch_size: int, seed: int, placement: Placement) -> BatchLoader:
        return BatchLoader(self, split, batch_size=batch_size, seed=seed, placement=placement)

    def evaluation_batches(self, split: Split, batch_size: int, placement: Placement) -> EvalLoader:
        return EvalLoader(self, split, batch_size=batch_size, placement=placement)
