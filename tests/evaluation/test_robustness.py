"""Occluded and corrupted images: what is changed, and accuracies by a loop of their own."""

import math

import pytest
import torch
from torch import nn

from srp_exp.datasets import Batch
from srp_exp.evaluation.evaluators import Subject
from srp_exp.evaluation.robustness import blur, lower_contrast, noise, occlude, robustness

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize(("height", "width", "h", "w"), [(8, 6, 4, 3), (5, 5, 3, 3), (1, 4, 1, 2)])
def test_a_square_of_half_the_side_is_hidden_anywhere(height: int, width: int, h: int, w: int) -> None:
    hidden = occlude(torch.zeros(2000, 3, height, width), draws()) == 0.5
    assert (hidden.sum((1, 2, 3)) == 3 * h * w).all()
    tops, lefts = hidden[:, 0].any(2).int().argmax(1), hidden[:, 0].any(1).int().argmax(1)
    places = (height - h + 1) * (width - w + 1)
    counts = torch.bincount(tops * (width - w + 1) + lefts, minlength=places)
    assert len(counts) == places
    spread = math.sqrt(2000 * (1 / places) * (1 - 1 / places))
    assert (counts - 2000 / places).abs().max() <= 5 * spread
    rectangle = hidden[0, 0].nonzero()
    assert ((rectangle.amax(0) - rectangle.amin(0) + 1) == torch.tensor([h, w])).all()


def test_corruptions_have_the_strength_that_they_name() -> None:
    images = torch.rand(4, 3, 32, 32, generator=draws())
    changed = noise(images, draws()) - images
    assert float(changed.std()) == pytest.approx(0.1, rel=0.05)
    assert float(changed.mean()) == pytest.approx(0, abs=0.005)
    weaker = lower_contrast(images, draws())
    assert torch.allclose(weaker.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(weaker.std((1, 2, 3)), images.std((1, 2, 3)) / 3)
    impulse = torch.zeros(1, 1, 31, 31)
    impulse[..., 15, 15] = 1
    spread = blur(nn.functional.pad(impulse, (0, 1, 0, 1)), draws())[0, 0]  # 32 wide: a standard deviation of 1
    distance = torch.arange(32) - 15.0
    assert float((spread.sum(0) * distance**2).sum() / spread.sum()) == pytest.approx(1.0, rel=0.05)


class Centre(nn.Module):
    """Says 1 where the pixel in the middle is bright, in the image before its normalisation."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        images = inputs * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)
        bright = images[:, 0, 4, 4]
        return torch.stack([torch.full_like(bright, 0.75), bright], 1)


def subject(model: nn.Module) -> Subject:
    images = torch.ones(3, 10, 3, 8, 8)
    images[:, ::2] = 0
    normalised = (images - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)
    labels = torch.tensor([0, 1] * 5)
    batches = [Batch(of, labels, torch.arange(10)) for of in normalised]
    return Subject(model, lambda: iter(batches), ("dark", "bright"), torch.autocast("cpu", enabled=False), 5, MEAN, STD)


def test_accuracies_are_those_of_the_changed_images() -> None:
    measured = robustness(subject(Centre()))["summary"]
    assert measured["clean_top1"] == 1.0
    # Half of the images are bright; their middle is hidden under grey in 16 of 25 places, and dark ones stay dark.
    assert 0.5 < measured["occluded_top1"] < 1.0
    assert measured["blur_top1"] == measured["contrast_top1"] == 1.0  # of one colour: they change nothing
    assert measured["noise_top1"] == 1.0
    of_all = [measured[f"{name}_top1"] for name in ("noise", "blur", "contrast")]
    assert measured["corrupted_top1"] == pytest.approx(sum(of_all) / 3)
    assert robustness(subject(Centre()))["summary"] == measured


def test_a_network_that_sees_no_grey_loses_nothing_to_it() -> None:
    class Corner(Centre):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            images = inputs * torch.tensor(STD).view(-1, 1, 1) + torch.tensor(MEAN).view(-1, 1, 1)
            brightest = images.amax((1, 2, 3))
            return torch.stack([torch.full_like(brightest, 0.75), brightest], 1)

    assert robustness(subject(Corner()))["summary"]["occluded_top1"] == 1.0  # a corner is always to be seen
