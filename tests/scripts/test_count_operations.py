"""SRP adds few operations to a training step."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from count_operations import NETWORKS, SCHEDULES, compare


@pytest.mark.parametrize("share", ["sample", "batch"])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("network", NETWORKS)
def test_operations_of_a_training_step(network: str, schedule: str, share: str) -> None:
    with_srp, gap = compare(network, SCHEDULES[schedule], share)
    assert with_srp.operations > gap.operations
    assert with_srp.operations <= 1.25 * gap.operations
    assert with_srp.computing <= 1.25 * gap.computing
