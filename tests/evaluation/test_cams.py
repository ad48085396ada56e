"""Class activation maps against the formula on a network in which it can be written down, and how they are shown."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from srp_exp.datasets import Batch
from srp_exp.srp import apply_srp

pytest.importorskip("pytorch_grad_cam")
from srp_exp.evaluation.cams import ActivationMaps, activation_maps, last_map, side_by_side, take
from srp_exp.evaluation.figures import BLUE, ORANGE, pixels


class Linear(nn.Module):
    """A convolution, a rectifier, the mean, a linear layer: at a channel a logit has one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.act(self.conv(images))).flatten(1))


def test_maps_follow_the_formula() -> None:
    torch.manual_seed(0)
    network, images, labels = Linear().eval(), torch.randn(4, 3, 8, 6), torch.tensor([0, 3, 1, 3])
    found = activation_maps(network, images, labels)
    with torch.no_grad():
        activations = network.act(network.conv(images))
        weights = network.head.weight[labels] / (8 * 6)  # the mean gradient of the label's logit
        cam = (weights[:, :, None, None] * activations).sum(1).clamp(min=0)
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    assert found.maps.shape == (4, 8, 6)
    torch.testing.assert_close(torch.from_numpy(found.maps), (cam - low) / (high - low), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.probabilities, network(images).detach().softmax(1))
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks for module in network.modules())


def test_the_target_is_the_last_map_wider_than_one_position() -> None:
    network = Linear()
    assert last_map(network, torch.zeros(1, 3, 8, 8)) is network.act
    with pytest.raises(ValueError, match="no module of Linear gives a map"):
        last_map(network, torch.zeros(1, 3, 1, 1))


def test_srp_is_no_part_of_the_maps() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=4, block_args={"attn_layer": "se"}, zero_init_last=False).eval()
    images, labels = torch.randn(2, 3, 64, 64), torch.tensor([1, 2])
    plain = activation_maps(network, images, labels)
    with_srp = copy.deepcopy(network)
    apply_srp(with_srp, 0.5, example_input=images)
    found = activation_maps(with_srp.train(), images, labels)
    assert (found.maps == plain.maps).all()
    assert with_srp.training
    assert plain.maps.max() > 0.9


def test_taking_positions_from_batches() -> None:
    def batch(start: int, stop: int) -> Batch:
        index = torch.arange(start, stop)
        return Batch(index.view(-1, 1, 1, 1).expand(-1, 3, 2, 2).float(), index % 4, index)

    asked = []

    def batches():
        for start in range(0, 20, 4):
            asked.append(start)
            yield batch(start, start + 4)

    images, labels = take(batches(), [0, 5, 6, 11])
    assert images[:, 0, 0, 0].tolist() == [0, 5, 6, 11]
    assert labels.tolist() == [0, 1, 2, 3]
    assert asked == [0, 4, 8]  # no batch after the last


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_shows_every_image_of_every_network(channels) -> None:
    images, labels = torch.full((3, channels, 10, 10), 0.5), torch.tensor([0, 1, 0])
    right = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    maps = torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(0)).numpy()
    columns = {"A: gap": ActivationMaps(maps, right), "B: fixed": ActivationMaps(maps, 1 - right)}
    figure = side_by_side(images, labels, ("cat", "dog"), columns)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == [
        "cat", "✓ cat 90%", "✗ dog 90%", "dog", "✓ dog 80%", "✗ cat 80%", "cat", "✓ cat 70%", "✗ dog 70%",
    ]  # fmt: skip
    colours = [axis.title.get_color() for axis in figure.axes[:3]]
    assert colours == ["black", BLUE, ORANGE]
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["image and label", *columns]
    picture = pixels(figure)
    assert picture.ndim == 3 and picture.shape[2] == 3
    assert math.prod(picture.shape[:2]) > 100_000
    assert picture.std() > 10
