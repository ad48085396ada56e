"""Small-image networks: they train, attention stands where the docstrings say, bad values are refused."""

import math

import pytest
import torch
from each import each
from hydra.utils import get_class
from torch import nn
from torch.nn import functional as F

from srp_exp.backbones import densenet, preresnet, resnet, resnext, wrn
from srp_exp.backbones.layers import ZeroPadShortcut, convolution
from srp_exp.backbones.placement import Placement

ANY = {"num_classes": 10, "in_channels": 3}


class Erase(nn.Module):
    """Stands for attention: multiplies the branch by zero, so that only the shortcut is left."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1] == self.channels
        return x * 0


def train_step(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """One forward and backward pass; every parameter must receive a finite gradient."""
    logits = network.train()(images)
    F.cross_entropy(logits, torch.arange(len(images))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    return logits


@pytest.mark.parametrize("attention", ["none", "se", "sk"])
def test_every_family_trains(build, family, attention):
    """With attention at the end of a branch, and in the place of a convolution."""
    torch.manual_seed(0)
    name, smallest = family
    network = build(name, attention, **smallest)
    assert train_step(network, torch.randn(3, 3, 8, 8)).shape == (3, 10)


def test_every_attention_is_in_every_block_of_resnet20_and_trains(build, load, attention_file):
    kind = get_class(load("attention", attention_file)["_target_"])
    torch.manual_seed(0)
    network = build("resnet20", attention_file)
    assert sum(isinstance(module, kind) for module in network.modules()) == 9
    train_step(network, torch.randn(3, 3, 8, 8))


def test_any_image_size(build, family):
    name, smallest = family
    network = build(name, "se", 2, 5, **smallest).eval()
    for size in ((8, 8), (9, 13), (28, 28)):
        assert network(torch.randn(1, 2, *size)).shape == (1, 5)


def test_channels_last_autocast_and_one_compiled_graph(build, family):
    torch.manual_seed(0)
    name, smallest = family
    network = build(name, "se", **smallest).eval()
    images = torch.randn(2, 3, 16, 16)
    expected = network(images)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)
    last = network.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(images).dtype == torch.bfloat16


def test_attention_is_the_last_step_of_a_branch():
    x = torch.randn(2, 16, 8, 8)
    post = next(resnet.build(8, attention=Erase, **ANY).stages[0].children())
    torch.testing.assert_close(post(x), x.relu())
    unit = preresnet.build(14, attention=Erase, **ANY).stages[0][1]
    torch.testing.assert_close(unit(x), x)
    layer = densenet.build(10, growth_rate=8, attention=Erase, **ANY).stages[0][0]
    torch.testing.assert_close(layer(x), torch.cat([x, torch.zeros(2, 8, 8, 8)], dim=1))


def test_preactivation_units_that_project_share_their_activation():
    unit = wrn.build(10, 2, attention=Erase, **ANY).eval().stages[0][0]
    x = torch.randn(2, 16, 8, 8)
    activated = F.relu(x / math.sqrt(1 + 1e-5))  # a fresh batch norm in evaluation
    torch.testing.assert_close(unit(x), F.conv2d(activated, unit.shortcut.weight))


def test_zero_pad_shortcut_takes_every_second_pixel():
    x = torch.randn(2, 3, 5, 8)
    out = ZeroPadShortcut(3, 7, stride=2)(x)
    assert out.shape == (2, 7, 3, 4)
    for row in range(3):
        for column in range(4):
            assert torch.equal(out[:, :3, row, column], x[:, :, 2 * row, 2 * column])
    assert not out[:, 3:].any()


@each(groups=(1, 4))
def test_initialisation_is_that_of_the_publications(groups):
    """std = sqrt(2 / (3*3*64)); the sample std of n normal draws lies within 5/sqrt(2n) of it, relatively."""
    torch.manual_seed(0)
    weight = convolution(128, 64, kernel_size=3, groups=groups).weight
    expected = math.sqrt(2 / (9 * 64))
    assert weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))
    assert not resnet.build(8, **ANY).classifier.bias.any()


def test_convolutions_with_attention_replace_what_the_docstrings_say():
    """Basic branches lose their last 3x3, bottlenecks their only one, with stride and groups handed on."""
    calls = []

    def conv(in_channels, out_channels, stride, groups):
        calls.append((in_channels, out_channels, stride, groups))
        return nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=groups)

    resnet.build(8, conv=conv, **ANY)
    assert calls == [(16, 16, 1, 1), (32, 32, 1, 1), (64, 64, 1, 1)]
    calls.clear()
    resnext.build(11, 4, 16, conv=conv, **ANY)
    assert calls == [(64, 64, 1, 4), (128, 128, 2, 4), (256, 256, 2, 4)]
    calls.clear()
    densenet.build(10, 6, conv=conv, **ANY)
    assert calls == [(24, 6, 1, 1)] * 3
    assert resnet.build(8, conv=conv, **ANY).stages[0][0].branch.norm2.num_features == 16
    assert not hasattr(resnext.build(11, conv=conv, **ANY).stages[0][0].branch, "norm2")
    assert preresnet.build(8, conv=conv, **ANY).stages[0][0].branch.norm3.num_features == 16


@each(
    case=[
        (resnet.build, {"depth": 21}, "depth 21: the depth of a ResNet is 6n+2, n >= 1; nearest: 20 or 26"),
        (resnet.build, {"depth": 2}, "depth 2: the depth of a ResNet is 6n+2, n >= 1; nearest: 8"),
        (resnet.build, {"depth": -30}, "nearest: 8"),
        (resnet.build, {"depth": 22, "bottleneck": True}, "is 9n+2, n >= 1; nearest: 20 or 29"),
        (preresnet.build, {"depth": 165}, "pre-activation ResNet is 6n+2, n >= 1; nearest: 164 or 170"),
        (
            wrn.build,
            {"depth": 29, "width": 10},
            "depth 29: the depth of a WRN is 6n+4, n >= 1; nearest: 28 or 34",
        ),
        (resnext.build, {"depth": 30}, "depth 30: the depth of a ResNeXt is 9n+2, n >= 1; nearest: 29 or 38"),
        (densenet.build, {"depth": 101}, "DenseNet-BC is 6n+4, n >= 1; nearest: 100 or 106"),
        (resnet.build, {"depth": 20, "width": 0}, "width is 0: it must be at least 1"),
        (resnet.build, {"depth": 20, "shortcut": "b"}, "shortcut is 'b': it must be 'pad' or 'project'"),
        (preresnet.build, {"depth": 20, "shortcut": "b"}, "shortcut is 'b': it must be 'pad' or 'project'"),
        (wrn.build, {"depth": 28, "width": 10, "dropout": 1.0}, "dropout is 1.0: it must be in [0, 1)"),
        (resnext.build, {"depth": 29, "cardinality": 0}, "cardinality is 0: it must be at least 1"),
        (densenet.build, {"depth": 100, "growth_rate": 0}, "growth_rate is 0: it must be at least 1"),
        (densenet.build, {"depth": 100, "compression": 0.0}, "compression is 0.0: it must be in (0, 1]"),
        (resnet.build, {"depth": 8, "num_classes": 0}, "num_classes is 0: it must be at least 1"),
        (wrn.build, {"depth": 10, "width": 1, "in_channels": 0}, "in_channels is 0: it must be at least 1"),
    ],
)
def test_invalid_values_are_refused_in_one_line(case):
    build_network, arguments, message = case
    with pytest.raises(ValueError) as error:
        build_network(**(ANY | arguments))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_depth_20_with_bottlenecks_is_valid():
    assert len(resnet.build(20, bottleneck=True, **ANY).stages[0]) == 2


def test_attention_and_conv_together_are_refused():
    with pytest.raises(ValueError, match="one of them, not both"):
        Placement(nn.Identity, nn.Conv2d)
