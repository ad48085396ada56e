"""Sums over the steps of an epoch: loss, correct answers and samples, of one process and of all."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Totals:
    """Sums over the steps of an epoch, kept on the device: `values` holds those named in NAMES."""

    NAMES = ("loss", "correct", "samples", "bad_step")
    """Summed loss, correct answers, samples, and 1 + the first step whose loss isn't finite (0: none)."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(len(self.NAMES), device=device)
        self.of_ranks: Tensor | None = None

    def add(self, loss: Tensor, logits: Tensor, target: Tensor, step: int) -> None:
        """Add a part of a batch: its mean loss, logits (B, classes), labels (B,) or soft labels (B, classes)."""
        labels = target if target.ndim == 1 else target.argmax(1)
        samples = len(labels)
        correct = (logits.argmax(1) == labels).sum()
        first_bad = torch.where((self.values[3] == 0) & ~loss.isfinite(), step + 1.0, self.values[3])
        self.values[:3] += torch.stack([loss * samples, correct, torch.full_like(loss, samples)])
        self.values[3] = first_bad

    def read(self) -> dict[str, float]:
        """The values of this process, as numbers: waits for the device."""
        return dict(zip(self.NAMES, self.values.tolist(), strict=True))

    def zero_(self) -> None:
        self.values.zero_()
        self.of_ranks = None

    @classmethod
    def join(cls, of_ranks: Sequence[Sequence[float]]) -> dict[str, float]:
        """The values of all processes, given those of each: summed, of `bad_step` the lowest that isn't 0."""
        loss, correct, samples, bad_steps = zip(*of_ranks, strict=True)
        joined = (sum(loss), sum(correct), sum(samples), min((step for step in bad_steps if step), default=0.0))
        return dict(zip(cls.NAMES, joined, strict=True))

    def state(self) -> Tensor:
        """(processes, values): of each process, as it was when they last told each other."""
        return (self.values[None] if self.of_ranks is None else self.of_ranks).clone()

    def load(self, state: Tensor, rank: int, size: int) -> None:
        """Resume from `state`; if the number of processes is different, rank 0 has the sums of all."""
        if len(state) != size:
            joined = torch.tensor([*self.join(state.tolist()).values()])
            state = torch.stack([joined, *torch.zeros(size - 1, len(joined))])
        self.values.copy_(state[rank])
        self.of_ranks = None if size == 1 else state.to(self.values.device)
