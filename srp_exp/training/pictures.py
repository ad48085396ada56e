"""A sample batch with the regions drawn on it, for TensorBoard."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import draw_bounding_boxes, make_grid

from srp_exp.srp import Regions, SrpRecord, srp_modules

COLOURS = ("red", "yellow", "cyan")
SIDE = 128
"""Side of an image in the picture, in pixels."""


def regions_on_images(
    images: Tensor, model: nn.Module, records: list[SrpRecord], mean: Tensor, std: Tensor
) -> tuple[Tensor, str]:
    """Picture (3, H', W') uint8 of normalised images (B, C, H, W) with regions as a step may draw them, and its legend.

    Drawn are the regions of the shallowest, the middle and the deepest attention module. Uses torch's default RNG.
    """
    chosen = sorted({0, len(records) // 2, len(records) - 1}) if records else []
    pixels = ((images.cpu() * std.view(-1, 1, 1) + mean.view(-1, 1, 1)).clamp(0, 1) * 255).to(torch.uint8)
    pictures = [_enlarge(image) for image in pixels]
    legend = []
    for index, colour in zip(chosen, COLOURS, strict=False):
        record = records[index]
        boxes = _boxes(model, record, len(images))
        pictures = [
            draw_bounding_boxes(picture, box, colors=[colour] * len(box), width=2)
            for picture, box in zip(pictures, boxes, strict=True)
        ]
        legend.append(
            f"{colour}: {record.name}, scale {record.scale:.3g}, map {record.map_size[0]} x {record.map_size[1]}"
        )
    return make_grid(pictures, nrow=4), "; ".join(legend) or "global average pooling: no regions"


def _enlarge(image: Tensor) -> Tensor:
    rgb = image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]
    return F.interpolate(rgb[None], size=(SIDE, SIDE), mode="nearest")[0]


def _boxes(model: nn.Module, record: SrpRecord, batch: int) -> list[Tensor]:
    """For each image boxes (n, 4) as left, top, right, bottom in pixels of the picture; parts, where a region wraps."""
    pool = srp_modules(model)[record.name]
    height, width = record.map_size
    sides = pool.sides(record.map_size)
    images = batch if pool.share == "sample" else 1
    corners = pool.corners(Regions(torch.rand(2, images, pool.regions), sides, record.map_size))
    regions = torch.cat([corners, corners + torch.tensor(sides)], -1).expand(batch, -1, -1)
    limits = torch.tensor([height, width, height, width])
    around = [torch.tensor([down, right] * 2) * limits for down in (0, -1) for right in (0, -1)]
    parts = torch.cat([(regions + shift).clamp(min=0).minimum(limits) for shift in around], 1)
    boxes = (parts * SIDE / limits).round().clamp(max=SIDE - 1)[..., [1, 0, 3, 2]]
    inside = ((parts[..., 2] > parts[..., 0]) & (parts[..., 3] > parts[..., 1])).unbind(0)
    return [image[shown] for image, shown in zip(boxes.unbind(0), inside, strict=True)]
