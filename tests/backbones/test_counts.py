"""Parameters and multiply-adds against the publications, a public table, and sums done by hand.

TABLE is https://github.com/osmr/imgclsmob/blob/master/pytorch/README.md, section CIFAR-10: "Params" and
"FLOPs/2". It counts batch norms and activations too, so its multiply-adds lie 0 to 5 % above those of the
convolutions and the classifier alone, which are counted here. Its residual networks use projections.
"""

import pytest
import torch
from each import each
from torch.utils.flop_counter import FlopCounterMode


def counts(network):
    """(parameters, multiply-adds of one 3x32x32 image); the counter counts two operations for each."""
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(1, 3, 32, 32, device="meta"))
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() // 2


COUNTED = {}
"""What was counted: some networks are in several tables."""


@pytest.fixture
def count(build):
    def count_file(name, attention="none", **values):
        key = (name, attention, *sorted(values.items()))
        if key not in COUNTED:
            with torch.device("meta"):
                COUNTED[key] = counts(build(name, attention, **values))
        return COUNTED[key]

    return count_file


# Published millions of parameters, as printed.
PUBLISHED = [
    ("resnet20", 0.27),  # arXiv:1512.03385, table 6
    ("resnet32", 0.46),
    ("resnet44", 0.66),
    ("resnet56", 0.85),
    ("resnet110", 1.7),
    ("preresnet110", 1.7),  # arXiv:1605.07146, table 5: "pre-act-ResNet, 110: 1.7M, 164: 1.7M"
    ("preresnet164", 1.7),
    ("wrn16_8", 11.0),  # arXiv:1605.07146, tables 4 and 5
    ("wrn22_10", 26.8),
    ("wrn28_10", 36.5),
    ("wrn40_4", 8.9),
    ("resnext29_8x64d", 34.4),  # arXiv:1611.05431, table 7
    ("densenet_bc_100_12", 0.8),  # arXiv:1608.06993, table 2
]


def test_parameters_are_the_published_ones():
    """Equal in the digits printed; one unit of the last is allowed, as the papers cut or round."""
    for name, millions in PUBLISHED:
        digits = len(str(millions).split(".")[1])
        assert EXACT[name][0] / 1e6 == pytest.approx(millions, abs=10**-digits), name


PROJECT = {"shortcut": "project"}
TABLE = [  # (file, overrides, Params, FLOPs/2 in millions)
    ("resnet20", PROJECT, 272_474, 41.29),
    ("resnet56", PROJECT, 855_770, 127.06),
    ("resnet110", PROJECT, 1_730_714, 255.70),
    ("resnet110", {"depth": 164, "bottleneck": True, **PROJECT}, 1_704_154, 255.31),
    ("preresnet110", {"depth": 20, **PROJECT}, 272_282, 41.27),
    ("preresnet110", PROJECT, 1_730_522, 255.68),
    ("preresnet164", {}, 1_703_258, 255.08),
    ("resnext29_8x64d", {"cardinality": 32, "group_width": 4}, 4_775_754, 780.55),
    ("resnext29_8x64d", {"cardinality": 16}, 68_155_210, 10_709.34),
    ("wrn16_8", {"width": 10}, 17_116_634, 2_414.04),
    ("wrn28_10", {}, 36_479_194, 5_246.98),
    ("wrn40_4", {"width": 8}, 35_748_314, 5_176.90),
    ("densenet_bc_100_12", {}, 769_162, 298.45),
    ("densenet_bc_100_12", {"depth": 40, "growth_rate": 36}, 1_542_682, 654.60),
]


@each(row=TABLE)
def test_counts_of_the_public_table(count, row):
    name, values, parameters, millions = row
    ours, multiply_adds = count(name, **values)
    assert ours == parameters
    assert 0.95 * millions <= multiply_adds / 1e6 <= millions


def test_se_resnets_of_the_public_table(count):
    """Rows SE-ResNet-20, -56 and -110 of TABLE, reduction ratio 16."""
    for depth, parameters in ((20, 274_847), (56, 862_889), (110, 1_744_952)):
        assert count("resnet20", "se", depth=depth, **PROJECT)[0] == parameters, depth


# Exact counts of the files, in the order of the sums below.
EXACT = {
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet44": (658_586, 97_174_144),
    "resnet56": (853_018, 125_485_696),
    "resnet110": (1_727_962, 252_887_680),
    "preresnet110": (1_727_962, 252_887_680),
    "preresnet164": (1_703_258, 244_500_992),
    "wrn16_8": (10_961_370, 1_548_145_664),
    "wrn22_10": (26_797_914, 3_827_751_168),
    "wrn28_10": (36_479_194, 5_243_328_768),
    "wrn40_4": (8_949_210, 1_298_582_016),
    "resnext29_8x64d": (34_426_698, 5_387_266_048),
    "densenet_bc_100_12": (769_162, 287_929_692),
}


@each(name=EXACT)
def test_exact_counts(count, name):
    assert count(name) == EXACT[name]


class Sum:
    """Adds up layers by hand: a convolution has k*k*in*out/groups weights, each used once per output pixel."""

    def __init__(self):
        self.parameters = self.multiply_adds = 0

    def conv(self, kernel, in_channels, out_channels, side, groups=1):
        weights = kernel * kernel * in_channels * out_channels // groups
        self.parameters += weights
        self.multiply_adds += weights * side * side

    def norm(self, channels):
        self.parameters += 2 * channels

    def linear(self, features):
        self.parameters += features * 10 + 10
        self.multiply_adds += features * 10

    def result(self):
        return self.parameters, self.multiply_adds


