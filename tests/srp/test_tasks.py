"""Beyond classification: detection and segmentation of torchvision, and timm's backbones that return feature maps."""

import copy
from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision.models import detection, segmentation

from srp_exp.srp import Linear, apply_srp, remove_srp, srp_modules

SIDE = 64


def detector(build: Callable[..., nn.Module]) -> nn.Module:
    sizes = {} if build is detection.ssdlite320_mobilenet_v3_large else {"min_size": SIDE, "max_size": SIDE}
    torch.manual_seed(0)
    return build(weights=None, weights_backbone=None, num_classes=3, **sizes)


def segmenter(build: Callable[..., nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    model = build(weights=None, weights_backbone=None, num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def tensors(output: object) -> list[Tensor]:
    return [leaf.detach() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def same(a: object, b: object) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def losses(model: nn.Module) -> Tensor:
    """Sum of the losses of a training step with one box in each image, from seed 0."""
    torch.manual_seed(0)
    target = {"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}
    return sum(model.train()(list(images()), [target, target]).values())


DETECTORS = [
    detection.ssdlite320_mobilenet_v3_large,
    detection.fasterrcnn_mobilenet_v3_large_fpn,
    detection.fasterrcnn_mobilenet_v3_large_320_fpn,
]


@pytest.mark.parametrize("build", DETECTORS)
def test_detection(build: Callable[..., nn.Module]) -> None:
    plain = detector(build)
    model = copy.deepcopy(plain)
    records = apply_srp(model, Linear(0.8, 0.4), example_input=images())
    assert [record.attention for record in records] == ["SqueezeExcitation"] * 8
    assert all(record.name.startswith("backbone.") for record in records)
    assert list(model.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert same(model.eval()(list(images())), plain.eval()(list(images())))
        assert tensors(plain(list(images())))
    expected, loss = losses(copy.deepcopy(plain)), losses(model)
    assert not torch.equal(loss, expected)
    loss.backward()
    excitation = [p for name in srp_modules(model) for p in model.get_submodule(name).parameters()]
    trained = [parameter.grad for parameter in excitation if parameter.requires_grad]
    assert trained and all(grad is not None and grad.isfinite().all() for grad in trained)
    remove_srp(model)
    model.load_state_dict(plain.state_dict())
    assert torch.equal(losses(model), expected)


def test_detection_by_its_backbone_alone() -> None:
    model = detector(detection.ssdlite320_mobilenet_v3_large)
    whole = apply_srp(copy.deepcopy(model), 0.5, example_input=images())
    records = apply_srp(model.backbone, 0.5, example_input=torch.zeros(2, 3, 320, 320))
    assert [f"backbone.{record.name}" for record in records] == [record.name for record in whole]
    assert [record.map_size for record in records] == [record.map_size for record in whole]


@pytest.mark.parametrize("build", [segmentation.lraspp_mobilenet_v3_large, segmentation.deeplabv3_mobilenet_v3_large])
def test_segmentation(build: Callable[..., nn.Module]) -> None:
    plain = segmenter(build)
    model = copy.deepcopy(plain)
    records = apply_srp(model, 0.5, example_input=images())
    of_backbone = [record for record in records if record.name.startswith("backbone.")]
    assert [record.attention for record in of_backbone] == ["SqueezeExcitation"] * 8
    # LRASPP's head gates its map; DeepLab's is enlarged again, and multiplies nothing.
    assert [r.attention for r in records if r not in of_backbone] == ["LRASPPHead"] * (type(plain).__name__ == "LRASPP")
    with torch.no_grad():
        assert same(model.eval()(images()), plain.eval()(images()))
    output = model.train()(images())["out"]
    assert output.shape == (2, 3, SIDE, SIDE)
    assert not torch.equal(output, plain.train()(images())["out"])
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_pooling_of_the_head_can_be_named() -> None:
    """DeepLab's head enlarges a pooled value to a map again: no attention unless the user says so."""
    model = segmenter(segmentation.deeplabv3_mobilenet_v3_large)
    records = apply_srp(model, 0.5, where=segmentation.deeplabv3.ASPPPooling, example_input=images())
    assert [(record.name, record.attention) for record in records] == [("classifier.0.convs.4", "ASPPPooling")]


@pytest.mark.parametrize("name", ["seresnet18", "ecaresnet26t", "mobilenetv3_small_050", "ese_vovnet19b_dw"])
def test_feature_maps(name: str) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, features_only=True)
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    model = copy.deepcopy(plain)
    records = apply_srp(model, 0.5, example_input=images())
    assert len(records) == len(srp_modules(model)) > 0
    assert list(model.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        assert same(model.eval()(images()), plain.eval()(images()))
    maps, expected = model.train()(images()), plain.train()(images())
    assert [m.shape for m in maps] == [m.shape for m in expected]
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert not torch.equal(maps[-1], expected[-1])
    sum(m.square().mean() for m in maps).backward()
    sum(m.square().mean() for m in expected).backward()
    gradients, plain_gradients = ({n: p.grad for n, p in net.named_parameters()} for net in (model, plain))
    for parameter, grad in plain_gradients.items():
        assert (gradients[parameter] is None) == (grad is None), parameter
        assert grad is None or gradients[parameter].isfinite().all(), parameter
