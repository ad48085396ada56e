"""The drawn regions are found again in the picture by their colour."""

from collections.abc import Callable

import pytest
import torch
from timm.layers import SEModule
from torch import Tensor, nn

from srp_exp.srp import Fixed, Schedule, SrpRecord, Stages, apply_srp
from srp_exp.srp.region import SHARES, Share, region_side
from srp_exp.training.pictures import SIDE, regions_on_images

RED, YELLOW, CYAN = (255, 0, 0), (255, 255, 0), (0, 255, 255)
PADDING = 2  # of torchvision's make_grid
LINE = 2

MEAN = {1: torch.tensor([0.3]), 3: torch.tensor([0.3, 0.4, 0.5])}
STD = {1: torch.tensor([0.2]), 3: torch.tensor([0.2, 0.25, 0.1])}

Make = Callable[..., tuple[nn.Module, list[SrpRecord]]]


@pytest.fixture
def make_model() -> Make:
    """A network of `modules` attention modules on maps of `map_size`, each half as large as the one before."""

    def make(
        channels: int,
        schedule: Schedule | None,
        modules: int = 1,
        map_size: tuple[int, int] = (8, 8),
        share: Share = "sample",
        regions: int = 1,
    ) -> tuple[nn.Module, list[SrpRecord]]:
        layers: list[nn.Module] = []
        for _ in range(modules):
            layers += [SEModule(channels, rd_channels=1), nn.MaxPool2d(2, ceil_mode=True)]
        model = nn.Sequential(*layers)
        if schedule is None:
            return model, []
        example = torch.zeros(2, channels, *map_size)
        return model, apply_srp(model, schedule, share=share, regions=regions, example_input=example)

    return make


def grey_pixels(batch: int, channels: int, height: int, width: int) -> Tensor:
    """uint8 images of greys between 60 and 200 in steps, none of which is a colour of a region."""
    ramp = torch.arange(batch * height * width).view(batch, 1, height, width) * 7 % 140 + 60
    return ramp.expand(-1, channels, -1, -1).to(torch.uint8)


def normalise(pixels: Tensor) -> Tensor:
    channels = pixels.shape[1]
    return (pixels / 255 - MEAN[channels].view(-1, 1, 1)) / STD[channels].view(-1, 1, 1)


def draw(pixels: Tensor, model: nn.Module, records: list[SrpRecord], seed: int = 0) -> tuple[list[Tensor], str]:
    """The tiles (3, SIDE, SIDE) of the picture, one an image, and the legend."""
    channels = pixels.shape[1]
    torch.manual_seed(seed)
    picture, legend = regions_on_images(normalise(pixels), model, records, MEAN[channels], STD[channels])
    assert picture.dtype == torch.uint8
    batch = len(pixels)
    if batch == 1:  # make_grid leaves a single image as it is
        return [picture], legend
    rows, columns = -(-batch // 4), min(batch, 4)
    assert picture.shape == (3, rows * (SIDE + PADDING) + PADDING, columns * (SIDE + PADDING) + PADDING)
    tiles = []
    for index in range(batch):
        top, left = (PADDING + place * (SIDE + PADDING) for place in divmod(index, 4))
        tiles.append(picture[:, top : top + SIDE, left : left + SIDE])
    return tiles, legend


def box_of(tile: Tensor, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """top, left, bottom, right of the pixels of a colour."""
    mask = (tile == torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1)).all(0)
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert len(rows), "nothing has this colour"
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])


