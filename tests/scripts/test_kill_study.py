"""The short form of scripts/kill_study.py, which says what is compared; and that it would see a fault."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_study.py"


def kill_study(folder: Path, *arguments: str) -> str:
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SCRIPT.parents[1]), "TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path for path in folder.iterdir() if path.name.startswith("kill-study")] == []
    return done.stdout


def test_a_killed_grid_ends_with_the_same_table_and_a_fault_would_be_seen(tmp_path) -> None:
    shown = kill_study(tmp_path, "--kills", "2", "--seed", "1", "--control")
    grids = re.findall(r"^grid \d+: killed with [\d, ]+ of 6 runs finished: same table, no .*touched$", shown, re.M)
    assert len(grids) in (1, 2)
    total = re.search(r"^2 kills over (\d) grids: (\d+) trainings .* same tables, none trained twice$", shown, re.M)
    assert total is not None
    assert len(grids) == int(total[1])
    assert len(grids) * 6 <= int(total[2]) <= len(grids) * 6 + 2
    assert len(re.findall(r"^(another order|rerun) +seen: ", shown, re.M)) == 2
