"""The benchmark of the digest, in short: it runs, and measures what it says."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_digest.py"


def test_a_digest_is_measured_beside_a_start() -> None:
    """How large its share is, is judged by the full form, on a machine that does nothing else."""
    command = [sys.executable, str(SCRIPT), "--images", "40", "--classes", "4", "--rounds", "2"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert printed.startswith("40 training images: ")
    assert re.search(r"digest \d+\.\d+ s of a start of \d+\.\d+ s: \d+\.\d+% \(", printed)
