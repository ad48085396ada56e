"""The validation part is the same fraction of every class, and together with the rest it is the whole."""

import pytest
import torch

from srp_exp.datasets import Split, hold_out


def numbered_split(counts: list[int]) -> Split:
    """`counts[c]` samples of class c, in mixed order; a sample's pixel and its index are its number."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    numbers = torch.arange(len(labels))
    return Split(numbers.to(torch.uint8).view(-1, 1, 1, 1), labels, numbers)


def test_each_class_gives_its_fraction_and_no_sample_is_lost():
    split = numbered_split([40, 20, 30])
    train, val = hold_out(split, 0.25, seed=0)
    assert val is not None
    assert val.labels.bincount().tolist() == [10, 5, 8]  # 30 * 0.25 = 7.5 is rounded up
    assert sorted(train.index.tolist() + val.index.tolist()) == list(range(90))
    for part in (train, val):
        assert torch.equal(part.images.flatten().long(), part.index)
        assert torch.equal(part.labels, split.labels[part.index])
        assert torch.equal(part.index, part.index.sort().values)


def test_the_part_depends_on_the_seed_alone():
    split = numbered_split([50, 50])
    parts = [hold_out(split, 0.2, seed)[1].index.tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]


def test_zero_holds_out_nothing():
    split = numbered_split([2, 2])
    assert hold_out(split, 0.0, seed=0) == (split, None)


def test_a_fraction_outside_the_range_is_refused():
    for fraction in (-0.1, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=rf"dataset.val_fraction={fraction}: .*\[0, 1\)"):
            hold_out(numbered_split([2, 2]), fraction, seed=0)


def test_a_class_too_small_for_both_parts_is_refused():
    for fraction, taken in ((0.1, 0), (0.9, 3)):
        with pytest.raises(ValueError, match=f"takes {taken} of the 3 training samples of class 1"):
            hold_out(numbered_split([20, 3]), fraction, seed=0)


def test_a_split_of_wrong_types_or_lengths_is_refused():
    images, numbers = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3)
    with pytest.raises(ValueError, match="images of a split: found torch.float32"):
        Split(images.float(), numbers, numbers)
    with pytest.raises(ValueError, match=r"labels of a split: .* give int64 \(3,\)"):
        Split(images, torch.arange(4), numbers)
    with pytest.raises(ValueError, match="index of a split: found torch.int32"):
        Split(images, numbers, numbers.int())
