"""What training needs of a data set: its splits, the facts about them, and the loaders of their batches."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from srp_exp.datasets.batches import Batch, Reader, Sharding, balanced_rows, evaluation_rows, training_rows
from srp_exp.errors import UserError

ALONE = Sharding()


@dataclass(frozen=True)
class DataSet(ABC):
    """An image classification data set, in memory (`ImageSet`) or in files (`FileSet`).

    train, test: the published division, as splits of the set's own kind; val: a validation part, where it brings one.
    class_names: one per label. mean, std: one per
    channel, of the training images, in units of the pixel range [0, 1]. read_from: the files and folders whose change
    may be one of the data; None: they may change at any time.
    """

    train: Any
    test: Any
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Any
    read_from: tuple[str, ...] | None = None
    val: Any = None

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    @abstractmethod
    def channels(self) -> int: ...

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, as the network sees them."""

    @abstractmethod
    def reader(self, split: Any, placement: Sharding, seed: int | None) -> Reader:
        """What reads a split of the set. seed: of the augmentation; None: images as evaluation sees them."""

    def forget(self) -> None:  # noqa: B027  most sets remember nothing
        """Find out anew at the next start what is remembered about the files."""

    def training_batches(
        self, split: Any, batch_size: int, seed: int, placement: Sharding, balanced: bool = False
    ) -> "BatchLoader":
        return BatchLoader(self, split, batch_size=batch_size, seed=seed, placement=placement, balanced=balanced)

    def evaluation_batches(self, split: Any, batch_size: int, placement: Sharding) -> "EvalLoader":
        return EvalLoader(self, split, batch_size=batch_size, placement=placement)


class BatchLoader:
    """Training batches: a new order and new augmentation every epoch, whole batches only.

    The order is a pure function of (seed, epoch), the augmentation of a sample of (seed, epoch, its position in the
    split). `balanced`: an epoch is as many samples, drawn so that all classes are equally likely; some come several
    times, and the augmentation follows from the place in the epoch. `batch_size` counts the images of all processes
    together. Raises UserError where the split is smaller than one batch, and where the processes cannot share a batch
    evenly.
    """

    def __init__(
        self,
        dataset: DataSet,
        split: Any,
        *,
        batch_size: int,
        seed: int,
        placement: Sharding = ALONE,
        balanced: bool = False,
    ):
        size, world_size = len(split), placement.world_size
        if not 1 <= batch_size <= size:
            raise UserError(f"batch size {batch_size}: the training part has {size} samples; choose 1 to {size}")
        if batch_size % world_size:
            raise UserError(f"batch size {batch_size} on {world_size} processes: choose a multiple of {world_size}")
        self.batch_size = batch_size
        self.steps_per_epoch = size // batch_size
        self._num_samples, self._seed, self._placement = size, seed, placement
        self._labels = split.labels if balanced else None
        self._reader = dataset.reader(split, placement, seed)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of steps first_step, first_step + 1, ... of an epoch, as this rank sees them.

        They are those that a full pass over the epoch gives at these steps. One pass at a time. Raises
        CorruptImageError or OSError, with the path, where an image can't be read.
        """
        if self._labels is None:
            steps = training_rows(self._num_samples, self.batch_size, self._seed, epoch)[first_step:]
            return self._reader.batches(epoch, self._own(steps))
        steps = balanced_rows(self._labels, self.batch_size, self._seed, epoch)
        places = torch.arange(len(steps) * self.batch_size).split(self.batch_size)
        return self._reader.batches(epoch, self._own(steps[first_step:]), self._own(places[first_step:]))

    def _own(self, steps: Sequence[Tensor]) -> list[Tensor]:
        """This rank's part of each step."""
        return [rows[self._placement.rank :: self._placement.world_size] for rows in steps]


class EvalLoader:
    """Evaluation batches: every sample once, in the order of the split, without augmentation.

    Who gets which sample: `evaluation_rows`.
    """

    def __init__(self, dataset: DataSet, split: Any, *, batch_size: int, placement: Sharding = ALONE):
        self._rows = evaluation_rows(len(split), batch_size, placement.rank, placement.world_size)
        self._reader = dataset.reader(split, placement, None)

    def __len__(self) -> int:
        """The number of batches of this rank."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        return self._reader.batches(0, self._rows)


AnyDataSet = TypeVar("AnyDataSet", bound=DataSet)


def with_statistics(dataset: AnyDataSet, mean: Sequence[float] | None, std: Sequence[float] | None) -> AnyDataSet:
    """The data set with another mean and standard deviation of its channels; None leaves its own.

    Raises ValueError where the numbers aren't one for each channel, and finite, or a deviation isn't positive.
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
        if not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
            raise UserError(
                f"dataset.{name}={list(values)}: choose finite numbers{', positive ones' * (name == 'std')}"
            )
        vars(changed)[name] = tuple(values)  # a data set is frozen, and made by whichever class
    return changed
