"""Where attention goes into a network: at the end of each residual branch, or in place of a 3x3 convolution."""

from dataclasses import dataclass
from typing import Protocol

from torch import nn

from srp_exp.backbones.layers import convolution
from srp_exp.errors import UserError


class AttentionFactory(Protocol):
    """Makes attention for the end of a residual branch: what `_target_` of conf/attention/ names, with its settings."""

    def __call__(self, channels: int, /) -> nn.Module:
        """A module that maps (B, C, H, W) to (B, C, H, W), C being `channels`; called once for each branch."""


class ConvFactory(Protocol):
    """Makes attention that stands in for a 3x3 convolution: the same, where `replaces_conv` is true."""

    def __call__(self, in_channels: int, out_channels: int, /, *, stride: int, groups: int) -> nn.Module:
        """A module that maps (B, in, H, W) to (B, out, ceil(H/stride), ceil(W/stride)), normalised and activated."""


class BackboneFactory(Protocol):
    """Makes a network: what `_target_` of conf/backbone/ names, a function or a class, with its settings besides."""

    def __call__(
        self, *, attention: AttentionFactory | None, conv: ConvFactory | None, num_classes: int, in_channels: int
    ) -> nn.Module:
        """A network that maps images (B, in_channels, H, W) to logits (B, num_classes).

        attention, conv: at most one of them is given; `Placement` puts either into a block.
        """


@dataclass(frozen=True)
class Placement:
    """The attention of one network, handed to every block.

    ``attention`` scales the output of a residual branch (SE, ECA, CBAM, ...); ``conv`` replaces a 3x3
    convolution by one with attention, normalisation and activation of its own (SK, split attention).

    Raises ValueError when both are given.
    """

    attention: AttentionFactory | None = None
    conv: ConvFactory | None = None

    def __post_init__(self) -> None:
        if self.attention is not None and self.conv is not None:
            raise UserError("attention and conv are both set: a network takes one of them, not both")

    @property
    def replaces_conv(self) -> bool:
        """Whether ``conv3x3`` gives a module that ends in its own normalisation and activation."""
        return self.conv is not None

    def branch_end(self, channels: int) -> nn.Module:
        """Attention over ``channels`` for the end of a branch; the identity where there is none."""
        return nn.Identity() if self.attention is None else self.attention(channels)

    def conv3x3(self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Module:
        """The 3x3 convolution that ``conv`` may replace; padding 1, no bias."""
        if self.conv is None:
            return convolution(in_channels, out_channels, kernel_size=3, stride=stride, groups=groups)
        replacement: nn.Module = self.conv(in_channels, out_channels, stride=stride, groups=groups)
        return replacement
