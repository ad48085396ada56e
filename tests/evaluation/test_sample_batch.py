"""The regions on a sample batch are as large as those that a step draws, and the legend says whose they are."""

from collections.abc import Callable

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from timm.layers import SEModule
from torch import nn

from srp_exp.evaluation.figures import pixels
from srp_exp.evaluation.sample_batch import LOOKS, parts_of_regions, sample_batch
from srp_exp.srp import Fixed, Schedule, SrpRecord, Stages, apply_srp
from srp_exp.srp.region import SHARES, RegionPlacement, Share, region_side

Make = Callable[..., tuple[nn.Module, list[SrpRecord]]]
COLOURS = [colour for colour, _ in LOOKS]


@pytest.fixture
def make_model() -> Make:
    """A network of `modules` attention modules on maps of `map_size`, each half as large as the one before."""

    def make(
        schedule: Schedule | None,
        modules: int = 1,
        map_size: tuple[int, int] = (8, 8),
        share: Share = "sample",
        regions: int = 1,
        placement: RegionPlacement = "corner",
    ) -> tuple[nn.Module, list[SrpRecord]]:
        layers: list[nn.Module] = []
        for _ in range(modules):
            layers += [SEModule(3, rd_channels=1), nn.MaxPool2d(2, ceil_mode=True)]
        model = nn.Sequential(*layers)
        if schedule is None:
            return model, []
        settings = {"share": share, "regions": regions, "placement": placement}
        return model, apply_srp(model, schedule, **settings, example_input=torch.zeros(2, 3, *map_size))

    return make


def drawn(model: nn.Module, records: list[SrpRecord], batch: int = 9) -> Figure:
    torch.manual_seed(0)
    return sample_batch(torch.rand(batch, 3, 8, 12), [f"class {n}" for n in range(batch)], model, records)


def boxes(figure: Figure, picture: int) -> dict[str, list[tuple[float, float]]]:
    """Height and width of the rectangles of a picture, in parts of its sides, by colour."""
    found: dict[str, list[tuple[float, float]]] = {colour: [] for colour in COLOURS}
    for patch in figure.axes[picture].patches:
        assert isinstance(patch, Rectangle)
        left, bottom, right, top = patch.get_x(), patch.get_y(), patch.get_x() + patch.get_width(), patch.get_y()
        assert 0 <= left <= right <= 1.0001 and 0 <= bottom <= top + patch.get_height() <= 1.0001
        (colour,) = (c for c in COLOURS if tuple(patch.get_edgecolor()) == rgba(c))
        found[colour].append((patch.get_height(), patch.get_width()))
    return found


def rgba(colour: str) -> tuple[float, ...]:
    return (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("map_size", "scale"), [((8, 4), 0.5), ((5, 7), 0.3), ((2, 3), 1.0)])
def test_boxes_have_the_size_of_their_regions(make_model: Make, map_size: tuple[int, int], scale: float) -> None:
    model, records = make_model(Fixed(scale), map_size=map_size)
    figure = drawn(model, records)
    expected = tuple(region_side(scale, side) / side for side in map_size)
    for picture in range(9):
        (box,) = boxes(figure, picture)[COLOURS[0]]
        assert box == pytest.approx(expected)
    assert legend(figure) == [f"0: scale {scale:.3g} of a map of {map_size[0]} x {map_size[1]}"]
    assert figure.axes[4].get_title() == "class 4"


def test_the_shallowest_the_middle_and_the_deepest_are_drawn(make_model: Make) -> None:
    model, records = make_model(Stages([0.75, 1.0, 0.5, 1.0, 0.5]), modules=5, map_size=(64, 64))
    figure = drawn(model, records)
    assert [len(found) for found in boxes(figure, 0).values()] == [1, 1, 1]
    assert legend(figure) == [
        "0: scale 0.75 of a map of 64 x 64",
        "4: scale 0.5 of a map of 16 x 16",
        "8: scale 0.5 of a map of 4 x 4",
    ]
    assert pixels(figure).shape[2] == 3


@pytest.mark.parametrize("share", SHARES)
def test_a_shared_region_is_the_same_in_all_pictures(make_model: Make, share: Share) -> None:
    model, records = make_model(Fixed(0.25), share=share)
    torch.manual_seed(0)
    places = {tuple(parts.flatten().tolist()) for parts in parts_of_regions(model, records[0], 9)}
    assert (len(places) == 1) == (share == "batch")


def test_a_region_that_wraps_around_the_edge_is_drawn_in_parts_of_its_size(make_model: Make) -> None:
    model, records = make_model(Fixed(0.5), placement="wrap", regions=2)
    torch.manual_seed(0)
    parts = parts_of_regions(model, records[0], 20)
    areas = [float(((p[:, 2] - p[:, 0]) * (p[:, 3] - p[:, 1])).sum()) for p in parts]
    assert areas == pytest.approx([2 * 0.25] * 20)
    assert max(len(part) for part in parts) > 2


def test_without_srp_the_pictures_stand_alone(make_model: Make) -> None:
    figure = drawn(*make_model(None))
    assert not figure.legends
    assert not any(axes.patches for axes in figure.axes)
    assert "global average pooling" in figure.get_suptitle()


def test_the_model_stays_in_training(make_model: Make) -> None:
    model, records = make_model(Fixed(0.25))
    drawn(model.train(), records)
    assert model.training
