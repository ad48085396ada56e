"""SRP adds few launches to a training step."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from count_operations import SCHEDULES, compare

KERNELS = {"srp::region_mean", "srp::region_mean_backward"}


@pytest.mark.parametrize(
    ("network", "schedule", "share"),
    [("SE-ResNet-20", "scheduled", "sample"), ("SE-ResNet-20", "fixed", "batch"), ("seresnet50", "fixed", "sample")],
)
def test_launches_of_a_training_step(network: str, schedule: str, share: str) -> None:
    pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
    srp, gap = compare(network, SCHEDULES[schedule], share)
    assert srp.keys() >= KERNELS
    assert not KERNELS & gap.keys()
    assert srp.total() <= 1.08 * gap.total()
