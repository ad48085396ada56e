"""Batch norm statistics gathered again: the row is that of the run, and the statistics depend on the regions."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "batch_norms_again.py"


def test_a_run_is_evaluated_as_trained_and_with_other_statistics(command_line, tmp_path) -> None:
    sizes = ["dataset.train_size=256", "dataset.test_size=900", "dataset.num_classes=4"]
    short = ["recipe.epochs=1", "recipe.batch_size=32", "recipe.lr=0.02", "device=cpu", f"output_dir={tmp_path}"]
    outcome = command_line("dataset=synthetic", "srp=fixed", "srp.scale=0.3", *sizes, *short)
    assert outcome.code == 0, outcome.err
    (run,) = (tmp_path / "runs").iterdir()
    printed = subprocess.run([sys.executable, str(SCRIPT), str(run)], capture_output=True, text=True, check=True).stdout
    cells = [cell.strip() for cell in printed.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == run.name
    trained, with_regions, without = (float(cell) for cell in cells[1:])
    assert trained == round(100 * json.loads((run / "results.json").read_text())["test"]["top1"], 2)
    assert trained != with_regions  # eight steps' statistics begin at 0 and 1
    assert with_regions != without
