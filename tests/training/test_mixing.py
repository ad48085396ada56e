"""Every batch that `mixup_or_cutmix` makes is undone: which of the two it was, with which weight, is read off it."""

import math

import pytest
import torch
from torch import Tensor, nn

from srp_exp.training.mixing import mixup_or_cutmix

B, C, H, W = 6, 3, 16, 12


@pytest.fixture
def images() -> Tensor:
    return torch.rand(B, C, H, W, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    """Each image its own class, so that a soft label names both of its images."""
    return torch.arange(B)


def mix(transform: nn.Module, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    mixed, soft = transform(images, labels)
    return mixed, soft


def own_weight(soft: Tensor) -> float:
    """The weight of an image in its own mixture, after a check that the rest is that of the image before it."""
    weight = soft[0, 0].item()
    expected = torch.diag(torch.full((B,), weight))
    expected += torch.diag(torch.full((B,), 1 - weight)).roll(-1, 1)
    torch.testing.assert_close(soft, expected)
    return weight


def cut_area(mixed: Tensor, images: Tensor) -> int | None:
    """Pixels of the rectangle that comes from the image before, the same in all images; None if it isn't CutMix."""
    before = images.roll(1, 0)
    foreign = (mixed == before).all(1) & ~(mixed == images).all(1)  # (B, H, W)
    if not torch.equal(mixed, torch.where(foreign[:, None], before, images)):
        return None
    assert (foreign == foreign[0]).all()
    rows, columns = foreign[0].any(1), foreign[0].any(0)
    assert torch.equal(foreign[0], rows[:, None] & columns[None, :])
    for side in (rows, columns):
        assert int((side.int().diff() == 1).sum()) <= 1  # no gap within a side
    return int(foreign[0].sum())


def test_a_batch_is_mixup_or_cutmix_equally_often(images: Tensor, labels: Tensor) -> None:
    transform = mixup_or_cutmix(mixup_alpha=1.0, cutmix_alpha=1.0, num_classes=B)
    trials, cut = 200, 0
    for seed in range(trials):
        mixed, soft = mix(transform, images, labels, seed)
        weight = own_weight(soft)
        area = cut_area(mixed, images)
        if area is None:
            torch.testing.assert_close(mixed, weight * images + (1 - weight) * images.roll(1, 0))
        else:
            cut += 1
            assert weight == pytest.approx(1 - area / (H * W), abs=1e-6)
    assert abs(cut - trials / 2) < 4.5 * math.sqrt(trials) / 2  # a fair coin: missed once in 150,000 seeds


def test_each_of_the_two_has_its_own_alpha(images: Tensor, labels: Tensor) -> None:
    transform = mixup_or_cutmix(mixup_alpha=1e4, cutmix_alpha=0.1, num_classes=B)
    mixed_weights, cut_weights = [], []
    for seed in range(60):
        mixed, soft = mix(transform, images, labels, seed)
        weights = mixed_weights if cut_area(mixed, images) is None else cut_weights
        weights.append(own_weight(soft))
    std = math.sqrt(1 / (4 * (2 * 1e4 + 1)))  # of Beta(alpha, alpha)
    assert max(abs(weight - 0.5) for weight in mixed_weights) < 6 * std
    assert max(abs(weight - 0.5) for weight in cut_weights) > 0.4


@pytest.mark.parametrize("num_classes", [2, 7])
def test_soft_labels_sum_to_one(num_classes: int, images: Tensor) -> None:
    transform = mixup_or_cutmix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=num_classes)
    for seed in range(20):
        _, soft = mix(transform, images, torch.arange(B) % 2, seed)
        assert soft.shape == (B, num_classes)
        assert (soft >= 0).all()
        torch.testing.assert_close(soft.sum(1), torch.ones(B))
        assert (soft[:, 2:] == 0).all()


def test_the_seed_decides_and_the_inputs_stay(images: Tensor, labels: Tensor) -> None:
    transform = mixup_or_cutmix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=B)
    original = images.clone()
    runs = [[mix(transform, images, labels, seed) for seed in range(10)] for _ in range(2)]
    for (mixed, soft), (other_mixed, other_soft) in zip(*runs, strict=True):
        assert torch.equal(mixed, other_mixed)
        assert torch.equal(soft, other_soft)
    assert not torch.equal(runs[0][0][1], runs[0][1][1])
    assert torch.equal(images, original)
    assert torch.equal(labels, torch.arange(B))
