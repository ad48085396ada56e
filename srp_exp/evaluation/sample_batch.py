"""A sample batch of training with the regions drawn on it, as a first step may draw them."""

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor, nn

from srp_exp.evaluation.figures import grid, short, style
from srp_exp.srp import Regions, SrpRecord, srp_modules

LOOKS = (("#e69f00", "-"), ("#56b4e9", "--"), ("#f0e442", ":"))
"""Colour and line of a module's regions: orange, sky blue and yellow of Okabe and Ito, for colour-blind readers."""


@style()
def sample_batch(
    images: Tensor, labels: Sequence[str], model: nn.Module, records: Sequence[SrpRecord], columns: int = 4
) -> Figure:
    """Pictures (B, C, H, W) in [0, 1] with their labels and regions, and a legend.

    Drawn are the regions of the shallowest, the middle and the deepest attention module. Uses torch's default RNG.
    """
    shown = sorted({0, len(records) // 2, len(records) - 1}) if records else []
    figure = grid(images, short(labels), columns=columns, below=0.25 + 0.2 * len(shown))
    handles: list[Line2D] = []
    edge = withStroke(linewidth=3.5, foreground="#333333")  # so that yellow shows on white too
    for index, (colour, dashes) in zip(shown, LOOKS, strict=False):
        record = records[index]
        line: Any = {"color": colour, "linestyle": dashes, "linewidth": 2, "path_effects": [edge]}
        for axes, regions in zip(figure.axes, parts_of_regions(model, record, len(images)), strict=True):
            for top, left, bottom, right in regions.tolist():
                place, sides = (left, 1 - bottom), (right - left, bottom - top)
                axes.add_patch(Rectangle(place, *sides, fill=False, clip_on=False, transform=axes.transAxes, **line))
        height, width = record.map_size
        label = f"{record.name}: scale {record.scale:.3g} of a map of {height} x {width}"
        handles.append(Line2D([], [], **line, label=label))
    if handles:
        figure.legend(handles=handles, loc="lower left", fontsize=8, handlelength=3)
    title = "Pictures as training sees them, and regions that a step may pool over"
    if not handles:
        title = "Pictures as training sees them; global average pooling, no regions"
    figure.suptitle(title, y=1 - 0.08 / figure.get_figheight(), va="top", fontsize=10)
    return figure


def parts_of_regions(model: nn.Module, record: SrpRecord, batch: int) -> list[Tensor]:
    """For each picture (n, 4): top, left, bottom and right of its regions, as parts of its sides.

    A region that wraps around the edge of the map is several.
    """
    pool = srp_modules(model)[record.name]
    sides = pool.sides(record.map_size)
    images = batch if pool.share == "sample" else 1
    corners = pool.corners(Regions(torch.rand(2, images, pool.regions), sides, record.map_size))
    regions = torch.cat([corners, corners + torch.tensor(sides)], -1).expand(batch, -1, -1)
    limits = torch.tensor([*record.map_size, *record.map_size])
    around = [torch.tensor([down, right] * 2) * limits for down in (0, -1) for right in (0, -1)]
    parts = torch.cat([(regions + shift).clamp(min=0).minimum(limits) for shift in around], 1)
    inside = (parts[..., 2] > parts[..., 0]) & (parts[..., 3] > parts[..., 1])
    return [part[shown] / limits for part, shown in zip(parts, inside, strict=True)]
