"""The short form of scripts/kill_harness.py, which says what is compared; and that it would see a difference."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
HARNESS = Path(__file__).resolve().parents[2] / "scripts" / "kill_harness.py"


def harness(folder: Path, *arguments: str, script: Path = HARNESS) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(HARNESS.parents[1]), "TMPDIR": str(folder)}
    return subprocess.run([sys.executable, str(script), *arguments], env=variables, capture_output=True, text=True)


def test_killed_runs_end_with_the_bits_of_undisturbed_ones(tmp_path) -> None:
    done = harness(tmp_path, "--kills", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r" 1 kills over \d+ runs? .*: same bits$", done.stdout, re.MULTILINE)) == 11
    assert "11 kills over 11 configurations: all the same" in done.stdout
    left = ("torchinductor", "pymp-")  # of killed processes that had workers
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(left)] == []


def test_the_harness_sees_another_order_of_the_data_and_a_changed_bit(tmp_path) -> None:
    done = harness(tmp_path, "--control", "--only", "every two steps")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"(another_order|one_bit) +seen: ", done.stdout)) == 2


def test_what_is_made_of_runs_is_whole_or_seen_not_to_be(tmp_path) -> None:
    script = HARNESS.with_name("kill_commands.py")
    done = harness(tmp_path, "--most", "3", script=script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 3 kills: nothing half-written is taken for whole") == 4
    done = harness(tmp_path, "--most", "2", "--only", "eval", "--control", script=script)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "eval         2 kills: FAULTS: " in done.stdout