def assert_box(box: tuple[int, int, int, int], scale: float, map_size: tuple[int, int]) -> None:
    """A box is as large as its region, up to rounding and the width of its line, and lies on the grid of the map."""
    top, left, bottom, right = box
    for start, end, side in ((top, bottom, map_size[0]), (left, right, map_size[1])):
        cell = SIDE / side
        tolerance = LINE + 1
        assert abs((end - start) - region_side(scale, side) * cell) <= tolerance
        assert abs(start - round(start / cell) * cell) <= tolerance
        assert 0 <= start <= end < SIDE


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("map_size", [(8, 8), (8, 4), (5, 7), (2, 3), (64, 64)])
@pytest.mark.parametrize("scale", [0.3, 0.5, 1.0])
def test_boxes_have_the_size_of_their_regions(
    make_model: Make, channels: int, map_size: tuple[int, int], scale: float
) -> None:
    model, records = make_model(channels, Fixed(scale), map_size=map_size)
    tiles, legend = draw(grey_pixels(10, channels, *map_size), model, records)
    boxes = [box_of(tile, RED) for tile in tiles]
    for box in boxes:
        assert_box(box, scale, map_size)
    if region_side(scale, map_size[1]) < map_size[1] > 4:
        assert len(set(boxes)) > 1  # every image draws its own
    assert legend == f"red: 0, scale {scale:.3g}, map {map_size[0]} x {map_size[1]}"


def test_the_shallowest_the_middle_and_the_deepest_are_drawn(make_model: Make) -> None:
    scales = [0.75, 1.0, 0.5, 1.0, 0.5]
    model, records = make_model(3, Stages(scales), modules=5, map_size=(64, 64))
    tiles, legend = draw(grey_pixels(3, 3, 64, 64), model, records)
    for tile in tiles:
        assert_box(box_of(tile, CYAN), 0.5, (4, 4))  # drawn last, so that no other covers it
        for colour in (RED, YELLOW):
            box_of(tile, colour)
    assert legend.split("; ") == [
        "red: 0, scale 0.75, map 64 x 64",
        "yellow: 4, scale 0.5, map 16 x 16",
        "cyan: 8, scale 0.5, map 4 x 4",
    ]


@pytest.mark.parametrize("modules, colours", [(1, ["red"]), (2, ["red", "yellow"]), (3, ["red", "yellow", "cyan"])])
def test_few_modules_are_drawn_once_each(make_model: Make, modules: int, colours: list[str]) -> None:
    model, records = make_model(3, Fixed(0.5), modules=modules)
    _, legend = draw(grey_pixels(2, 3, 8, 8), model, records)
    assert [part.partition(":")[0] for part in legend.split("; ")] == colours


@pytest.mark.parametrize("share", SHARES)
def test_a_shared_region_is_the_same_in_all_images(make_model: Make, share: Share) -> None:
    model, records = make_model(3, Fixed(0.25), share=share)
    tiles, _ = draw(grey_pixels(9, 3, 8, 8), model, records)
    assert (len({box_of(tile, RED) for tile in tiles}) == 1) == (share == "batch")


def test_several_regions_are_all_drawn(make_model: Make) -> None:
    counts = []
    for regions in (1, 3):
        model, records = make_model(3, Fixed(0.25), regions=regions)
        tiles, _ = draw(grey_pixels(1, 3, 8, 8), model, records, seed=1)
        counts.append(int((tiles[0] == torch.tensor(RED).view(3, 1, 1)).all(0).sum()))
    assert counts[0] < counts[1] <= 3 * counts[0] + 20  # lines at the rim of the picture are cut


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (16, 4)])
def test_without_srp_the_images_are_shown_as_they_are(make_model: Make, channels: int, size: tuple[int, int]) -> None:
    model, records = make_model(channels, None)
    pixels = torch.randint(0, 256, (9, channels, *size), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    tiles, legend = draw(pixels, model, records)
    assert legend == "global average pooling: no regions"
    enlarged = pixels.repeat_interleave(SIDE // size[0], 2).repeat_interleave(SIDE // size[1], 3)
    for tile, expected in zip(tiles, enlarged.expand(-1, 3, -1, -1), strict=True):
        assert (tile.int() - expected.int()).abs().max() <= 1


def test_the_seed_decides_and_nothing_is_changed(make_model: Make) -> None:
    model, records = make_model(3, Fixed(0.25))
    model.train()
    pixels = grey_pixels(9, 3, 8, 8)
    first, again, other = (draw(pixels, model, records, seed)[0] for seed in (0, 0, 1))
    assert all(torch.equal(tile, same) for tile, same in zip(first, again, strict=True))
    assert not all(torch.equal(tile, same) for tile, same in zip(first, other, strict=True))
    assert model.training
