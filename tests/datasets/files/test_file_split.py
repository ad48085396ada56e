"""Splits of files: what belongs together stays together, and a validation part is drawn as from images in memory."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from srp_exp.datasets import Split, hold_out
from srp_exp.datasets.files.file_split import FileSplit
from srp_exp.datasets.files.source import FolderSource

N = 12
SOURCE = FolderSource(Path("nowhere"), [f"{number}.jpg" for number in range(40)])


def make(**changes: Tensor | None) -> FileSplit:
    rows = torch.arange(N) * 3
    parts = {
        "rows": rows,
        "labels": torch.arange(N) % 3,
        "index": rows + 100,
        "boxes": torch.arange(4.0 * N).view(N, 4),
    }
    return FileSplit(SOURCE, **parts | changes, skipped=5)


def test_taking_samples_keeps_everything_with_them() -> None:
    split = make()
    positions = torch.tensor([7, 0, 7])
    taken = split.take(positions)
    assert len(split) == N
    assert len(taken) == 3
    for name in ("rows", "labels", "index", "boxes"):
        assert torch.equal(getattr(taken, name), getattr(split, name)[positions])
    assert taken.source is SOURCE
    assert taken.skipped == 5
    assert make(boxes=None).take(positions).boxes is None


def test_holding_out_draws_the_samples_that_it_draws_in_memory() -> None:
    split = make()
    in_memory = Split(torch.zeros(N, 1, 1, 1, dtype=torch.uint8), split.labels, split.index)
    assert hold_out(split, 0.0, seed=3) == (split, None)
    for part, reference in zip(hold_out(split, 0.25, seed=3), hold_out(in_memory, 0.25, seed=3), strict=True):
        assert part is not None and reference is not None
        assert torch.equal(part.index, reference.index)
        assert torch.equal(part.rows, part.index - 100)


def test_parts_that_do_not_fit_are_refused() -> None:
    for changes, message in (
        ({"labels": torch.zeros(N)}, r"labels of a split: found torch.float32 \(12,\), give torch.int64 \(12,\)"),
        ({"index": torch.arange(N - 1)}, r"index of a split: found torch.int64 \(11,\)"),
        ({"boxes": torch.zeros(N, 3)}, r"boxes of a split: found torch.float32 \(12, 3\), .* \(12, 4\)"),
        ({"rows": torch.arange(N) + 29}, "rows of a split: 29 to 40; choose 0 to 39"),
        ({"rows": torch.arange(N) - 1}, "rows of a split: -1 to 10; choose 0 to 39"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**changes)


def test_a_split_may_be_empty() -> None:
    assert len(make().take(torch.empty(0, dtype=torch.int64))) == 0
