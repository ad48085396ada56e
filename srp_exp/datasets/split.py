"""A part of a data set, and how a validation part is taken out of it."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from srp_exp.datasets.files.source import ImageSource
from srp_exp.errors import UserError
from srp_exp.seeding import generator


def digest(*tensors: Tensor) -> str:
    """SHA-256 of the values."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().data)
    return found.hexdigest()


class Samples(Protocol):
    """What dividing a split needs of it, whether its images are in memory or in files. labels: (N,) int64."""

    @property
    def labels(self) -> Tensor: ...
    def __len__(self) -> int: ...
    def take(self, positions: Tensor) -> Self: ...


AnySplit = TypeVar("AnySplit", bound=Samples)


def parts_at(split: Samples, positions: Tensor) -> dict[str, Any]:
    """The samples at `positions` of every tensor of a split, by its name."""
    return {name: part[positions] for name, part in vars(split).items() if isinstance(part, Tensor)}


@dataclass(frozen=True)
class Split:
    """Images with their labels, in memory on the CPU.

    images: (N, C, H, W) uint8. labels: (N,) int64. index: (N,) int64, which sample of the original set each
    one is; it stays with the sample when the split is divided. skipped: how many samples were left out as corrupt; None
    where that can't be. source, rows: where the images were read from, as of FileSplit; None: not from files of their
    own. Raises UserError where the lengths or the types differ.
    """

    images: Tensor
    labels: Tensor
    index: Tensor
    skipped: int | None = None
    source: ImageSource | None = None
    rows: Tensor | None = None

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

    def digests(self, without: str | None = None) -> dict[str, str]:
        """What changes when the pictures do, and when labels or the order do; `without` is for splits of files."""
        return {"pictures": digest(self.images), "labels": digest(self.labels, self.index)}

    def take(self, positions: Tensor) -> "Split":
        """The samples at `positions`, (M,) int64, in that order."""
        return replace(self, **parts_at(self, positions))


def file_names(split: Any) -> list[str] | None:
    """Where each sample of a split was read from, in its order; None where they aren't pictures in files."""
    source, rows = (getattr(split, name, None) for name in ("source", "rows"))
    return None if source is None or rows is None else [source.name(row) for row in rows.tolist()]


def hold_out(
    split: AnySplit, val_fraction: float, seed: int, class_names: Sequence[str] = ()
) -> tuple[AnySplit, AnySplit | None]:
    """Divide a training split into a training and a validation part, the same fraction of every class.

    Both parts keep the order of the split. val_fraction = 0 returns (split, None). Raises UserError as `held_out`.
    """
    if val_fraction == 0:
        return split, None
    is_held_out = held_out(split.labels, val_fraction, seed, "val", class_names)
    return split.take((~is_held_out).nonzero().squeeze(1)), split.take(is_held_out.nonzero().squeeze(1))


def held_out(labels: Tensor, fraction: float, seed: int, part: str, class_names: Sequence[str] = ()) -> Tensor:
    """Which samples go to the `part` that is held out, "val" or "test", (N,) bool. labels: (N,) int64.

    Of a class of n samples floor(n * fraction + 0.5), drawn at random from `seed`. class_names: for messages. Raises
    UserError where the fraction is outside [0, 1), and where a class would have no sample in one of the parts.
    """
    if not 0 <= fraction < 1:
        raise UserError(f"dataset.{part}_fraction={fraction}: choose a fraction in [0, 1)")

    def taken(label: int, size: int) -> int:
        count = int(size * fraction + 0.5)
        if 0 < count < size:
            return count
        name = class_names[label] if class_names else label
        remedy = "choose a fraction that leaves" if size > 1 else "add pictures to it, or remove it: it has to leave"
        raise UserError(
            f"dataset.{part}_fraction={fraction}: takes {count} of the {size} training samples of class {name}; "
            f"{remedy} at least one sample in each part"
        )

    return drawn(labels, seed, "validation" if part == "val" else part, taken)


def drawn(labels: Tensor, seed: int, purpose: str, count: Callable[[int, int], int]) -> Tensor:
    """Which samples are drawn from `seed`, (N,) bool: of each label and its size as many as `count` says."""
    is_drawn = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        shuffled = members[torch.randperm(len(members), generator=generator(seed, purpose, label))]
        is_drawn[shuffled[: count(label, len(members))]] = True
    return is_drawn
