"""The benchmark of reading, in short: it runs, and its pipelines are what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_input.py"


def test_every_pipeline_is_measured_and_shows_the_same_picture() -> None:
    """Speed and memory are judged by the full form, on a machine that does nothing else."""
    command = [sys.executable, str(SCRIPT), "--images", "200", "--rounds", "3", "--reads", "2000"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout
    ratios = dict(re.findall(r"(.*): .* images/s, ratio (\S+)", output))
    assert list(ratios) == [
        "timm's pipeline", "from the folder", "from a table, at random",
        "from the copy prepared with resize=256",
    ]  # fmt: skip
    assert len(re.findall(r"(\d+) \+ (\d+) MiB", output)) == 4
    differences = [float(value) for value in re.findall(r"(\S+) of 255", output)]
    assert len(differences) == 1
    assert max(differences) < 5
