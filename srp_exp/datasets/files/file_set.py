"""A data set of pictures on disk, whichever it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from srp_exp.datasets.augmentation import FileAugmentation, sides
from srp_exp.datasets.batches import Reader, Sharding
from srp_exp.datasets.data_set import DataSet
from srp_exp.datasets.files.decode import Reading
from srp_exp.datasets.files.file_reader import FileReader
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.memory.memory_reader import MemoryReader
from srp_exp.datasets.split import Split

_SIDE_OF_PADDING = 8  # how many times the padding a side has: 4 of 32 pixels


@dataclass(frozen=True)
class FileSet(DataSet):
    """A data set of files, which are read when needed or held in memory. A subclass finds them.

    Held in memory, pictures keep their size, and `crop` is `pad`: by crop_padding where that was chosen, else by an
    eighth of their side, as CIFAR's are. settings: with which the set was read, as texts. reading: how its
    pictures are.
    """

    train: FileSplit | Split
    test: FileSplit | Split
    augmentation: FileAugmentation
    settings: Mapping[str, str] = field(default_factory=dict)
    reading: Reading = Reading()

    def __post_init__(self) -> None:
        if isinstance(self.train, Split) and self.augmentation.crop != "pad":
            padded = replace(self.augmentation, crop="pad", crop_padding=min(self.image_size) // _SIDE_OF_PADDING)
            object.__setattr__(self, "augmentation", padded)

    @property
    def channels(self) -> int:
        return 3

    @property
    def image_size(self) -> tuple[int, int]:
        if isinstance(self.train, Split):
            height, width = self.train.images.shape[2:]
            return height, width
        return sides(self.augmentation.crop_size)

    def reader(self, split: FileSplit | Split, placement: Sharding, seed: int | None) -> Reader:
        if isinstance(split, Split):
            return MemoryReader(self, split, placement, seed)
        return FileReader(self, split, placement, seed)
