"""Widths of responses on maps whose values are known."""

import math

import pytest
import torch
from torch import Tensor

from srp_exp.evaluation.attention_calls import AttentionCall
from srp_exp.evaluation.responses import ResponseMeasure, half_maximum_share, participation_ratio


def call(maps: Tensor) -> AttentionCall:
    return AttentionCall(maps, torch.empty(0), lambda _: torch.empty(0))


KNOWN = [
    ([2.0, 2.0, 2.0, 2.0], 1, 1),
    ([0.0, 0.0, 7.0, 0.0], 1 / 4, 1 / 4),
    ([3.0, 0.0, 3.0, 0.0], 2 / 4, 2 / 4),
    ([4.0, 2.0, 2.1, 0.0], 2 / 4, 8.1**2 / (4 * (16 + 4 + 2.1**2))),  # half of the maximum isn't above it
    ([1.0, -1.0, -1.0, 1.0], 2 / 4, 1),  # the ratio is of absolute values
    ([1e-30, 0.0, 0.0, 1e-30], 2 / 4, 2 / 4),
    ([1e30, 1e30, 0.0, 0.0], 2 / 4, 2 / 4),
]


def test_known_maps() -> None:
    for positions, width, ratio in KNOWN:
        maps = torch.tensor([positions])
        assert half_maximum_share(maps).item() == pytest.approx(width)
        assert participation_ratio(maps).item() == pytest.approx(ratio, rel=1e-6)


def test_the_measure_is_the_mean_over_images_and_channels() -> None:
    maps = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0)) - 0.3
    measure = ResponseMeasure()
    measure.add(call(maps[:2]), torch.empty(0))
    measure.add(call(maps[2:]), torch.empty(0))
    widths, ratios = [], []
    for image in maps:
        for channel in image:
            x = channel.flatten().tolist()
            widths.append(sum(value > max(x) / 2 for value in x) / len(x))
            ratios.append(sum(map(abs, x)) ** 2 / (len(x) * sum(value**2 for value in x)))
    values = measure.values()
    assert values["half_maximum_share"] == pytest.approx(sum(widths) / len(widths), rel=1e-6)
    assert values["participation_ratio"] == pytest.approx(sum(ratios) / len(ratios), rel=1e-6)
    assert values["silent_share"] == 0


def test_silent_maps_are_counted_and_left_out() -> None:
    measure = ResponseMeasure()
    one_hot = torch.zeros(2, 2)
    one_hot[0, 1] = 5
    maps = torch.stack([torch.zeros(2, 2), torch.full((2, 2), -1.0), one_hot, one_hot])[None]
    measure.add(call(maps), torch.empty(0))
    values = measure.values()
    assert values["silent_share"] == 0.5  # the map of zeros and the negative one
    assert values["half_maximum_share"] == pytest.approx(1 / 4)
    assert values["participation_ratio"] == pytest.approx((1 + 1 / 4 + 1 / 4) / 3)  # only zeros have none


def test_nothing_is_defined_where_all_is_zero() -> None:
    measure = ResponseMeasure()
    measure.add(call(torch.zeros(2, 3, 4, 4)), torch.empty(0))
    values = measure.values()
    assert values.pop("silent_share") == 1
    assert all(math.isnan(value) for value in values.values())


def test_a_map_of_more_axes_and_half_precision() -> None:
    measure = ResponseMeasure()
    measure.add(call(torch.full((2, 3, 4, 5, 5), 300.0, dtype=torch.float16)), torch.empty(0))  # squares overflow
    assert measure.values() == {"half_maximum_share": 1, "participation_ratio": pytest.approx(1), "silent_share": 0}
