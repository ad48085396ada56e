"""Gates that are known, by hand and by enumeration of all regions."""

import itertools

import numpy as np
import pytest
import torch
from timm.layers import SqueezeExcite
from torch import Tensor, nn

from srp_exp.evaluation.attention_calls import AttentionCall
from srp_exp.evaluation.gates import GateMeasure, gates

MEASURES = {"mean", "variance_over_images", "variance_over_channels", "region_gap"}


class GatedByItsMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True)


def measured(*batches: Tensor) -> dict[str, float]:
    """The measure of maps whose gate is their mean."""
    measure = GateMeasure()
    for maps in batches:
        gate = maps.mean((2, 3))
        measure.add(AttentionCall(maps, gate, lambda pool, maps=maps: pool(maps).flatten(1)), torch.empty(0))
    return measure.values()


def test_mean_and_variances() -> None:
    gate = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [0.5, 1.0]])
    maps = gate[:, :, None, None].expand(4, 2, 6, 5)
    values = measured(maps[:3], maps[3:])
    assert values["mean"] == pytest.approx(4.5 / 8)
    assert values["variance_over_images"] == pytest.approx(gate.var(0, correction=0).mean().item())
    assert values["variance_over_channels"] == pytest.approx((0.25 + 0 + 0.25 + 0.0625) / 4)
    assert values["region_gap"] == pytest.approx(0, abs=1e-7)  # on a constant map all regions are alike


def test_the_gap_to_regions_is_the_mean_over_all_regions() -> None:
    """Regions of scale 0.5 on 4 x 4 maps are 2 x 2: the mean over many draws nears that over the 9 of them."""
    torch.manual_seed(0)
    one = torch.rand(4, 4)
    enumerated = [
        (one[top : top + 2, left : left + 2].mean() - one.mean()).abs().item()
        for top, left in itertools.product(range(3), repeat=2)
    ]
    expected = sum(enumerated) / 9
    draws = 4000
    error = torch.tensor(enumerated).std(correction=0).item() / draws**0.5
    values = measured(one.expand(draws, 1, 4, 4))
    assert abs(values["region_gap"] - expected) < 5 * error
    assert error < expected / 50  # so that the test can fail


def test_in_a_network_the_gate_is_that_of_the_module(subject) -> None:
    a = subject(GatedByItsMean())
    values = gates(a)["modules"]["attention"]
    maps = [a.model.stem(batch.images).detach() for batch in a.batches()]
    gate = torch.cat([x.mean((2, 3)) for x in maps]).double()
    assert values["mean"] == pytest.approx(gate.mean().item(), abs=1e-6)
    assert values["variance_over_images"] == pytest.approx(gate.var(0, correction=0).mean().item(), rel=1e-4)
    assert values["variance_over_channels"] == pytest.approx(gate.var(1, correction=0).mean().item(), rel=1e-4)
    assert values["region_gap"] > 0
    counts, _ = np.histogram(gate.float().numpy(), 50, (0, 1))
    assert gates(a)["histograms"] == {"attention": counts.tolist()}
    assert 0 < counts.sum() < gate.numel()  # gates below 0 aren't counted


def test_draws_repeat_and_leave_the_random_state_alone(subject) -> None:
    a = subject(SqueezeExcite(8))
    before = torch.get_rng_state()
    first = gates(a)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert gates(a) == first
    assert first["summary"].keys() == MEASURES
    assert first["summary"]["region_gap"] > 0
