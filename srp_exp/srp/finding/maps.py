"""Values that may be pooled: maps, and what has no height and width beside them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srp_exp.srp.finding.graph import Edge

_EXACT, _INEXACT = 1e-9, 1e-4
"""Of a mean, relative to the largest deviation from it in the map: in float64, and where a type is lower."""


class MapKind(NamedTuple):
    """What is pooled, and the axes of its mean."""

    name: str
    axes: tuple[int, ...]


PLANE = MapKind("a map (B, ..., H, W)", (-2, -1))
SEQUENCE = MapKind("a sequence (B, C, L)", (2,))
TOKENS = MapKind("a sequence of tokens (B, L, C)", (1,))
CHANNELS_LAST = MapKind("a map that is channels last, (B, H, W, C)", (1, 2))
VOLUME = MapKind("a volume (B, C, D, H, W)", (2, 3, 4))
_KINDS = {3: (TOKENS, SEQUENCE), 4: (CHANNELS_LAST, PLANE), 5: (VOLUME, PLANE), 6: (PLANE,)}


@dataclass(eq=False)
class Map:
    """A value that functions were called with, its mean, and the largest deviation from it."""

    kind: MapKind
    edge: Edge
    shape: torch.Size
    mean: Tensor
    spread: float
    calls: dict[Any, Any] = field(default_factory=dict)
    """By the frame of a module, the last call with it and where it was."""

    def holds_mean(self, value: Tensor, times: float = 1) -> bool:
        """Whether `value`, of any shape that begins with the batch, holds the mean, `times` a number."""
        if not value.is_floating_point() or (value.numel(), value.shape[:1]) != (self.mean.numel(), self.shape[:1]):
            return False
        if not 0 < self.spread < torch.inf:
            return False
        is_exact = value.dtype == self.mean.dtype == torch.float64
        tolerance = (_EXACT if is_exact else _INEXACT) * self.spread * abs(times)
        return bool((value.detach().flatten() - times * self.mean).abs().amax() <= tolerance)

    def holds_multiple(self, value: Tensor) -> bool:
        """Whether `value` holds a multiple of the mean, such as the sum."""
        if self.kind is not PLANE or value.numel() != self.mean.numel():
            return False
        largest = self.mean.abs().argmax()
        times = float(value.detach().flatten()[largest] / self.mean[largest])
        return times != 0 and self.holds_mean(value, times)

    def varies(self) -> bool:
        """Whether it isn't the same everywhere."""
        return self.spread > _EXACT * float(self.mean.abs().amax())


def maps_of(edge: Edge, value: Tensor) -> list[Map]:
    """The maps that a value may be, one for each kind."""
    maps = []
    for kind in _KINDS.get(value.dim(), ()):
        # one channel in each group is taken for a volume whose depth was pooled to 1
        if kind is PLANE and value.dim() == 5 and value.shape[2] == 1:
            continue
        if all(value.shape[axis] > 1 for axis in kind.axes[-2:]) and value.numel():
            mean = value.mean(kind.axes, keepdim=True)
            maps.append(Map(kind, edge, value.shape, mean.flatten(), float((value - mean).abs_().amax())))
    return maps
