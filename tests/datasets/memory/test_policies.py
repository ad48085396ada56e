"""Colour jitter and the policies of a batch against torchvision's own transforms, image by image."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.augmentation import Augmentation
from srp_exp.datasets.memory.policies import (
    OPERATIONS,
    Changes,
    Draws,
    brightness,
    contrast,
    draw_jitter,
    draw_policy,
    draws_of,
)
from srp_exp.datasets.memory.policies import saturation as saturate

SIZES = [(32, 32), (28, 28), (17, 40), (5, 7)]
RAND = [Augmentation(rand_augment=magnitude) for magnitude in (1, 9, 14, 30)]
TRIVIAL = Augmentation(trivial_augment=True)


def pictures(count: int, channels: int, size: tuple[int, int]) -> Tensor:
    """Blobs with some grain, and flat ones, in which equalizing and stretching have nothing to do."""
    source = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, channels, 4, 5, generator=source)
    images = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic") * 255
    images += 20 * torch.randn(images.shape, generator=source)
    images[1] = 77
    return images.clamp(0, 255).byte()


def changed(images: Tensor, draws: Draws) -> Tensor:
    """The images, as one group, with their draws."""
    return Changes(draws, torch.arange(len(images)), [len(images)], torch.device("cpu"))(images, 0)


def drawn(augmentation: Augmentation, seed: int = 0, number: int = 64, size: tuple[int, int] = (32, 32)) -> Draws:
    return draws_of(*draw_policy(augmentation, size, number, torch.Generator().manual_seed(seed)), size)


class Recorded:
    """A transform of torchvision that notes which operation it applies with which strength."""

    def __init__(self, augmentation: Augmentation):
        options = {"interpolation": v2.InterpolationMode.BILINEAR}
        self.transform = v2.TrivialAugmentWide(**options)
        if not augmentation.trivial_augment:
            self.transform = v2.RandAugment(1, augmentation.rand_augment, **options)
        self.names = list(self.transform._AUGMENTATION_SPACE)
        self.apply = self.transform._apply_image_or_video_transform
        self.seen: list[tuple[str, float]] = []
        self.transform._apply_image_or_video_transform = self.note

    def note(self, image: Tensor, name: str, magnitude: float, **options: object) -> Tensor:
        self.seen.append((name, magnitude))
        return self.apply(image, name, magnitude, **options)


def strength(name: str, magnitude: float) -> float:
    """What our operations take: factors begin at 1, as torchvision adds it."""
    return magnitude + 1 if name in ("Brightness", "Color", "Contrast", "Sharpness") else magnitude


PAIRS = [*((augmentation, 1 + 2 * (at % 2), SIZES[at]) for at, augmentation in enumerate(RAND)),
         (TRIVIAL, 1, SIZES[0]), (TRIVIAL, 3, SIZES[2]), (RAND[1], 3, SIZES[3]), (RAND[3], 1, SIZES[1])]  # fmt: skip


@pytest.mark.parametrize(("augmentation", "channels", "size"), PAIRS)
def test_every_operation_is_torchvisions_to_one_of_255(augmentation, channels, size) -> None:
    theirs = Recorded(augmentation)
    torch.manual_seed(0)
    images = pictures(300, channels, size)
    expected = torch.stack([theirs.transform(image) for image in images])
    assert {name for name, _ in theirs.seen} == set(theirs.names)
    chosen = torch.tensor([[theirs.names.index(name)] for name, _ in theirs.seen])
    strengths = torch.tensor([[strength(*seen)] for seen in theirs.seen])
    found = changed(images, draws_of(chosen, strengths, size))
    assert found.dtype == torch.uint8
    wrong = (found.int() - expected.int()).abs().flatten(1).max(1).values > 1
    assert not wrong.any(), [seen for seen, is_wrong in zip(theirs.seen, wrong, strict=True) if is_wrong]
    assert (found != expected).float().mean() < 0.02  # halves are rounded up or down


@pytest.mark.parametrize("augmentation", [Augmentation(rand_augment=9), TRIVIAL], ids=["rand", "trivial"])
def test_draws_have_torchvisions_distribution(augmentation) -> None:
    """The same operations and strengths, as often: every pair that it draws and no other, each within five sigma."""
    size, samples = (32, 48), 20_000
    kinds, strengths = draw_policy(augmentation, size, samples, torch.Generator().manual_seed(0))
    assert kinds.shape == strengths.shape == (samples, 1 if augmentation.trivial_augment else 2)
    theirs = Recorded(augmentation)
    theirs.apply = lambda image, *_, **__: image
    torch.manual_seed(0)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for _ in range(6000):
        theirs.transform(image)
    expected = {(name, round(strength(name, magnitude), 4)) for name, magnitude in theirs.seen}
    counts: dict[tuple[str, float], int] = {}
    for kind, value in zip(kinds.flatten().tolist(), strengths.flatten().tolist(), strict=True):
        name = theirs.names[kind]
        if name == "Posterize":
            value = round(value)
        used = 0.0 if name in ("Identity", "AutoContrast", "Equalize") else value
        counts[name, round(used, 4)] = counts.get((name, round(used, 4)), 0) + 1
    assert {name for name, _ in counts} == set(theirs.names)
    for key in expected:
        near = [count for (name, value), count in counts.items() if name == key[0] and abs(value - key[1]) < 2e-4]
        assert near, key
    for name in theirs.names:
        total = sum(count for (other, _), count in counts.items() if other == name)
        mean = kinds.numel() / 14
        assert abs(total - mean) < 5 * math.sqrt(mean), name
        of_both = [sum(c for (n, v), c in counts.items() if n == name and sign * v > 0) for sign in (1, -1)]
        if name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
            assert abs(of_both[0] - of_both[1]) < 5 * math.sqrt(mean), name


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_torchvisions_with_the_same_order_and_factors(channels) -> None:
    images = pictures(60, channels, (32, 32))
    draws = draw_jitter(0.8, 60, torch.Generator().manual_seed(1))
    pairs = ((brightness, F.adjust_brightness), (contrast, F.adjust_contrast), (saturate, F.adjust_saturation))
    theirs = {OPERATIONS.index(ours): other for ours, other in pairs}
    strengths = draws.numbers[..., 0]
    expected = []
    for image, order, factors in zip(images, draws.operations.tolist(), strengths.tolist(), strict=True):
        for which, factor in zip(order, factors, strict=True):
            image = theirs[which](image, factor)
        expected.append(image)
    found = changed(images, draws)
    assert (found.int() - torch.stack(expected).int()).abs().max() <= 3  # one for each of three roundings
    for ours, other in pairs:
        once = torch.stack([other(*each) for each in zip(images, strengths[:, 0].tolist(), strict=True)])
        assert (ours(images, strengths[:, :1, None, None]).int() - once.int()).abs().max() <= 1


def test_jitter_draws_every_order_and_uniform_factors() -> None:
    draws = draw_jitter(0.4, 12_000, torch.Generator().manual_seed(0))
    orders = {tuple(order) for order in draws.operations.tolist()}
    assert len(orders) == 6 and {len(set(order)) for order in orders} == {3}
    strengths = draws.numbers[..., 0]
    assert strengths.min() >= 0.6 and strengths.max() <= 1.4
    counts = strengths.flatten().histc(8, 0.6, 1.4)
    assert (counts - 4500).abs().max() < 5 * 4500**0.5


JITTER = draw_jitter(0.5, 64, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("draws", "sizes"),
    [(drawn(RAND[1]), [1] * 64), (drawn(TRIVIAL), [7] * 9 + [1]), (JITTER, [40, 24]), (JITTER, [1] * 64)],
    ids=["rand 1", "trivial 7", "jitter 40", "jitter 1"],
)
def test_an_image_is_changed_alike_whichever_others_it_is_among(draws, sizes) -> None:
    images = pictures(64, 3, (32, 32))
    whole, untouched = changed(images, draws), images.clone()
    rows = torch.arange(64).flip(0)
    changes = Changes(draws, rows, sizes, torch.device("cpu"))
    parts = [changes(images[part], group) for group, part in enumerate(rows.split(sizes))]
    assert torch.equal(torch.cat(parts), whole[rows])
    assert torch.equal(images, untouched)


def test_draws_are_a_function_of_the_seed() -> None:
    one, same, other = (drawn(TRIVIAL, seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, one, same))
    assert not torch.equal(one.operations, other.operations)
