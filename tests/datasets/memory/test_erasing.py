"""Erased rectangles against a slow loop and torchvision's erase; draws against torchvision's RandomErasing."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from srp_exp.datasets.memory.erasing import draw_cutout, draw_erasing, erase

COLOUR = torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1)


def images(count: int, height: int, width: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randint(4, 256, (count, 3, height, width), dtype=torch.uint8, generator=source)


def test_boxes_are_filled_as_torchvision_fills_them() -> None:
    boxes = torch.tensor([[0, 0, 3, 2], [1, 2, 4, 5], [0, 0, 5, 7], [4, 6, 1, 1], [0, 0, 0, 0]])
    batch = images(5, 5, 7)
    untouched = batch.clone()
    expected = [F.erase(image, *box, COLOUR) for image, box in zip(batch, boxes.tolist(), strict=True)]
    assert torch.equal(erase(batch, boxes, COLOUR), torch.stack(expected))
    assert torch.equal(batch, untouched)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 16])
def test_cutout_around_every_pixel_is_the_loop(side) -> None:
    """As in the publication: a square around the pixel, of which only what lies inside is seen."""
    height, width = 5, 7
    places = [(row, column) for row in range(height) for column in range(width)]
    batch = images(len(places), height, width)
    boxes = torch.tensor([[row - side // 2, column - side // 2, side, side] for row, column in places])
    expected = batch.clone()
    for image, (row, column) in zip(expected, places, strict=True):
        for r in range(height):
            for c in range(width):
                if (
                    row - side // 2 <= r < row - side // 2 + side
                    and column - side // 2 <= c < column - side // 2 + side
                ):
                    image[:, r, c] = COLOUR.flatten()
    assert torch.equal(erase(batch, boxes, COLOUR), expected)


def test_cutout_draws_every_pixel_alike() -> None:
    boxes = draw_cutout(20_000, (4, 5), 8, torch.Generator().manual_seed(0))
    assert (boxes[:, 2:] == 8).all()
    counts = ((boxes[:, 0] + 4) * 5 + boxes[:, 1] + 4).bincount()
    assert len(counts) == 20
    assert (counts - 1000).abs().max() < 5 * 1000**0.5


@pytest.mark.parametrize("size", [(32, 32), (28, 20), (8, 64)])
def test_erasing_draws_as_torchvision_does(size) -> None:
    """Each quantity's distribution, compared by Kolmogorov and Smirnov at 1e-4: 2.2 times the root of 2 / n."""
    count = 4000
    boxes = draw_erasing(count, size, 1.0, torch.Generator().manual_seed(0))
    theirs = v2.RandomErasing(1.0)
    torch.manual_seed(0)
    drawn = [theirs.make_params([torch.zeros(3, *size)]) for _ in range(count)]
    other = torch.tensor([[d["i"], d["j"], d["h"], d["w"]] if d["v"] is not None else [0] * 4 for d in drawn])
    for which in range(4):
        values = torch.arange(-1, 65)
        ours_, theirs_ = ((boxes_[:, which, None] <= values).float().mean(0) for boxes_ in (boxes, other))
        assert (ours_ - theirs_).abs().max() < 2.2 * (2 / count) ** 0.5, which
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor(size)).all()


def test_erasing_happens_as_often_as_asked() -> None:
    boxes = draw_erasing(20_000, (32, 32), 0.25, torch.Generator().manual_seed(0))
    erased = (boxes[:, 2] > 0).sum()
    assert abs(erased - 5000) < 5 * (20_000 * 0.25 * 0.75) ** 0.5
