"""The trace of a few steps, and the batches that pass on unchanged."""

import json
from pathlib import Path

import pytest
import torch

from srp_exp.datasets import BatchLoader
from srp_exp.training.reporting.profiler import Profiled


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torch")  # that there is no GPU to profile
def test_three_steps_are_traced_once(dataset, tmp_path: Path) -> None:
    batches = BatchLoader(dataset, dataset.train, batch_size=2, seed=3)
    profiled = Profiled(batches, tmp_path)
    assert profiled.steps_per_epoch == batches.steps_per_epoch == 11
    for epoch in (0, 1):
        indices = []
        for number, batch in enumerate(profiled.epoch(epoch)):
            with torch.profiler.record_function(f"training step {number}"):
                indices.append(batch.index.tolist())
        assert indices == [batch.index.tolist() for batch in batches.epoch(epoch)]
    (file,) = tmp_path.iterdir()
    names = {event.get("name") for event in json.loads(file.read_text())["traceEvents"]}
    assert {number for number in range(11) if f"training step {number}" in names} == {7, 8, 9}
