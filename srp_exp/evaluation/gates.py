"""How much the gates differ, and how much they depend on where the map is pooled. Definitions: docs/evaluators.md."""

from typing import Any

import torch
from torch import Tensor

from srp_exp.evaluation.attention_calls import AttentionCall, measure_attention
from srp_exp.evaluation.evaluators import Subject
from srp_exp.seeding import derive
from srp_exp.srp import RegionPool

SCALE = 0.5
"""Scale of the regions that gates are measured with: the same for all runs, so that they can be compared."""


def gates(subject: Subject) -> dict[str, Any]:
    """Mean, variances and histogram of the gates of every module, and what random regions change, with seeded draws."""
    measures: list[GateMeasure] = []

    def new() -> GateMeasure:
        measures.append(GateMeasure())
        return measures[-1]

    device = next(subject.model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # not those of all GPUs of the machine
        torch.manual_seed(derive(subject.seed, "gates"))
        measured = measure_attention(subject, new)
    counts = {name: of.histogram.tolist() for name, of in zip(measured["modules"], measures, strict=True)}
    return {**measured, "histograms": counts}


BINS = 50
"""Of the histogram, equal parts of [0, 1]; what lies outside isn't counted."""


class GateMeasure:
    """Measures of the matrix (N, G) of gates, one row for each image; summed up in float64, on the device."""

    def __init__(self) -> None:
        self._images = 0
        self._sum = self._squares = torch.zeros(())  # by gate, (G,)
        self.histogram = torch.zeros(BINS)
        self._over_channels = self._gap = torch.zeros((), dtype=torch.float64)
        self._regions = RegionPool(SCALE)

    def add(self, call: AttentionCall, labels: Tensor) -> None:
        gate = call.gate.double()
        from_regions = call.gate_with(self._regions).double()
        self._images += len(gate)
        self.histogram = torch.histc(call.gate.float(), BINS, 0, 1) + self.histogram.to(gate.device)
        self._sum = gate.sum(0) + self._sum
        self._squares = gate.square().sum(0) + self._squares
        self._over_channels = gate.var(1, correction=0).sum() + self._over_channels
        self._gap = (from_regions - gate).abs().mean(1).sum() + self._gap

    def values(self) -> dict[str, float]:
        mean = self._sum / self._images
        over_images = (self._squares / self._images - mean.square()).clamp(min=0)
        return {
            "mean": float(mean.mean()),
            "variance_over_images": float(over_images.mean()),
            "variance_over_channels": float(self._over_channels) / self._images,
            "region_gap": float(self._gap) / self._images,
        }
