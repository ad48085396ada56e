"""timm's networks: every file trains, attention goes where timm puts it, bad names are refused in one line."""

import pytest
import timm
import torch
from each import each
from timm.layers import EcaModule, SelectiveKernel, SEModule, SplitAttn
from timm.models import _builder
from torch.nn import functional as F

from srp_exp.backbones import timm_models

ANY = {"num_classes": 10, "in_channels": 3}


def number_of(network, kind):
    return sum(isinstance(module, kind) for module in network.modules())


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_native_is_timms_own_network(build, timm_backbone):
    with torch.device("meta"):
        ours = build(timm_backbone, "native", classes=1000)
        timms = timm.create_model(timm_backbone)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in timms.state_dict().items()}


def test_every_attention_trains_in_bottlenecks(build, attention_file):
    attention_trains(build, attention_file, "resnet26")


@pytest.mark.parametrize("attention", ["se", "sk"])
def test_attention_trains_in_basic_blocks(build, attention):
    attention_trains(build, attention, "resnet18")


def attention_trains(build, attention_file, model):
    torch.manual_seed(0)
    network = build("timm", attention_file, model=model).train()
    logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 10)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    "name, blocks, attention, kind",
    [
        ("resnet50", 16, "sk", SelectiveKernel),
        ("resnet101", 33, "eca", EcaModule),
        ("resnext50_32x4d", 16, "splat", SplitAttn),
        ("seresnet50", 16, "eca", EcaModule),
        ("seresnet50", 16, "sk", SelectiveKernel),
    ],
)
def test_attention_is_in_every_block(build, name, blocks, attention, kind):
    with torch.device("meta"):
        network = build(name, attention)
    assert number_of(network, kind) == blocks
    assert number_of(network, SEModule) == 0  # the SE of seresnet50 is replaced


def test_se_resnet50_is_timms_seresnet50(build):
    with torch.device("meta"):
        ours, timms = build("resnet50", "se", classes=1000), timm.create_model("seresnet50")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in timms.state_dict().items()}


def test_sk_resnet50_is_timms_skresnet50():
    """With the arguments timm gives it (rd_divisor 8); the keys differ where timm fuses conv and norm."""

    def selective_kernel(in_channels, out_channels, stride, groups):
        return SelectiveKernel(in_channels, out_channels, stride=stride, groups=groups, split_input=True)

    with torch.device("meta"):
        ours = timm_models.build("resnet50", conv=selective_kernel, num_classes=1000, in_channels=3)
    assert parameters(ours) == parameters(timm.create_model("skresnet50")) == 25_803_160


def test_any_timm_name(build):
    with torch.device("meta"):
        assert number_of(build("timm", "native", model="seresnext26d_32x4d"), SEModule) == 8
        assert build("timm", "native", model="resnet18.a1_in1k").fc.out_features == 10


@each(
    case=[
        ({"model": "resnet51"}, "timm has no model 'resnet51'; nearest: resnet"),
        ({"model": "qqqqqqqqqq"}, "timm has no model 'qqqqqqqqqq'; timm.list_models() names them"),
        (
            {"model": "efficientnet_b0", "attention": SEModule},
            "efficientnet_b0: attention can be chosen only in",
        ),
        ({"model": "skresnet50", "attention": SEModule}, "skresnet50: attention can be chosen only in"),
        ({"model": "resnest50d", "conv": SplitAttn}, "resnest50d: attention can be chosen only in"),
        ({"model": "vit_tiny_patch16_224", "attention": SEModule}, "use attention=native"),
        ({"model": "skresnet50", "pretrained": True}, "skresnet50: timm has no pretrained weights for it"),
        ({"model": "resnet50", "pretrained": True, "conv": SplitAttn}, "have no place for this attention"),
        ({"model": "resnet50", "attention": SEModule, "conv": SplitAttn}, "one of them, not both"),
        (
            {"model": "resnet50.no_such_tag"},
            "timm has no weights 'no_such_tag' of resnet50; it has: a1_in1k,",
        ),
    ],
)
def test_invalid_values_are_refused_in_one_line(case):
    arguments, message = case
    with pytest.raises(ValueError) as error:
        timm_models.build(**(ANY | arguments))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("attention, strict", [(None, True), (SEModule, False)])
def test_pretrained_weights_load_strictly_unless_attention_is_added(monkeypatch, attention, strict):
    seen = []
    monkeypatch.setattr(_builder, "load_pretrained", lambda *_, **options: seen.append(options["strict"]))
    timm_models.build("resnet18", pretrained=True, attention=attention, **ANY)
    assert seen == [strict]
