"""ResNeXt-29 for small images: bottlenecks whose 3x3 convolution is grouped.

Source: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", arXiv:1611.05431,
section 5.3 and table 7. Attention is placed as in srp_exp.backbones.resnet.

Differs from the publication: none known.
"""

from torch import nn

from srp_exp.backbones.layers import SmallImageNet, blocks_per_stage, require_at_least
from srp_exp.backbones.placement import AttentionFactory, ConvFactory, Placement
from srp_exp.backbones.resnet import ResidualUnit, bottleneck_branch, make_shortcut, stem, unit_shapes

STAGE_CHANNELS = (256, 512, 1024)


def build(
    depth: int,
    cardinality: int = 8,
    group_width: int = 64,
    *,
    attention: AttentionFactory | None = None,
    conv: ConvFactory | None = None,
    num_classes: int,
    in_channels: int,
) -> SmallImageNet:
    """A ResNeXt of ``depth`` = 9n+2 layers: ``cardinality`` groups of ``group_width`` channels in stage 1.

    The group width doubles with each stage; stage outputs have 256, 512, 1024 channels; shortcuts that
    change shape are projections. Raises ValueError for a depth that does not fit or a value below 1.
    """
    require_at_least(1, cardinality=cardinality, group_width=group_width, in_channels=in_channels)
    blocks = blocks_per_stage("ResNeXt", depth, 9, 2)
    placement = Placement(attention, conv)

    def unit(before: int, channels: int, stride: int) -> ResidualUnit:
        inner = cardinality * group_width * channels // STAGE_CHANNELS[0]
        branch = bottleneck_branch(before, inner, channels, stride, placement, groups=cardinality)
        skip = make_shortcut("project", before, channels, stride)
        return ResidualUnit(branch, placement.branch_end(channels), skip)

    stages = [nn.Sequential(*(unit(*shape) for shape in shapes)) for shapes in unit_shapes(64, STAGE_CHANNELS, blocks)]
    return SmallImageNet(stem(in_channels, 64), stages, nn.Identity(), STAGE_CHANNELS[-1], num_classes)
