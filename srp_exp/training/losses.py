"""Losses: cross-entropy, and sums over the classes of a binary one for each.

A weight belongs to a sample, that of its class: the loss is the mean over the samples of weight times loss. So the
parts of a batch, and the batches of N processes, add up to that of the whole. Differs from torch's cross_entropy, which
divides by the sum of the weights in the batch that it is given.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from timm.loss.binary_cross_entropy import BinaryCrossEntropy as TimmBinaryCrossEntropy
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from srp_exp.errors import UserError


class Loss(Protocol):
    """Maps logits (B, classes), and labels (B,) or soft labels (B, classes), to the mean loss of the batch.

    A class of conf/loss/ is made with `weight` (classes,) and `label_smoothing` where the recipe sets them.
    """

    def __call__(self, logits: Tensor, targets: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class CrossEntropy:
    """weight: (classes,), of each class; None: all count alike. label_smoothing: part that goes to all classes."""

    weight: Tensor | None = None
    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.weight is None:
            return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        losses = F.cross_entropy(logits, targets, reduction="none", label_smoothing=self.label_smoothing)
        return _mean(losses, self.weight, targets)


@dataclass(frozen=True, eq=False)
class BinaryCrossEntropy:
    """target_threshold: of the label, smoothed or mixed, above which it is 1, and else 0; None: it stays as it is."""

    target_threshold: float | None = None
    weight: Tensor | None = None
    label_smoothing: float = 0.0

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        soft = soft_labels(targets, logits.shape[1])
        soft = soft * (1 - self.label_smoothing) + self.label_smoothing / logits.shape[1]
        loss = TimmBinaryCrossEntropy(0.0, self.target_threshold, reduction="none")
        return _mean(loss(logits.float(), soft).sum(1), self.weight, targets)


@dataclass(frozen=True, eq=False)
class Focal:
    """gamma: how little easy answers count. alpha: weight of a sample's own class, 1 - alpha of the others; None: 1.

    Takes labels, no soft ones, of which the publication has none.
    """

    gamma: float = 2.0
    alpha: float | None = 0.25
    weight: Tensor | None = None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if targets.ndim > 1:
            raise UserError("the focal loss is defined for labels of one class")
        labels = soft_labels(targets, logits.shape[1])
        alpha = -1 if self.alpha is None else self.alpha
        losses = sigmoid_focal_loss(logits.float(), labels, alpha, self.gamma)
        return _mean(losses.sum(1), self.weight, targets)


def balanced(labels: Tensor, num_classes: int) -> Tensor:
    """Weights (classes,) float32 that make all classes of `labels` (N,) count alike, and 1 on the average of samples.

    N / (classes that have samples * samples of the class), as scikit-learn's "balanced"; 1 for a class without any.
    """
    counts = labels.bincount(minlength=num_classes)
    weights = len(labels) / ((counts > 0).sum() * counts)
    return torch.where(counts > 0, weights, 1.0)


def soft_labels(targets: Tensor, num_classes: int) -> Tensor:
    """Labels (B,) as (B, classes) float32; soft ones as they are. Nothing waits for the device."""
    if targets.ndim > 1:
        return targets
    return torch.zeros(len(targets), num_classes, device=targets.device).scatter_(1, targets[:, None], 1.0)


def _mean(losses: Tensor, weight: Tensor | None, targets: Tensor) -> Tensor:
    """The mean of `losses` (B,) times the weights of the samples; a mixed one has the mean of its classes'."""
    if weight is not None:
        losses = losses * (weight[targets] if targets.ndim == 1 else targets @ weight)
    return losses.mean()
