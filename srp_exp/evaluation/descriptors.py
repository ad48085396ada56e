"""How alike the channel descriptors of a network are. Definitions and how to read them: docs/evaluators.md."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from srp_exp.evaluation.attention_calls import AttentionCall, measure_attention
from srp_exp.evaluation.evaluators import Subject

_ZERO = 1e-12
"""Part of the largest squared length below which one counts as zero: what float64 leaves of a constant column."""


def descriptors(subject: Subject) -> dict[str, Any]:
    """Similarity and effective rank of the descriptors, the spatial means of the pooled maps, of every module."""
    return measure_attention(subject, partial(DescriptorMeasure, len(subject.class_names)))


class DescriptorMeasure:
    """Measures of the matrix Z (N, C) of descriptors, one row for each image.

    It is summed up as Z^T Z (C, C) and the sums of the rows by class (classes, C), in float64 on the CPU, so the memory
    doesn't grow with N. Singular values below 1e-6 of the largest count as zero.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._counts = torch.zeros(num_classes, dtype=torch.float64)
        self._gram = self._class_sums = torch.zeros(())

    def add(self, call: AttentionCall, labels: Tensor) -> None:
        z = call.feature_map.float().mean((-2, -1)).flatten(1).cpu().double()
        labels = labels.cpu()
        if self._gram.dim() == 0:
            channels = z.shape[1]
            self._gram = torch.zeros(channels, channels, dtype=torch.float64)
            self._class_sums = torch.zeros(self._num_classes, channels, dtype=torch.float64)
        self._gram += z.T @ z
        self._class_sums.index_add_(0, labels, z)
        self._counts += torch.bincount(labels, minlength=self._num_classes)

    def values(self) -> dict[str, float]:
        present = self._counts > 0
        class_means = self._class_sums[present] / self._counts[present, None]
        sums = self._class_sums.sum(0)
        centred = self._gram - sums[:, None] * sums / self._counts.sum()
        smallest = _ZERO * self._gram.diagonal()  # per channel: what rounding leaves of a constant one
        constant = centred.diagonal() <= smallest
        centred = centred.masked_fill(constant[:, None] | constant, 0)
        return {
            "channel_cosine": mean_cosine(self._gram),
            "channel_correlation": mean_cosine(centred, absolute=True),
            "class_cosine": mean_cosine(class_means @ class_means.T),
            "effective_rank": effective_rank(self._gram),
            "effective_rank_centred": effective_rank(centred),
        }


def mean_cosine(gram: Tensor, *, absolute: bool = False) -> float:
    """Mean cosine, or its absolute value, over the pairs of vectors whose inner products are `gram` (n, n).

    In [-1, 1]. Zero vectors are left out; NaN where fewer than two are left.
    """
    squares = gram.diagonal()
    kept = squares > 0
    count = int(kept.sum())
    if count < 2:
        return float("nan")
    lengths = squares[kept].sqrt()
    cosines = gram[kept][:, kept] / (lengths[:, None] * lengths)
    if absolute:
        cosines = cosines.abs()
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def effective_rank(gram: Tensor) -> float:
    """exp(-sum p ln p), p the singular values of Z over their sum; gram: Z^T Z (C, C). In [1, C]; NaN where Z is 0.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007, definition 1.
    """
    eigenvalues = torch.linalg.eigvalsh(gram)
    eigenvalues = eigenvalues.where(eigenvalues > _ZERO * eigenvalues.max(), 0)  # the rest is rounding
    singular = eigenvalues.clamp(min=0).sqrt()
    p = singular / singular.sum()
    return float(torch.special.entr(p).sum().exp())
