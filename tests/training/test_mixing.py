"""Every batch that `MixUpOrCutMix` makes is undone: which of the two it was, with which weight, is read off it; and
the parts that N processes mix are those of the whole."""

import math

import pytest
import scipy.stats
import torch
from torch import Tensor
from torchvision.transforms import v2

from srp_exp.training.mixing import CutMix, Mix, MixUp, MixUpOrCutMix

B, C, H, W = 6, 3, 16, 12


@pytest.fixture
def images() -> Tensor:
    return torch.rand(B, C, H, W, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> Tensor:
    """Each image its own class, so that a soft label names both of its images."""
    return torch.arange(B)


def mix(transform: Mix, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    return transform(images, labels, seed)


def own_weight(soft: Tensor) -> float:
    """The weight of an image in its own mixture, after a check that the rest is that of the image half a batch away."""
    weight = soft[0, 0].item()
    expected = torch.diag(torch.full((B,), weight))
    expected += torch.diag(torch.full((B,), 1 - weight)).roll(B // 2, 1)
    torch.testing.assert_close(soft, expected)
    return weight


def cut_area(mixed: Tensor, images: Tensor) -> int | None:
    """Pixels of the rectangle that comes from its partner, the same in all images; None if it isn't CutMix."""
    partner = images.roll(B // 2, 0)
    foreign = (mixed == partner).all(1) & ~(mixed == images).all(1)  # (B, H, W)
    if not torch.equal(mixed, torch.where(foreign[:, None], partner, images)):
        return None
    assert (foreign == foreign[0]).all()
    rows, columns = foreign[0].any(1), foreign[0].any(0)
    assert torch.equal(foreign[0], rows[:, None] & columns[None, :])
    for side in (rows, columns):
        assert int((side.int().diff() == 1).sum()) <= 1  # no gap within a side
    return int(foreign[0].sum())


def test_a_batch_is_mixup_or_cutmix_equally_often(images: Tensor, labels: Tensor) -> None:
    transform = MixUpOrCutMix(mixup_alpha=1.0, cutmix_alpha=1.0, num_classes=B)
    trials, cut = 200, 0
    for seed in range(trials):
        mixed, soft = mix(transform, images, labels, seed)
        weight = own_weight(soft)
        area = cut_area(mixed, images)
        if area is None:
            torch.testing.assert_close(mixed, weight * images + (1 - weight) * images.roll(B // 2, 0))
        else:
            cut += 1
            assert weight == pytest.approx(1 - area / (H * W), abs=1e-6)
    assert abs(cut - trials / 2) < 4.5 * math.sqrt(trials) / 2  # a fair coin: missed once in 150,000 seeds


def test_each_of_the_two_has_its_own_alpha(images: Tensor, labels: Tensor) -> None:
    transform = MixUpOrCutMix(mixup_alpha=1e4, cutmix_alpha=0.1, num_classes=B)
    mixed_weights, cut_weights = [], []
    for seed in range(60):
        mixed, soft = mix(transform, images, labels, seed)
        weights = mixed_weights if cut_area(mixed, images) is None else cut_weights
        weights.append(own_weight(soft))
    std = math.sqrt(1 / (4 * (2 * 1e4 + 1)))  # of Beta(alpha, alpha)
    assert max(abs(weight - 0.5) for weight in mixed_weights) < 6 * std
    assert max(abs(weight - 0.5) for weight in cut_weights) > 0.4


def test_soft_labels_sum_to_one(images: Tensor) -> None:
    num_classes = 7
    transform = MixUpOrCutMix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=num_classes)
    for seed in range(20):
        _, soft = mix(transform, images, torch.arange(B) % 2, seed)
        assert soft.shape == (B, num_classes)
        assert (soft >= 0).all()
        torch.testing.assert_close(soft.sum(1), torch.ones(B))
        assert (soft[:, 2:] == 0).all()


def test_the_seed_decides_and_the_inputs_stay(images: Tensor, labels: Tensor) -> None:
    transform = MixUpOrCutMix(mixup_alpha=0.4, cutmix_alpha=1.0, num_classes=B)
    original = images.clone()
    runs = [[mix(transform, images, labels, seed) for seed in range(10)] for _ in range(2)]
    for (mixed, soft), (other_mixed, other_soft) in zip(*runs, strict=True):
        assert torch.equal(mixed, other_mixed)
        assert torch.equal(soft, other_soft)
    assert not torch.equal(runs[0][0][1], runs[0][1][1])
    assert torch.equal(images, original)
    assert torch.equal(labels, torch.arange(B))
    state = torch.get_rng_state()
    mix(transform, images, labels, 0)
    assert torch.equal(torch.get_rng_state(), state)  # which regions and dropout draw from


EACH = {
    "mixup": MixUp(0.4, B), "cutmix": CutMix(1.0, B), "either": MixUpOrCutMix(0.4, 1.0, B),
}  # fmt: skip


@pytest.mark.parametrize("name", EACH)
def test_the_parts_that_processes_mix_are_those_of_the_whole(name: str, images: Tensor, labels: Tensor) -> None:
    processes = 3
    for seed in range(10):
        mixed, soft = EACH[name](images, labels, seed)
        for rank in range(processes):
            rows = slice(rank, None, processes)
            own_mixed, own_soft = EACH[name](images[rows], labels[rows], seed)
            assert torch.equal(own_mixed, mixed[rows])
            assert torch.equal(own_soft, soft[rows])


@pytest.mark.parametrize(("make", "alpha"), [(MixUp, 0.2), (CutMix, 1.0)])
def test_two_images_are_mixed_as_torchvision_mixes_them(make: type[MixUp] | type[CutMix], alpha: float) -> None:
    """Its neighbours are our partners in a batch of two; it is given the share, or the box, that was drawn."""
    pair, labels = torch.rand(2, C, H, W, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0])
    for seed in range(20):
        mixed, soft = make(alpha, 3)(pair, labels, seed)
        share = soft[0, 2].item()
        params = {"labels": labels, "batch_size": 2, "lam": share, "lam_adjusted": share}
        if make is CutMix:
            foreign = (mixed != pair).any(0).any(0).nonzero()  # (positions, 2)
            low, high = (foreign.amin(0), foreign.amax(0) + 1) if len(foreign) else (torch.zeros(2).int(),) * 2
            params["box"] = (int(low[1]), int(low[0]), int(high[1]), int(high[0]))
        theirs = (v2.MixUp if make is MixUp else v2.CutMix)(alpha=alpha, num_classes=3)
        torch.testing.assert_close(theirs.transform(pair, params), mixed)
        torch.testing.assert_close(theirs.transform(labels, params), soft)


def test_the_shares_are_drawn_from_a_beta_distribution(images: Tensor, labels: Tensor) -> None:
    shares = [mix(MixUp(0.5, B), images, labels, seed)[1][0, 0].item() for seed in range(400)]
    assert scipy.stats.kstest(shares, scipy.stats.beta(0.5, 0.5).cdf).pvalue > 1e-4
    areas = [mix(CutMix(2.0, B), torch.rand(B, 1, 64, 64), labels, seed)[1][0, 0].item() for seed in range(400)]
    assert all(0 <= area <= 1 for area in areas)
    assert min(areas) < 0.3 < 0.9 < max(areas)


def test_the_layout_in_memory_stays(images: Tensor, labels: Tensor) -> None:
    last = images.to(memory_format=torch.channels_last)
    for transform in EACH.values():
        for seed in range(4):
            mixed, _ = transform(last, labels, seed)
            assert mixed.is_contiguous(memory_format=torch.channels_last)
