"""Random regions of a feature map, and the module that keeps one in front of a pooling.

Source: Stochastic Region Pooling (Luo, Wen, Hu, Dai, Xu; arXiv:1904.09853). The descriptor of a training step is
the mean over a random region R of the map instead of over the whole map:

    z_c = 1/|R| * sum_{(i, j) in R} x_c(i, j)

Differs from the publication: none known; docs/method.md lists what its summary leaves open and what we chose.
"""

import operator
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Share: TypeAlias = Literal["sample", "batch"]
SHARES: tuple[Share, ...] = ("sample", "batch")
Side: TypeAlias = int | Tensor
"""A side length in positions: a Python int, or a 0-dim int64 tensor where it may change without recompilation."""

_UNITS = 10**9
"""Scales are counted in billionths, so that a decimal such as 0.3 is exact and halves round up as written."""


def check_scale(scale: float, where: str = "scale") -> float:
    """Return `scale` as a float; raise ValueError, naming `where`, unless it lies in (0, 1]."""
    if not 0 < scale <= 1:
        raise ValueError(f"{where}={scale} is not in (0, 1]: it is the region's side over the map's side")
    return float(scale)


def region_side(scale: float, map_side: int) -> int:
    """Side of a region in positions: max(1, floor(scale * map_side + 0.5)), a half rounding up."""
    return int(_side_from_units(round(scale * _UNITS), map_side))


def _side_from_units(units: Side, map_side: int) -> Side:
    side = (units * map_side + _UNITS // 2) // _UNITS
    return side.clamp(min=1) if isinstance(side, Tensor) else max(1, side)


def draw_offsets(shape: tuple[int, ...], range_: Side, device: torch.device) -> Tensor:
    """Draw offsets uniformly from {0, ..., range_ - 1} as an int64 tensor of `shape`, from the device's default RNG.

    A float32 uniform number u <= 1 - 2**-24 never rounds u * range_ up to range_, so no offset falls outside.
    """
    return (torch.rand(shape, device=device, dtype=torch.float32) * range_).to(torch.int64)


def region_weights(top: Tensor, left: Tensor, region: tuple[Side, Side], map_size: tuple[int, int]) -> Tensor:
    """Weights (N, 1, H, W), float32, that turn the mean over a map into the mean over k regions of it.

    `top` and `left` (N, k) are the regions' upper left corners, `region` their (h, w), `map_size` the map's (H, W).
    Every position counts as often as regions cover it, times H*W / (k*h*w); a region as large as the map
    gives exactly 1 everywhere.
    """
    (height, width), (map_height, map_width) = region, map_size
    rows = torch.arange(map_height, device=top.device)
    columns = torch.arange(map_width, device=left.device)
    in_rows = (rows >= top[..., None]) & (rows < top[..., None] + height)  # (N, k, H)
    in_columns = (columns >= left[..., None]) & (columns < left[..., None] + width)  # (N, k, W)
    covered = (in_rows[..., :, None] & in_columns[..., None, :]).sum(1, keepdim=True)  # (N, 1, H, W)
    return covered * float(map_height * map_width) / (top.shape[1] * height * width)


class RandomRegion(nn.Module):
    """Crop of a feature map (B, C, H, W) or (B, P, C, H, W) to random regions in training; identity in evaluation.

    Meant to stand in front of a global average pooling. The crop is a view where one region serves the whole batch,
    and otherwise the map times `region_weights`, whose mean is the mean over the regions: the same number at
    a lower cost than a gather per sample. It draws from the default RNG of torch, in evaluation never.

    Args:
        scale: side of the region over the side of the map, in (0, 1]; 1 is the whole map.
        share: "sample" draws for every image, "batch" once for the whole batch.
        regions: number of regions, >= 1, whose positions are pooled together.
        allow_view: False where the pooling behind needs the full map's size.
    """

    scale_units: Tensor

    def __init__(
        self, scale: float = 1.0, share: Share = "sample", regions: int = 1, *, allow_view: bool = True
    ) -> None:
        super().__init__()
        if share not in SHARES:
            raise ValueError(f"share={share!r} is not one of {', '.join(SHARES)}")
        if regions < 1:
            raise ValueError(f"regions={regions} is below 1: at least one region is pooled")
        self.share = share
        self.regions = operator.index(regions)
        self.final_scale = check_scale(scale)
        self.allow_view = allow_view
        self.scale = self.final_scale
        # Compiled code reads the scale from this tensor, since a number would be compiled in. Integers survive
        # model.half(); the buffer isn't persistent, so the state_dict is that of the plain model.
        self.register_buffer("scale_units", torch.tensor(round(scale * _UNITS)), persistent=False)

    def set_ramp(self, ramp: float) -> None:
        """Move the scale to 1 - (1 - final_scale) * ramp, with `ramp` in [0, 1]; no recompilation follows."""
        self.scale = 1 - (1 - self.final_scale) * ramp
        self.scale_units.fill_(round(self.scale * _UNITS))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., H, W) to a tensor whose mean over the last two axes is the mean over the drawn regions."""
        if not self.training:
            return x
        map_size = (x.shape[-2], x.shape[-1])
        compiling = torch.compiler.is_compiling()
        if self.share == "batch" and self.regions == 1 and self.allow_view and not compiling:
            return self._view(x, map_size)
        scale = self.scale_units if compiling else round(self.scale * _UNITS)
        region = (_side_from_units(scale, map_size[0]), _side_from_units(scale, map_size[1]))
        top, left = self.draw(x.shape[0], map_size, region, x.device)
        weights = region_weights(top, left, region, map_size).to(x.dtype)
        return x * weights.view(weights.shape[0], *[1] * (x.dim() - 3), *map_size)

    def draw(
        self, batch: int, map_size: tuple[int, int], region: tuple[Side, Side], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Draw the upper left corners (top, left), each int64 (N, k), N = `batch`, or 1 where the batch shares."""
        shape = (batch if self.share == "sample" else 1, self.regions)
        top = draw_offsets(shape, map_size[0] - region[0] + 1, device)
        left = draw_offsets(shape, map_size[1] - region[1] + 1, device)
        return top, left

    def _view(self, x: Tensor, map_size: tuple[int, int]) -> Tensor:
        height, width = region_side(self.scale, map_size[0]), region_side(self.scale, map_size[1])
        top, left = self.draw(1, map_size, (height, width), torch.device("cpu"))  # on the CPU: no device sync
        return x.narrow(-2, int(top), height).narrow(-1, int(left), width)

    def extra_repr(self) -> str:
        return f"scale={self.scale:.4g}, share={self.share}, regions={self.regions}"
