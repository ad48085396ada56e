"""Schedules of the region scale over the depth of a network and over training time.

A depth schedule is any callable from a `Depth` to a scale in (0, 1]. With l = 0..L-1 the attention modules in the order
in which they run and d = l/(L-1) (0 where L = 1):

    Fixed:   scale                      Linear: first + (last - first) * d
    Stages:  one scale per stage        Cosine: first + (last - first) * (1 - cos(pi * d)) / 2

Source: arXiv:1904.09853 states that a scale falling with depth ("scheduled SRP") beats a fixed one; the exact
curve is our choice (docs/method.md).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from srp_exp.errors import UserError
from srp_exp.srp.region import check_scale


@dataclass(frozen=True)
class Depth:
    """Where an attention module stands: the `index`-th of `count` in running order, in `stage` of `num_stages`.

    A stage is a run of modules whose maps have the same size; all numbers count from 0.
    """

    index: int
    count: int
    stage: int
    num_stages: int

    @property
    def fraction(self) -> float:
        """d = l/(L-1) in [0, 1]; 0 where there is one module."""
        return self.index / (self.count - 1) if self.count > 1 else 0.0


Schedule: TypeAlias = Callable[[Depth], float]


@dataclass(frozen=True)
class Fixed:
    """The same scale at every depth.

    Args:
        scale: side of the region over the side of the map, in (0, 1].

    Raises:
        UserError: the scale is out of range.

    Example:
        >>> Fixed(0.7)(Depth(index=2, count=3, stage=0, num_stages=1))
        0.7
    """

    scale: float = 0.5

    def __post_init__(self) -> None:
        check_scale(self.scale, "scale")

    def __call__(self, depth: Depth) -> float:
        return self.scale


@dataclass(frozen=True)
class Linear:
    """A scale that changes linearly with depth.

    Args:
        first: scale of the shallowest attention module, in (0, 1].
        last: scale of the deepest, in (0, 1].

    Raises:
        UserError: a scale is out of range.

    Example:
        >>> Linear(1.0, 0.5)(Depth(index=1, count=3, stage=0, num_stages=1))
        0.75
    """

    first: float = 1.0
    last: float = 0.5

    def __post_init__(self) -> None:
        check_scale(self.first, "first")
        check_scale(self.last, "last")

    def __call__(self, depth: Depth) -> float:
        return self.first + (self.last - self.first) * depth.fraction


@dataclass(frozen=True)
class Cosine(Linear):
    """A scale that follows half a cosine over depth: it changes slowly at both ends.

    Args:
        first: scale of the shallowest attention module, in (0, 1].
        last: scale of the deepest, in (0, 1].

    Raises:
        UserError: a scale is out of range.

    Example:
        >>> Cosine(1.0, 0.5)(Depth(index=1, count=3, stage=0, num_stages=1))
        0.75
    """

    def __call__(self, depth: Depth) -> float:
        return self.first + (self.last - self.first) * (1 - math.cos(math.pi * depth.fraction)) / 2


@dataclass(frozen=True)
class Stages:
    """One scale for each stage of the network.

    Args:
        scales: in (0, 1], of the shallowest stage first.

    Raises:
        UserError: a scale is out of range; when called, the network has a different number of stages.

    Example:
        >>> Stages([1.0, 0.5])(Depth(index=4, count=5, stage=1, num_stages=2))
        0.5
    """

    scales: Sequence[float]

    def __post_init__(self) -> None:
        for stage, scale in enumerate(self.scales):
            check_scale(scale, f"scales[{stage}]")

    def __call__(self, depth: Depth) -> float:
        if len(self.scales) != depth.num_stages:
            raise UserError(
                f"scales={list(self.scales)} has {len(self.scales)} values, but the attention modules of this "
                f"network lie in {depth.num_stages} stages: give {depth.num_stages} values"
            )
        return self.scales[depth.stage]


def ramp(progress: float, until: float) -> float:
    """Weight of SRP in [0, 1] at training `progress` in [0, 1]: rising in a straight line, 1 from `until` in (0, 1] on.

    The scale at that time is 1 - (1 - scale) * ramp, so training begins with global average pooling.
    """
    return min(1.0, progress / until)
