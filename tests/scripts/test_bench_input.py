"""The benchmark of reading, in short: it runs, and its pipelines are what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_input.py"


def test_reading_is_faster_than_torchvisions_preset_and_does_not_fill_the_memory() -> None:
    """The full form is held against 1.7 and 2.5; so few images on a busy machine against much less."""
    command = [sys.executable, str(SCRIPT), "--images", "200", "--rounds", "3", "--reads", "2000"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    from_folder, from_copy = (float(ratio) for ratio in re.findall(r"images/s, ratio (\S+)", output))
    assert from_folder > 1.1
    assert from_copy > 1.4
    memory = re.findall(r"(\d+) \+ (\d+) MiB", output)
    assert len(memory) == 4
    for early, late in zip(memory[::2], memory[1::2], strict=True):
        assert sum(map(int, late)) < sum(map(int, early)) + 150
    differences = [float(value) for value in re.findall(r"(\S+) of 255", output)]
    assert len(differences) == 5
    assert max(differences) < 5
