"""DenseNet-BC for small images: every layer reads the features of all layers before it.

Source: Huang et al., "Densely Connected Convolutional Networks", arXiv:1608.06993, section 3 and table 2.
A DenseNet has no residual branch: attention stands at the end of each dense layer and scales its new
features, (B, growth_rate, H, W), before they are concatenated. A convolution with attention replaces the
3x3 of each dense layer; the norm that opens every later layer follows it.

Differs from the publication: none known.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from srp_exp.backbones.layers import (
    SmallImageNet,
    blocks_per_stage,
    convolution,
    require_at_least,
    require_probability,
)
from srp_exp.backbones.placement import AttentionFactory, ConvFactory, Placement
from srp_exp.errors import UserError


class DenseLayer(nn.Module):
    """Appends ``growth_rate`` new features: (B, C, H, W) -> (B, C + growth_rate, H, W).

    A 1x1 convolution to four times the growth rate (the B of BC), then a 3x3.
    """

    def __init__(self, in_channels: int, growth_rate: int, dropout: float, placement: Placement) -> None:
        super().__init__()
        inner = 4 * growth_rate
        layers: dict[str, nn.Module] = OrderedDict(
            norm1=nn.BatchNorm2d(in_channels),
            relu1=nn.ReLU(inplace=True),
            conv1=convolution(in_channels, inner, kernel_size=1),
            dropout1=nn.Dropout(dropout),
            norm2=nn.BatchNorm2d(inner),
            relu2=nn.ReLU(inplace=True),
            conv2=placement.conv3x3(inner, growth_rate),
            dropout2=nn.Dropout(dropout),
        )
        self.branch = nn.Sequential(OrderedDict(layers))
        self.attention = placement.branch_end(growth_rate)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.attention(self.branch(x))], dim=1)


def transition(in_channels: int, out_channels: int, dropout: float) -> nn.Sequential:
    """1x1 convolution to ``out_channels``, then 2x2 average pooling that halves the map."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(in_channels),
            relu=nn.ReLU(inplace=True),
            conv=convolution(in_channels, out_channels, kernel_size=1),
            dropout=nn.Dropout(dropout),
            pool=nn.AvgPool2d(2),
        )
    )


def build(
    depth: int,
    growth_rate: int = 12,
    compression: float = 0.5,
    dropout: float = 0.0,
    *,
    attention: AttentionFactory | None = None,
    conv: ConvFactory | None = None,
    num_classes: int,
    in_channels: int,
) -> SmallImageNet:
    """DenseNet-BC-``depth``-``growth_rate``: ``depth`` = 6n+4 layers in three dense blocks.

    ``compression`` in (0, 1]: the share of channels that a transition keeps. ``dropout`` in [0, 1): after
    each convolution but the first; the publication uses 0.2 where no augmentation is used.
    Raises ValueError for a depth that does not fit or a value outside its range.
    """
    require_at_least(1, growth_rate=growth_rate, in_channels=in_channels)
    require_probability(dropout=dropout)
    if not 0 < compression <= 1:
        raise UserError(f"compression is {compression}: it must be in (0, 1]")
    layers = blocks_per_stage("DenseNet-BC", depth, 6, 4)
    placement = Placement(attention, conv)
    channels = 2 * growth_rate
    stem = convolution(in_channels, channels, kernel_size=3)
    stages = []
    for stage in range(3):
        block: list[nn.Module] = []
        if stage > 0:
            kept = int(channels * compression)
            block.append(transition(channels, kept, dropout))
            channels = kept
        for _ in range(layers):
            block.append(DenseLayer(channels, growth_rate, dropout, placement))
            channels += growth_rate
        stages.append(nn.Sequential(*block))
    head = nn.Sequential(OrderedDict(norm=nn.BatchNorm2d(channels), relu=nn.ReLU(inplace=True)))
    return SmallImageNet(stem, stages, head, channels, num_classes)
