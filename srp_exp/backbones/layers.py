"""The parts that all small-image networks share: convolution, shortcuts, the frame, the depth rule."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srp_exp.errors import UserError


def convolution(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias, "same" padding, weights drawn from N(0, 2 / (k*k*out_channels)).

    That is the initialisation of He et al., arXiv:1502.01852 section 2.2, in its backward form, as in the
    published code of ResNet, pre-activation ResNet, WRN, ResNeXt and DenseNet.
    """
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


class ZeroPadShortcut(nn.Module):
    """Shortcut without parameters: every ``stride``-th pixel, zeros in the added channels.

    Option A of He et al., arXiv:1512.03385, section 3.3 and 4.2. (B, C, H, W) -> (B, C', ceil(H/s), ceil(W/s)).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.added_channels = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added_channels))


class SmallImageNet(nn.Module):
    """The frame of every small-image network: stem, stages, head, global average, linear classifier.

    Maps images (B, in_channels, H, W), H and W at least 8 pixels, to logits (B, num_classes).
    Raises ValueError when ``num_classes`` is below 1.
    """

    def __init__(
        self, stem: nn.Module, stages: Iterable[nn.Module], head: nn.Module, features: int, num_classes: int
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes)
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head
        self.classifier = nn.Linear(features, num_classes)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        features = self.head(self.stages(self.stem(images)))
        logits: Tensor = self.classifier(torch.mean(features, dim=(2, 3)))
        return logits


def blocks_per_stage(network: str, depth: int, layers_per_step: int, other_layers: int) -> int:
    """n in depth = layers_per_step * n + other_layers: how many blocks each of the three stages has.

    Raises ValueError, naming the nearest valid depths, when no n >= 1 fits.
    """
    blocks, rest = divmod(depth - other_layers, layers_per_step)
    if blocks >= 1 and rest == 0:
        return blocks
    below = max(blocks, 1) * layers_per_step + other_layers
    nearest = f"{below}" if blocks < 1 else f"{below} or {below + layers_per_step}"
    rule = f"{layers_per_step}n+{other_layers}"
    raise UserError(f"depth {depth}: the depth of a {network} is {rule}, n >= 1; nearest: {nearest}")


def require_at_least(minimum: int, **values: int) -> None:
    """Raise ValueError that names the first of ``values`` below ``minimum``."""
    for name, value in values.items():
        if value < minimum:
            raise UserError(f"{name} is {value}: it must be at least {minimum}")


def require_probability(**values: float) -> None:
    """Raise ValueError that names the first of ``values`` outside [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UserError(f"{name} is {value}: it must be in [0, 1)")
