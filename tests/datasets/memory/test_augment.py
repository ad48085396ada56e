"""Crops and flips against a loop over images, for every offset there is; draws against their distribution."""

import itertools
import math

import pytest
import torch

from srp_exp.datasets.memory.augment import crop_and_flip, draw


@pytest.mark.parametrize("channels, height, width, padding", [(3, 4, 5, 2), (1, 3, 2, 1), (2, 1, 6, 3), (3, 4, 4, 0)])
def test_every_offset_and_flip_equals_the_loop(slow_crop_and_flip, channels, height, width, padding):
    positions = range(2 * padding + 1)
    cases = list(itertools.product(positions, positions, (False, True)))
    offsets = torch.tensor([case[:2] for case in cases])
    flips = torch.tensor([case[2] for case in cases])
    source = torch.Generator().manual_seed(0)
    shape = (len(cases), channels, height, width)
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=source)
    untouched = images.clone()
    result = crop_and_flip(images, offsets, flips, padding)
    assert result.dtype == torch.uint8
    assert torch.equal(result, slow_crop_and_flip(images, offsets, flips, padding))
    assert torch.equal(images, untouched)


def test_the_middle_offset_is_the_image_itself():
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    middle = torch.full((2, 2), 2)
    assert torch.equal(crop_and_flip(images, middle, torch.tensor([False, False]), 2), images)


def test_draws_are_uniform():
    num_samples, padding = 50_000, 4
    draws = draw(num_samples, padding, True, seed=0, epoch=0)
    expected = num_samples / 9
    bound = 5 * math.sqrt(expected)  # five standard deviations of a count
    for axis in (0, 1):
        counts = draws.offsets[:, axis].bincount()
        assert len(counts) == 9
        assert (counts - expected).abs().max() < bound
    assert abs(draws.flips.float().mean() - 0.5) < 5 * 0.5 / math.sqrt(num_samples)


def test_draws_depend_on_seed_and_epoch_and_flip_is_a_choice():
    first = draw(100, 4, True, seed=0, epoch=3)
    assert all(map(torch.equal, first, draw(100, 4, True, seed=0, epoch=3)))
    assert not torch.equal(first.offsets, draw(100, 4, True, seed=0, epoch=4).offsets)
    assert not torch.equal(first.offsets, draw(100, 4, True, seed=1, epoch=3).offsets)
    unflipped = draw(100, 4, False, seed=0, epoch=3)
    assert torch.equal(first.offsets, unflipped.offsets)
    assert not unflipped.flips.any()
