"""What every data set read from files offers: its splits, and the facts that training needs about them."""

from dataclasses import dataclass

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.batches import Placement
from srp_exp.datasets.files.file_loader import FileBatchLoader, FileEvalLoader
from srp_exp.datasets.files.file_split import FileSplit


@dataclass(frozen=True)
class FileSet:
    """An image classification data set too large for memory. A subclass finds the files and passes them on.

    train, test: the published division. class_names: one per label. mean, std: one per channel, in units of the
    pixel range [0, 1].
    """

    train: FileSplit
    test: FileSplit
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: FileAugmentation

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, as the network sees them."""
        return self.augmentation.crop_size, self.augmentation.crop_size

    def training_batches(self, split: FileSplit, batch_size: int, seed: int, placement: Placement) -> FileBatchLoader:
        return FileBatchLoader(self, split, batch_size=batch_size, seed=seed, placement=placement)

    def evaluation_batches(self, split: FileSplit, batch_size: int, placement: Placement) -> FileEvalLoader:
        return FileEvalLoader(self, split, batch_size=batch_size, placement=placement)
