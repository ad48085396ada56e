"""In how wide a part of their maps channels respond. Definitions and how to read them: docs/evaluators.md."""

from typing import Any

import torch
from torch import Tensor

from srp_exp.evaluation.attention_calls import AttentionCall, measure_attention
from srp_exp.evaluation.evaluators import Subject


def responses(subject: Subject) -> dict[str, Any]:
    """Width of the responses in the maps that are pooled, of every module."""
    return measure_attention(subject, ResponseMeasure)


class ResponseMeasure:
    """Means over all maps (H, W) of all images and channels for which a value is defined; summed up on the device."""

    def __init__(self) -> None:
        self._maps = 0
        self._positive = self._nonzero = torch.zeros((), dtype=torch.int64)
        self._half_maximum = self._participation = torch.zeros((), dtype=torch.float64)

    def add(self, call: AttentionCall, labels: Tensor) -> None:
        maps = call.feature_map.float().flatten(-2).flatten(0, -2)  # (B * C, H * W)
        positive = maps.amax(-1) > 0
        nonzero = maps.abs().amax(-1) > 0
        self._maps += len(maps)
        self._positive = positive.sum() + self._positive
        self._nonzero = nonzero.sum() + self._nonzero
        self._half_maximum = _sum(half_maximum_share(maps), positive) + self._half_maximum
        self._participation = _sum(participation_ratio(maps), nonzero) + self._participation

    def values(self) -> dict[str, float]:
        nan = float("nan")
        positive, nonzero = int(self._positive), int(self._nonzero)
        return {
            "half_maximum_share": float(self._half_maximum) / positive if positive else nan,
            "participation_ratio": float(self._participation) / nonzero if nonzero else nan,
            "silent_share": 1 - positive / self._maps,
        }


def _sum(values: Tensor, counted: Tensor) -> Tensor:
    """Of those that are counted, in float64; picking them out would wait for the device."""
    return values.double().where(counted, 0.0).sum()


def half_maximum_share(maps: Tensor) -> Tensor:
    """Part of the positions (M, P) above half of the map's maximum, which must be positive: (M,), in [1/P, 1].

    The two-dimensional counterpart of the full width at half maximum of a peak.
    """
    return (maps > maps.amax(-1, keepdim=True) / 2).float().mean(-1)


def participation_ratio(maps: Tensor) -> Tensor:
    """(sum |x|)^2 / (P * sum x^2) over the P positions of maps (M, P) that aren't all zero: (M,), in [1/P, 1].

    1 for a map of one absolute value, k/P where k positions are equal and the others 0. It is the sparseness of Treves
    and Rolls, "What determines the capacity of autoassociative memories in the brain?", Network 2 (1991), and the
    participation ratio of Bell and Dean, Discuss. Faraday Soc. 50 (1970), of the weights |x|.
    """
    x = maps.abs()
    x = x / x.amax(-1, keepdim=True)  # the ratio stays, and no square overflows or underflows
    return x.sum(-1).square() / (x.shape[-1] * x.square().sum(-1))
