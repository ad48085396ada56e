"""How often a network is right on occluded and on corrupted images. How to read it: docs/evaluators.md."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from srp_exp.evaluation.evaluators import Subject
from srp_exp.seeding import generator

OCCLUDED = 0.5
"""Side of the square that is hidden over the side of the image: a quarter of its area."""

Change = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch (B, C, H, W) of images in [0, 1]; draws from the generator, on the CPU, what it needs."""


def occlude(images: Tensor, draws: torch.Generator) -> Tensor:
    """Hide a square of each image, placed uniformly, under grey; after Zeiler and Fergus, arXiv:1311.2901, figure 7."""
    count, _, height, width = images.shape
    h, w = (max(1, int(OCCLUDED * side + 0.5)) for side in (height, width))
    top = torch.randint(height - h + 1, (count, 1), generator=draws)
    left = torch.randint(width - w + 1, (count, 1), generator=draws)
    rows, columns = torch.arange(height), torch.arange(width)
    inside = ((rows >= top) & (rows < top + h))[:, :, None] & ((columns >= left) & (columns < left + w))[:, None]
    return images.masked_fill(inside[:, None].to(images.device), 0.5)


def noise(images: Tensor, draws: torch.Generator) -> Tensor:
    """Gaussian noise of standard deviation 0.1."""
    return images + 0.1 * torch.randn(images.shape, generator=draws).to(images)


def blur(images: Tensor, draws: torch.Generator) -> Tensor:
    """A Gaussian blur whose standard deviation is a thirty-second of the shorter side."""
    sigma = min(images.shape[-2:]) / 32
    blurred: Tensor = F.gaussian_blur(images, [2 * int(3 * sigma) + 1] * 2, [sigma] * 2)
    return blurred


def lower_contrast(images: Tensor, draws: torch.Generator) -> Tensor:
    """A third of the contrast."""
    grey = images.mean((-3, -2, -1), keepdim=True)
    return grey + (images - grey) / 3


CORRUPTIONS: dict[str, Change] = {"noise": noise, "blur": blur, "contrast": lower_contrast}
"""One of each kind (noise, blur, digital) of Hendrycks and Dietterich, arXiv:1903.12261; the strengths are ours."""


@torch.no_grad()
def robustness(subject: Subject) -> dict[str, Any]:
    """Top-1 accuracies: of the images as they are, occluded, with each corruption, and the mean of the corruptions."""
    changes: dict[str, Change] = {"clean": lambda images, _: images, "occluded": occlude, **CORRUPTIONS}
    right, count = {name: torch.zeros((), dtype=torch.int64) for name in changes}, 0
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (subject.mean, subject.std))
    for step, batch in enumerate(subject.batches()):
        inputs, labels = batch.images, batch.labels
        mean, std = mean.to(inputs), std.to(inputs)
        images = inputs * std + mean
        count += len(labels)
        for number, (name, change) in enumerate(changes.items()):
            changed = change(images, generator(subject.seed, "robustness", step, number))
            with subject.autocast:
                logits = subject.model((changed.clamp(0, 1) - mean) / std if name != "clean" else inputs)
            right[name] = (logits.argmax(1) == labels).sum() + right[name]
    accuracies = {f"{name}_top1": int(hits) / count for name, hits in right.items()}
    corrupted = sum(accuracies[f"{name}_top1"] for name in CORRUPTIONS) / len(CORRUPTIONS)
    return {"summary": {**accuracies, "corrupted_top1": corrupted}}
