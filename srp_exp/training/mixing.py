"""Mixing of images within a batch, by torchvision's transforms."""

from torch import nn
from torchvision.transforms import v2


def mixup_or_cutmix(*, mixup_alpha: float, cutmix_alpha: float, num_classes: int) -> nn.Module:
    """For each batch MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899), equally likely."""
    choices = [
        v2.MixUp(alpha=mixup_alpha, num_classes=num_classes),
        v2.CutMix(alpha=cutmix_alpha, num_classes=num_classes),
    ]
    transform: nn.Module = v2.RandomChoice(choices)
    return transform
