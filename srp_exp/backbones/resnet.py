"""Residual networks for small images (ResNet-20 ... 110), activation after the addition.

Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2 and table 6.
Attention stands at the end of each residual branch, after the last batch norm and before the addition
(Hu et al., arXiv:1709.01507, figure 3). A convolution with attention replaces the last 3x3 of a basic
block (its batch norm stays: a branch must be able to be negative) and the 3x3 of a bottleneck (whose own
norm and ReLU it brings along, as in SKNet and ResNeSt).

Differs from the publication: none known. ``bottleneck`` and ``shortcut=project`` are not in its section 4.2;
they build the ResNet-164 and the option-B networks of other publications.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor, nn

from srp_exp.backbones.layers import (
    SmallImageNet,
    ZeroPadShortcut,
    blocks_per_stage,
    convolution,
    require_at_least,
)
from srp_exp.backbones.placement import AttentionFactory, ConvFactory, Placement
from srp_exp.errors import UserError

ShortcutKind = Literal["pad", "project"]


class ResidualUnit(nn.Module):
    """relu(attention(branch(x)) + shortcut(x)). (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, branch: nn.Module, attention: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.attention = attention
        self.shortcut = shortcut
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.attention(self.branch(x)) + self.shortcut(x))
        return out


def basic_branch(in_channels: int, channels: int, stride: int, placement: Placement) -> nn.Sequential:
    """Two 3x3 convolutions, the first with the stride (arXiv:1512.03385, figure 5 left)."""
    return nn.Sequential(
        OrderedDict(
            conv1=convolution(in_channels, channels, kernel_size=3, stride=stride),
            norm1=nn.BatchNorm2d(channels),
            relu1=nn.ReLU(inplace=True),
            conv2=placement.conv3x3(channels, channels),
            norm2=nn.BatchNorm2d(channels),
        )
    )


def bottleneck_branch(
    in_channels: int, inner: int, channels: int, stride: int, placement: Placement, groups: int = 1
) -> nn.Sequential:
    """1x1 down to ``inner``, 3x3 with the stride and ``groups``, 1x1 up to ``channels``."""
    layers: dict[str, nn.Module] = OrderedDict(
        conv1=convolution(in_channels, inner, kernel_size=1),
        norm1=nn.BatchNorm2d(inner),
        relu1=nn.ReLU(inplace=True),
        conv2=placement.conv3x3(inner, inner, stride=stride, groups=groups),
    )
    if not placement.replaces_conv:
        layers.update(norm2=nn.BatchNorm2d(inner), relu2=nn.ReLU(inplace=True))
    layers.update(conv3=convolution(inner, channels, kernel_size=1), norm3=nn.BatchNorm2d(channels))
    return nn.Sequential(OrderedDict(layers))


def make_shortcut(kind: ShortcutKind, in_channels: int, channels: int, stride: int) -> nn.Module:
    """Identity where the shapes agree, else zero padding (``pad``) or a 1x1 convolution with batch norm.

    Raises ValueError when ``kind`` is neither ``pad`` nor ``project``.
    """
    if kind not in ("pad", "project"):
        raise UserError(f"shortcut is {kind!r}: it must be 'pad' or 'project'")
    if in_channels == channels and stride == 1:
        return nn.Identity()
    if kind == "pad":
        return ZeroPadShortcut(in_channels, channels, stride)
    conv = convolution(in_channels, channels, kernel_size=1, stride=stride)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(channels)))


def stem(in_channels: int, channels: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU: (B, in_channels, H, W) -> (B, channels, H, W)."""
    conv = convolution(in_channels, channels, kernel_size=3)
    norm = nn.BatchNorm2d(channels)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm, relu=nn.ReLU(inplace=True)))


def unit_shapes(stem_channels: int, stage_channels: Sequence[int], blocks: int) -> Iterator[list[tuple[int, int, int]]]:
    """Per stage, (in_channels, out_channels, stride) of each unit; every stage but the first halves the map."""
    in_channels = stem_channels
    for stage, channels in enumerate(stage_channels):
        first_stride = 1 if stage == 0 else 2
        yield [(in_channels, channels, first_stride)] + [(channels, channels, 1)] * (blocks - 1)
        in_channels = channels


def build(
    depth: int,
    width: int = 1,
    bottleneck: bool = False,
    shortcut: ShortcutKind = "pad",
    *,
    attention: AttentionFactory | None = None,
    conv: ConvFactory | None = None,
    num_classes: int,
    in_channels: int,
) -> SmallImageNet:
    """A ResNet of ``depth`` = 6n+2 layers (9n+2 with ``bottleneck``), widths 16, 32, 64 times ``width``.

    ``shortcut``: ``pad`` is option A of the publication, the one it uses on CIFAR; ``project`` is option B.
    Raises ValueError for a depth that does not fit, a width or channel count below 1, or both attentions.
    """
    require_at_least(1, width=width, in_channels=in_channels)
    blocks = blocks_per_stage("ResNet", depth, 9 if bottleneck else 6, 2)
    placement = Placement(attention, conv)
    expansion = 4 if bottleneck else 1
    stage_channels = [16 * width * 2**stage * expansion for stage in range(3)]

    def unit(before: int, channels: int, stride: int) -> ResidualUnit:
        if bottleneck:
            branch = bottleneck_branch(before, channels // 4, channels, stride, placement)
        else:
            branch = basic_branch(before, channels, stride, placement)
        skip = make_shortcut(shortcut, before, channels, stride)
        return ResidualUnit(branch, placement.branch_end(channels), skip)

    stages = [
        nn.Sequential(*(unit(*shape) for shape in shapes)) for shapes in unit_shapes(16 * width, stage_channels, blocks)
    ]
    return SmallImageNet(stem(in_channels, 16 * width), stages, nn.Identity(), stage_channels[-1], num_classes)
