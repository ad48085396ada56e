"""Wide residual networks, WRN-depth-width: pre-activation basic blocks, widened.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", arXiv:1605.07146, table 1, and the authors' code,
https://github.com/szagoruyko/wide-residual-networks. Attention is placed as in srp_exp.backbones.preresnet.

Differs from the publication: none known.
"""

from functools import partial

from srp_exp.backbones.layers import SmallImageNet, blocks_per_stage, require_at_least, require_probability
from srp_exp.backbones.placement import AttentionFactory, ConvFactory, Placement
from srp_exp.backbones.preresnet import preact_basic_branch, preact_network


def build(
    depth: int,
    width: int,
    dropout: float = 0.0,
    *,
    attention: AttentionFactory | None = None,
    conv: ConvFactory | None = None,
    num_classes: int,
    in_channels: int,
) -> SmallImageNet:
    """WRN-``depth``-``width``: ``depth`` = 6n+4 layers, stage widths 16, 32, 64 times ``width``.

    ``dropout``: probability, in [0, 1), between the two convolutions of a block; the publication's table 6
    uses 0.3 on CIFAR. Raises ValueError for a depth that does not fit or a value outside its range.
    """
    require_at_least(1, width=width)
    require_probability(dropout=dropout)
    blocks = blocks_per_stage("WRN", depth, 6, 4)
    placement = Placement(attention, conv)
    branch = partial(preact_basic_branch, placement=placement, dropout=dropout)
    channels = [16] + [16 * width * 2**stage for stage in range(3)]
    return preact_network(
        blocks, channels, branch, "project", placement, num_classes=num_classes, in_channels=in_channels
    )
