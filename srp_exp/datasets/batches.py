"""What the loaders share: batches, who sees which samples in which order, and the normalisation of images.

On N processes rank r takes rows r, r + N, r + 2N, ... of each global batch, so that together they see the very
batches that a single process sees.
"""

import copy
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from srp_exp.errors import UserError
from srp_exp.seeding import generator


@dataclass(frozen=True)
class Batch:
    """images: (B, C, H, W) float32, normalised. labels, index: (B,) int64. All on the loader's device."""

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class Placement:
    """Where batches go and who shares the work.

    rank, world_size: of the processes that train together. workers: processes that read files, 0 for the process
    itself; sets held in memory need none.
    """

    device: torch.device | str = "cpu"
    memory_format: torch.memory_format = torch.contiguous_format
    rank: int = 0
    world_size: int = 1
    workers: int = 0


class TrainingBatches(Protocol):
    """Whole batches, the same for the same epoch. One pass over an epoch at a time."""

    steps_per_epoch: int

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of steps first_step, first_step + 1, ... of an epoch, as this rank sees them."""


class DataSet(Protocol):
    """What training needs of a data set, in memory (`ImageSet`) or in files (`FileSet`).

    train, test: splits of the set's own kind, which its methods take. mean, std: one per channel. read_from: the files
    and folders whose change may be one of the data; None: they may change at any time.
    """

    @property
    def train(self) -> Any: ...
    @property
    def test(self) -> Any: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def mean(self) -> tuple[float, ...]: ...
    @property
    def std(self) -> tuple[float, ...]: ...
    @property
    def read_from(self) -> tuple[str, ...] | None: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def image_size(self) -> tuple[int, int]: ...

    def training_batches(self, split: Any, batch_size: int, seed: int, placement: Placement) -> TrainingBatches: ...
    def evaluation_batches(self, split: Any, batch_size: int, placement: Placement) -> Iterable[Batch]: ...


class Normalisation:
    """Maps uint8 images to (pixel / 255 - mean) / std, on the device they are on.

    mean, std: one per channel, in units of the pixel range [0, 1].
    """

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: torch.device | str,
        memory_format: torch.memory_format,
    ):
        self._memory_format = memory_format
        means, stds = (torch.tensor(values, dtype=torch.float64) for values in (mean, std))
        self._scale = (1 / (255 * stds)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-means / stds).float().view(1, -1, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 to float32 of the memory format."""
        pixels = images.to(torch.float32, memory_format=self._memory_format)
        return torch.addcmul(self._shift, pixels, self._scale, out=pixels)


def check_training_batch(num_samples: int, batch_size: int, world_size: int) -> None:
    """Raise UserError where the split is smaller than one batch or the processes can't share a batch evenly."""
    if not 1 <= batch_size <= num_samples:
        raise UserError(
            f"batch size {batch_size}: the training part has {num_samples} samples; choose 1 to {num_samples}"
        )
    if batch_size % world_size:
        raise UserError(f"batch size {batch_size} on {world_size} processes: choose a multiple of {world_size}")


def training_rows(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The rows of every whole global batch of an epoch, (B,) int64 each: a pure function of (seed, epoch)."""
    order = torch.randperm(num_samples, generator=generator(seed, "order", epoch))
    return list(order[: num_samples // batch_size * batch_size].split(batch_size))


def evaluation_rows(num_samples: int, batch_size: int, rank: int, world_size: int) -> list[Tensor]:
    """The rows of a rank's batches, (B,) int64 each: of all batches, every sample once and in order, each N-th.

    Whole batches go to one rank, so that every sample is computed among the same others, and to the same bits,
    whatever the number of processes. The last batch may be smaller, and ranks may differ by one batch.
    """
    return list(torch.arange(num_samples).split(batch_size)[rank::world_size])


def digests_of(dataset: DataSet) -> dict[str, str]:
    """A digest of each part of the data, by a name for messages, such as "training labels"."""
    found = {"class names": hashlib.sha256("\0".join(dataset.class_names).encode()).hexdigest()}
    for name, split in (("training", dataset.train), ("test", dataset.test)):
        found |= {f"{name} {part}": value for part, value in split.digests().items()}
    return found


AnyDataSet = TypeVar("AnyDataSet", bound=DataSet)


def with_statistics(dataset: AnyDataSet, mean: Sequence[float] | None, std: Sequence[float] | None) -> AnyDataSet:
    """The data set with another mean and standard deviation of its channels; None leaves its own.

    Raises ValueError where the numbers aren't one for each channel, or a deviation isn't positive.
    """
    changed = copy.copy(dataset)
    for name, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        if len(values) != dataset.channels:
            raise UserError(
                f"dataset.{name}={list(values)}: the images have {dataset.channels} channels; give a number for each, "
                f"or dataset.{name}=null for the set's own"
            )
        if name == "std" and min(values) <= 0:
            raise UserError(f"dataset.std={list(values)}: choose positive numbers")
        vars(changed)[name] = tuple(values)  # a data set is frozen, and made by whichever class
    return changed
