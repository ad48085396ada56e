"""Pre-activation residual networks for small images (ResNet-110, ResNet-164): norm and ReLU before each convolution.

Source: He et al., "Identity Mappings in Deep Residual Networks", arXiv:1603.05027, and the authors' code,
https://github.com/KaimingHe/resnet-1k-layers/blob/master/resnet-pre-act.lua (bottlenecks, the stride on the
first 1x1, projections that share the unit's first norm and ReLU).
Attention stands at the end of each residual branch, after its last convolution and before the addition.
A convolution with attention replaces the last 3x3 of a basic branch and the 3x3 of a bottleneck. It ends in
a ReLU, so at the end of a basic branch a batch norm follows it: a branch that is never negative is the
case "ReLU before addition" that the publication finds worse (table 2).

Differs from the publication: none known. With ``shortcut=pad`` the units that change shape pad the raw map,
as arXiv:1512.03385 does; the authors' code has no basic blocks to compare that with.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from srp_exp.backbones.layers import (
    SmallImageNet,
    ZeroPadShortcut,
    blocks_per_stage,
    convolution,
    require_at_least,
)
from srp_exp.backbones.placement import AttentionFactory, ConvFactory, Placement
from srp_exp.backbones.resnet import ShortcutKind, unit_shapes
from srp_exp.errors import UserError


class PreActUnit(nn.Module):
    """attention(branch(a)) + shortcut, a = relu(norm(x)). (B, C, H, W) -> (B, C', H', W').

    The shortcut starts from a where ``shares_activation``, else from x.
    """

    def __init__(
        self,
        in_channels: int,
        branch: nn.Module,
        attention: nn.Module,
        shortcut: nn.Module,
        shares_activation: bool,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.branch = branch
        self.attention = attention
        self.shortcut = shortcut
        self.shares_activation = shares_activation

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.norm(x))
        shortcut = self.shortcut(activated if self.shares_activation else x)
        out: Tensor = self.attention(self.branch(activated)) + shortcut
        return out


def preact_basic_branch(
    in_channels: int, channels: int, stride: int, placement: Placement, dropout: float = 0.0
) -> nn.Sequential:
    """Two 3x3 convolutions, the first with the stride, and dropout before the second."""
    layers: dict[str, nn.Module] = OrderedDict(
        conv1=convolution(in_channels, channels, kernel_size=3, stride=stride),
        norm2=nn.BatchNorm2d(channels),
        relu2=nn.ReLU(inplace=True),
        dropout=nn.Dropout(dropout),
        conv2=placement.conv3x3(channels, channels),
    )
    if placement.replaces_conv:
        layers["norm3"] = nn.BatchNorm2d(channels)
    return nn.Sequential(OrderedDict(layers))


def preact_bottleneck_branch(in_channels: int, channels: int, stride: int, placement: Placement) -> nn.Sequential:
    """1x1 with the stride down to a quarter of ``channels``, 3x3, 1x1 up."""
    inner = channels // 4
    return nn.Sequential(
        OrderedDict(
            conv1=convolution(in_channels, inner, kernel_size=1, stride=stride),
            norm2=nn.BatchNorm2d(inner),
            relu2=nn.ReLU(inplace=True),
            conv2=placement.conv3x3(inner, inner),
            norm3=nn.BatchNorm2d(inner),
            relu3=nn.ReLU(inplace=True),
            conv3=convolution(inner, channels, kernel_size=1),
        )
    )


def preact_shortcut(kind: ShortcutKind, in_channels: int, channels: int, stride: int) -> nn.Module:
    """Identity where the shapes agree, else zero padding (``pad``) or a bare 1x1 convolution (``project``).

    Raises ValueError when ``kind`` is neither ``pad`` nor ``project``.
    """
    if kind not in ("pad", "project"):
        raise UserError(f"shortcut is {kind!r}: it must be 'pad' or 'project'")
    if in_channels == channels and stride == 1:
        return nn.Identity()
    if kind == "pad":
        return ZeroPadShortcut(in_channels, channels, stride)
    return convolution(in_channels, channels, kernel_size=1, stride=stride)


def preact_network(
    blocks: int,
    channels: Sequence[int],
    branch: Callable[[int, int, int], nn.Module],
    shortcut: ShortcutKind,
    placement: Placement,
    *,
    num_classes: int,
    in_channels: int,
) -> SmallImageNet:
    """Stem, three stages of ``blocks`` pre-activation units, final norm and ReLU, classifier.

    ``channels``: of the stem and the stages. ``branch``: (in_channels, channels, stride) -> residual branch.
    Units that project share their first activation with the shortcut; so does the very first unit, which
    follows the stem (arXiv:1603.05027, appendix).
    """
    require_at_least(1, in_channels=in_channels)

    def unit(before: int, after: int, stride: int, first: bool) -> PreActUnit:
        skip = preact_shortcut(shortcut, before, after, stride)
        shares = first or isinstance(skip, nn.Conv2d)
        return PreActUnit(before, branch(before, after, stride), placement.branch_end(after), skip, shares)

    stages = [
        nn.Sequential(*(unit(*shape, first=stage == 0 and i == 0) for i, shape in enumerate(shapes)))
        for stage, shapes in enumerate(unit_shapes(channels[0], channels[1:], blocks))
    ]
    head = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels[-1]), relu=nn.ReLU(inplace=True)))
    stem = convolution(in_channels, channels[0], kernel_size=3)
    return SmallImageNet(stem, stages, head, channels[-1], num_classes)


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
    """A pre-activation ResNet of ``depth`` = 6n+2 layers, or 9n+2 with ``bottleneck``.

    Widths 16, 32, 64 (four times that with ``bottleneck``) times ``width``. ``shortcut``: ``pad`` or
    ``project``. Raises ValueError for a depth that does not fit, a value below 1, or both attentions.
    """
    require_at_least(1, width=width)
    blocks = blocks_per_stage("pre-activation ResNet", depth, 9 if bottleneck else 6, 2)
    placement = Placement(attention, conv)
    branch = partial(preact_bottleneck_branch if bottleneck else preact_basic_branch, placement=placement)
    channels = [16 * width] + [16 * width * 2**stage * (4 if bottleneck else 1) for stage in range(3)]
    return preact_network(
        blocks, channels, branch, shortcut, placement, num_classes=num_classes, in_channels=in_channels
    )
