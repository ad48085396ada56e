"""Losses against sums written out, and weights of classes against scikit-learn's."""

import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from srp_exp.training.losses import BinaryCrossEntropy, CrossEntropy, Focal, Loss, balanced

CLASSES = 4
WEIGHT = [0.2, 1.0, 3.0, 0.5]
SMOOTHING = 0.1


def batch(mixed: bool, size: int = 6) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(size, CLASSES, generator=source)
    labels = torch.randint(0, CLASSES, (size,), generator=source)
    soft = torch.eye(CLASSES)[labels]
    return logits, 0.7 * soft + 0.3 * soft.roll(1, 0) if mixed else labels


def rows_of(targets: Tensor) -> list[list[float]]:
    return (torch.eye(CLASSES)[targets] if targets.ndim == 1 else targets).tolist()


def by_hand(kind: str, logits: Tensor, targets: Tensor, weight: list[float]) -> float:
    """The mean over the samples of weight times loss."""
    total = 0.0
    for row, soft in zip(logits.tolist(), rows_of(targets), strict=True):
        smooth = [(1 - SMOOTHING) * value + SMOOTHING / CLASSES for value in soft]
        log_sum = math.log(sum(math.exp(value) for value in row))
        loss = 0.0
        for value, part, hard in zip(row, smooth, soft, strict=True):
            p = 1 / (1 + math.exp(-value))
            if kind == "cross_entropy":
                loss -= part * (value - log_sum)
            elif kind == "bce":
                loss -= part * math.log(p) + (1 - part) * math.log(1 - p)
            elif hard == 1:
                loss -= 0.25 * (1 - p) ** 2 * math.log(p)
            else:
                loss -= 0.75 * p**2 * math.log(1 - p)
        total += loss * sum(w * value for w, value in zip(weight, soft, strict=True))
    return total / len(logits)


@pytest.mark.parametrize(
    ("kind", "mixed", "weight"),
    [
        ("cross_entropy", False, None), ("cross_entropy", True, WEIGHT), ("bce", False, WEIGHT), ("bce", True, None),
        ("focal", False, WEIGHT),
    ],
)  # fmt: skip
def test_a_loss_is_the_mean_of_weighted_losses_of_samples(kind: str, mixed: bool, weight: list[float] | None) -> None:
    logits, targets = batch(mixed)
    weights = None if weight is None else torch.tensor(weight)
    losses: dict[str, Loss] = {
        "cross_entropy": CrossEntropy(weights, SMOOTHING),
        "bce": BinaryCrossEntropy(weight=weights, label_smoothing=SMOOTHING),
        "focal": Focal(weight=weights),
    }
    expected = by_hand(kind, logits, targets, weight or [1.0] * CLASSES)
    assert losses[kind](logits, targets).item() == pytest.approx(expected, rel=1e-5)


def test_a_threshold_makes_labels_of_mixed_ones() -> None:
    logits, mixed = batch(mixed=True)
    above = (mixed > 0.2).float()
    found = BinaryCrossEntropy(target_threshold=0.2)(logits, mixed)
    assert found == BinaryCrossEntropy()(logits, above) != BinaryCrossEntropy()(logits, mixed)


@pytest.mark.parametrize("loss", [CrossEntropy(torch.tensor(WEIGHT)), Focal(weight=torch.tensor(WEIGHT))])
def test_the_parts_of_a_batch_add_up_to_the_whole(loss: Loss) -> None:
    logits, labels = batch(mixed=False)
    parts = [loss(logits[rows], labels[rows]) for rows in torch.arange(6).split(2)]
    torch.testing.assert_close(torch.stack(parts).mean(), loss(logits, labels))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    labels = torch.tensor([0] * 9 + [2] * 3 + [3] * 2)  # none of class 1
    expected = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=labels.numpy())
    weights = balanced(labels, CLASSES)
    np.testing.assert_allclose(weights[[0, 2, 3]], expected, rtol=1e-6)
    assert weights[1] == 1
    assert weights[labels].mean() == pytest.approx(1)
