"""A part of a data set, and how a validation part is taken out of it."""

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from srp_exp.errors import UserError
from srp_exp.seeding import generator


class Samples(Protocol):
    """What dividing a split needs of it, whether its images are in memory or in files. labels: (N,) int64."""

    @property
    def labels(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def take(self, positions: Tensor) -> Self: ...


AnySplit = TypeVar("AnySplit", bound=Samples)


@dataclass(frozen=True)
class Split:
    """Images with their labels, in memory on the CPU.

    images: (N, C, H, W) uint8. labels: (N,) int64. index: (N,) int64, which sample of the original set each
    one is; it stays with the sample when the split is divided. Raises ValueError where the lengths or the
    types differ.
    """

    images: Tensor
    labels: Tensor
    index: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise UserError(
                f"images of a split: found {self.images.dtype} {tuple(self.images.shape)}, give uint8 (N, C, H, W)"
            )
        for name, tensor in (("labels", self.labels), ("index", self.index)):
            if tensor.dtype != torch.int64 or tensor.shape != (len(self),):
                raise UserError(
                    f"{name} of a split: found {tensor.dtype} {tuple(tensor.shape)}, give int64 ({len(self)},)"
                )

    def __len__(self) -> int:
        return self.images.shape[0]

    def take(self, positions: Tensor) -> "Split":
        """The samples at `positions`, (M,) int64, in that order."""
        return Split(self.images[positions], self.labels[positions], self.index[positions])


def hold_out(split: AnySplit, val_fraction: float, seed: int) -> tuple[AnySplit, AnySplit | None]:
    """Divide a training split into a training and a validation part, the same fraction of every class.

    Of a class of n samples floor(n * val_fraction + 0.5) go to validation, drawn at random from `seed`; both
    parts keep the order of the split. val_fraction = 0 returns (split, None). Raises ValueError where
    val_fraction is outside [0, 1), and where a class would have no sample in one of the parts.
    """
    if not 0 <= val_fraction < 1:
        raise UserError(f"dataset.val_fraction={val_fraction}: choose a fraction in [0, 1)")
    if val_fraction == 0:
        return split, None
    held_out = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique().tolist():
        members = (split.labels == label).nonzero().squeeze(1)
        size, val_size = len(members), int(len(members) * val_fraction + 0.5)
        if not 0 < val_size < size:
            raise UserError(
                f"dataset.val_fraction={val_fraction}: takes {val_size} of the {size} training samples "
                f"of class {label}; choose a fraction that leaves at least one sample in each part"
            )
        shuffled = torch.randperm(size, generator=generator(seed, "validation", label))
        held_out[members[shuffled[:val_size]]] = True
    return split.take((~held_out).nonzero().squeeze(1)), split.take(held_out.nonzero().squeeze(1))
