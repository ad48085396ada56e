"""What every data set of pictures on disk offers: its splits, and the facts that training needs about them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from srp_exp.datasets.augmentation import FileAugmentation
from srp_exp.datasets.batches import Batch, Placement, TrainingBatches
from srp_exp.datasets.files.file_loader import FileBatchLoader, FileEvalLoader
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.memory.loader import BatchLoader, EvalLoader
from srp_exp.datasets.split import Split

_SIDE_OF_PADDING = 8  # how many times the padding a side has: 4 of 32 pixels


@dataclass(frozen=True)
class FileSet:
    """An image classification data set of files. A subclass finds them and passes them on.

    train, test: the published division, read when needed or held in memory. class_names: one per label. mean, std: one
    per channel, in units of the pixel range [0, 1]. read_from: as of `DataSet`.

    Held in memory, pictures keep their size, and `crop` is `pad`: by crop_padding where that was chosen, else by an
    eighth of their side, as CIFAR's are.
    """

    train: FileSplit | Split
    test: FileSplit | Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: FileAugmentation
    read_from: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.train, Split) and self.augmentation.crop != "pad":
            padded = replace(self.augmentation, crop="pad", crop_padding=min(self.image_size) // _SIDE_OF_PADDING)
            object.__setattr__(self, "augmentation", padded)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def channels(self) -> int:
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, as the network sees them."""
        if isinstance(self.train, Split):
            height, width = self.train.images.shape[2:]
            return height, width
        return self.augmentation.crop_size, self.augmentation.crop_size

    def training_batches(
        self, split: FileSplit | Split, batch_size: int, seed: int, placement: Placement
    ) -> TrainingBatches:
        if isinstance(split, Split):
            return BatchLoader(self, split, batch_size=batch_size, seed=seed, placement=placement)
        return FileBatchLoader(self, split, batch_size=batch_size, seed=seed, placement=placement)

    def evaluation_batches(self, split: FileSplit | Split, batch_size: int, placement: Placement) -> Iterable[Batch]:
        if isinstance(split, Split):
            return EvalLoader(self, split, batch_size=batch_size, placement=placement)
        return FileEvalLoader(self, split, batch_size=batch_size, placement=placement)