@each(depth=[20, 32, 44, 56, 110])
def test_resnet_by_hand(depth):
    """arXiv:1512.03385, section 4.2: maps 32, 16, 8; 1+2n, 2n, 2n layers; 16, 32, 64 filters; option A."""
    n = (depth - 2) // 6
    total = Sum()
    total.conv(3, 3, 16, 32)
    total.norm(16)
    for channels, side in [(16, 32), (32, 16), (64, 8)]:
        layers = 2 * n
        if channels > 16:
            total.conv(3, channels // 2, channels, side)
            total.norm(channels)
            layers -= 1
        for _ in range(layers):
            total.conv(3, channels, channels, side)
            total.norm(channels)
    total.linear(64)
    assert total.result() == EXACT[f"resnet{depth}"]


@each(depth_and_width=[(16, 8), (22, 10), (28, 10), (40, 4)])
def test_wrn_by_hand(depth_and_width):
    """arXiv:1605.07146, table 1: conv1 of 16, groups of N = (depth-4)/6 blocks [3x3, 3x3], 1x1 shortcuts."""
    depth, width = depth_and_width
    total = Sum()
    total.conv(3, 3, 16, 32)
    before = 16
    for channels, side in [(16 * width, 32), (32 * width, 16), (64 * width, 8)]:
        total.conv(1, before, channels, side)
        for block in range((depth - 4) // 6):
            total.norm(before if block == 0 else channels)
            total.conv(3, before if block == 0 else channels, channels, side)
            total.norm(channels)
            total.conv(3, channels, channels, side)
        before = channels
    total.norm(before)
    total.linear(before)
    assert total.result() == EXACT[f"wrn{depth}_{width}"]


def test_preresnet110_by_hand():
    """arXiv:1603.05027: 18 units of norm, 3x3, norm, 3x3 per stage; no norm after the stem, one before the head."""
    total = Sum()
    total.conv(3, 3, 16, 32)
    before = 16
    for channels, side in [(16, 32), (32, 16), (64, 8)]:
        for unit in range(18):
            inputs = before if unit == 0 else channels
            total.norm(inputs)
            total.conv(3, inputs, channels, side)
            total.norm(channels)
            total.conv(3, channels, channels, side)
        before = channels
    total.norm(64)
    total.linear(64)
    assert total.result() == EXACT["preresnet110"]


def test_preresnet164_by_hand():
    """The authors' resnet-pre-act.lua: 18 bottlenecks per stage of 64, 128, 256; the stride on the first 1x1."""
    total = Sum()
    total.conv(3, 3, 16, 32)
    before = 16
    for channels, side in [(64, 32), (128, 16), (256, 8)]:
        inner = channels // 4
        total.conv(1, before, channels, side)  # the projection
        for block in range(18):
            inputs = before if block == 0 else channels
            total.norm(inputs)
            total.conv(1, inputs, inner, side)
            total.norm(inner)
            total.conv(3, inner, inner, side)
            total.norm(inner)
            total.conv(1, inner, channels, side)
        before = channels
    total.norm(256)
    total.linear(256)
    assert total.result() == EXACT["preresnet164"]


def test_resnext29_by_hand():
    """arXiv:1611.05431, section 5.3: 8 groups of 64, 128, 256; stage outputs 256, 512, 1024; projections."""
    total = Sum()
    total.conv(3, 3, 64, 32)
    total.norm(64)
    before, side_before = 64, 32
    for channels, inner, side in [(256, 512, 32), (512, 1024, 16), (1024, 2048, 8)]:
        total.conv(1, before, channels, side)
        total.norm(channels)
        for block in range(3):
            total.conv(1, before if block == 0 else channels, inner, side_before if block == 0 else side)
            total.norm(inner)
            total.conv(3, inner, inner, side, groups=8)
            total.norm(inner)
            total.conv(1, inner, channels, side)
            total.norm(channels)
        before, side_before = channels, side
    total.linear(1024)
    assert total.result() == EXACT["resnext29_8x64d"]


def test_densenet_by_hand():
    """arXiv:1608.06993, section 3: 24 first channels; 16 layers of 1x1 to 48 and 3x3 to 12; transitions halve."""
    total = Sum()
    total.conv(3, 3, 24, 32)
    channels = 24
    for side in (32, 16, 8):
        if side < 32:
            total.norm(channels)
            total.conv(1, channels, channels // 2, 2 * side)
            channels //= 2
        for _ in range(16):
            total.norm(channels)
            total.conv(1, channels, 48, side)
            total.norm(48)
            total.conv(3, 48, 12, side)
            channels += 12
    total.norm(channels)
    total.linear(channels)
    assert total.result() == EXACT["densenet_bc_100_12"]


@each(pair=[("resnet56", "resnet110"), ("resnet20", "resnet32")])
def test_the_small_network_of_small_vs_large_computes_less(count, pair):
    """Those of conf/study/small_vs_large.yaml and its quick form."""
    smaller, larger = pair
    of_smaller, of_larger = (count(name, attention="se") for name in (smaller, larger))
    assert all(less < 0.7 * more for less, more in zip(of_smaller, of_larger, strict=True))
