"""Time the command of a grid whose runs have all finished: what a rerun costs for each run that it skips.

    python scripts/bench_rerun.py [--seeds 20] [--rounds 3]

Run folders of the study demo, three methods with that many seeds, are made as finished trainings leave them, in a
temporary folder. The command is then timed as a user gives it, with Python's start, imports and the report, and once
more for one seed only. Their difference, over the runs in which they differ, is the cost of one run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from omegaconf import OmegaConf

from srp_exp.commands.report.command import plan_study
from srp_exp.config.identity import plain_values
from srp_exp.runs.folder.provenance import provenance

STUDY = ("study=demo", "device=cpu")
METHODS = 3


def finish_all(seeds: int, output_dir: Path) -> None:
    import torch

    origin = json.dumps(provenance(torch.device("cpu"), 1))
    _, grid = plan_study([*STUDY, f"seed=range({seeds})", f"output_dir={output_dir}"])
    for planned in grid.distinct():
        folder, top1 = planned.run.folder, 0.9 + 0.001 * (planned.seed % 7)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(plain_values(planned.config))))
        (folder / "provenance.json").write_text(origin)
        test = {"top1": top1, "top5": 1.0, "loss": 1 - top1}
        results = {"test": test, "epoch": 10, "parameters": 272_474, "training_seconds": 75.0}
        epochs = [{"epoch": epoch, "train/top1": top1, "test/top1": top1} for epoch in range(1, 11)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
        (folder / "results.json").write_text(json.dumps(results))


def time_command(seeds: int, folder: Path) -> tuple[float, float]:
    """Seconds by the clock, and of this process on the CPU, that the command takes."""
    command = [sys.executable, "-m", "srp_exp", *STUDY, f"seed=range({seeds})"]
    started, before = time.perf_counter(), os.times()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    seconds, after = time.perf_counter() - started, os.times()
    runs = METHODS * seeds
    if done.returncode or f"{runs} runs: {runs} finished" not in done.stdout:
        raise RuntimeError(f"not all runs were skipped:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="more than 1")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finish_all(arguments.seeds, folder / "outputs")
        time_command(arguments.seeds, folder)  # files into the cache
        rounds = [(time_command(arguments.seeds, folder), time_command(1, folder)) for _ in range(arguments.rounds)]
    more = METHODS * (arguments.seeds - 1)
    for place, clock in enumerate(("by the clock", "on the CPU")):
        all_runs, few = (statistics.median(pair[which][place] for pair in rounds) for which in (0, 1))
        print(
            f"{clock:13} {METHODS * arguments.seeds} finished runs: {all_runs:.2f} s, {METHODS}: {few:.2f} s; "
            f"for each run {(all_runs - few) / more:.3f} s"
        )


if __name__ == "__main__":
    main()
