"""What reading a split shares: batches, who sees which samples in which order, and the normalisation of images.

On N processes rank r takes rows r, r + N, r + 2N, ... of each global batch, so that together they see the very
batches that a single process sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from srp_exp.seeding import generator


@dataclass(frozen=True)
class Batch:
    """images: (B, C, H, W) float32, normalised. labels, index: (B,) int64. All on the loader's device."""

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class Sharding:
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


class Reader(Protocol):
    """Turns rows of a split into batches on the device, as they are seen in an epoch."""

    def batches(self, epoch: int, steps: list[Tensor], draws: list[Tensor] | None = None) -> Iterator[Batch]:
        """A batch for each of `steps`, (B,) int64 rows.

        draws: for each of these which of the epoch's draws of augmentation, of as many as the split has samples, the
        sample gets; None: that of its row, which a sample that is seen once has for itself.
        """


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


def training_rows(num_samples: int, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The rows of every whole global batch of an epoch, (B,) int64 each: a pure function of (seed, epoch)."""
    order = torch.randperm(num_samples, generator=generator(seed, "order", epoch))
    return list(order[: num_samples // batch_size * batch_size].split(batch_size))


def balanced_rows(labels: Tensor, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """As `training_rows` of N samples, drawn with replacement, so that all classes of `labels`, (N,), are equally
    likely: what torch's WeightedRandomSampler draws.
    """
    likely = 1 / labels.bincount().double()[labels]
    order = torch.multinomial(likely, len(labels), replacement=True, generator=generator(seed, "order", epoch))
    return list(order[: len(labels) // batch_size * batch_size].split(batch_size))


def evaluation_rows(num_samples: int, batch_size: int, rank: int, world_size: int) -> list[Tensor]:
    """The rows of a rank's batches, (B,) int64 each: of all batches, every sample once and in order, each N-th.

    Whole batches go to one rank, so that every sample is computed among the same others, and to the same bits,
    whatever the number of processes. The last batch may be smaller, and ranks may differ by one batch.
    """
    return list(torch.arange(num_samples).split(batch_size)[rank::world_size])
