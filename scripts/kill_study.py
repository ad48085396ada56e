"""Kill the grid of a study at random moments, give its command again, and compare the table with an undisturbed one.

    python scripts/kill_study.py [--kills 5] [--seed 0] [--control]

The study demo runs on generated images: three methods, two seeds, six short trainings. The grid, which runs on this
machine one training after the other, gets SIGKILL with all processes of its group, and the same command is given again
until it ends; grids that end before `--kills` kills are followed by further ones. Then
  - the tables must be the same: report.md, table.tex and table.csv to the byte, runs.csv without folders and the clock;
  - no finished run may have been touched: every file of a run folder that had results.json at a kill must still be the
    same file, with the same time of writing;
  - trainings are counted by what they log when they begin: one for each run, and one more at most for each kill.
Exit code 1 where that doesn't hold.

--control shows besides that it would be seen: it goes on in another order of the data, and with rerun=true, which
trains finished runs again.
"""

import argparse
import csv
import importlib
import importlib.util
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kill_harness import IMPORTED_LATE, IN_MEMORY, Attempt, another_order, start

GRID = (
    "study=demo", "study.pilot=true", "seed=0,1,2", *IN_MEMORY, "backbone.depth=8", "recipe.epochs=2",
    "checkpoint.every_steps=4",
)  # fmt: skip
RUNS = 6
IMPORTED_BY_REPORTS = ("matplotlib.figure", "scipy.stats", "jinja2", "srp_exp.studies.reports.report")
BEGINNING = " INFO run "
"""Stands in what a training logs first."""

Files = dict[Path, tuple[int, int]]


@dataclass
class Tormented:
    """A grid that was killed and has ended: what became of its finished runs, and how often one was trained."""

    output_dir: Path
    killed_with: list[int]
    seen: Files
    trainings: Counter[str]

    def faults(self, reference: dict[str, str]) -> list[str]:
        table = table_of(self.output_dir)
        found = [f"{name} differs" for name in reference if table.get(name) != reference[name]]
        now = finished_files(self.output_dir)
        found += [f"trained again: {path.parent.name}" for path in self.seen if self.touched(path, now)]
        begun = self.trainings.total()
        if not RUNS <= begun <= RUNS + len(self.killed_with) or len(self.trainings) != RUNS:
            found.append(f"{begun} trainings of {len(self.trainings)} runs after {len(self.killed_with)} kills")
        return found

    def touched(self, path: Path, now: Files) -> bool:
        return path.name == "results.json" and any(
            now.get(file) != self.seen[file] for file in self.seen if path.parent in file.parents
        )


def finished_files(output_dir: Path) -> Files:
    """Inode and time of writing of every file of the finished runs."""
    finished = [path.parent for path in output_dir.glob("runs/*/results.json")]
    files = (path for folder in finished for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def trainings(output_dir: Path) -> Counter[str]:
    """How often each run was begun, by its log."""
    logs = output_dir.glob("runs/*/run.log")
    return Counter(log.parent.name for log in logs for line in log.read_text().splitlines() if BEGINNING in line)


def table_of(output_dir: Path) -> dict[str, str]:
    """The report of the study in text, without what the clock and the place of the folder decide."""
    (folder,) = (output_dir / "reports").glob("demo*")
    names = ("report.md", "tables.tex", "entries.csv")
    table = {name: (folder / name).read_text().replace(str(output_dir), "") for name in names}
    table["report.md"] = table["report.md"].replace("'output_dir='", "output_dir=")  # quoted where a place has a space
    table["report.md"] = re.sub(r"(?m)^- training: .* core-hours$\n?", "", table["report.md"])
    with (folder / "runs.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["folder"] = Path(line["folder"]).name
        line.pop("training_seconds")
    return {**table, "runs.csv": repr(lines)}


def run_to_the_end(attempt: Attempt, output_dir: Path) -> None:
    attempt.wait()
    if attempt.runs() or attempt.code != 0:
        attempt.kill()
        raise RuntimeError(f"exit code {attempt.code}\n{(output_dir / 'printed.txt').read_text()[-3000:]}")


class Harness:
    """Grids of the study below `folder`; the first is not disturbed."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw = folder, draw
        output_dir = folder / "undisturbed"
        started = time.monotonic()
        attempt = start(GRID, output_dir)
        attempt.wait(until=lambda: any(output_dir.glob("runs/*/provenance.json")))
        self.startup = time.monotonic() - started
        run_to_the_end(attempt, output_dir)
        self.duration = time.monotonic() - started
        self.reference = table_of(output_dir)
        begun = trainings(output_dir)
        if len(begun) != RUNS or begun.total() != RUNS:
            raise RuntimeError(f"the undisturbed grid itself: {begun}")

    def torment(self, kills: int) -> Iterator[Tormented]:
        """Kill grids until there were `kills`; each goes on to its end."""
        left = kills
        while left:
            output_dir = self.folder / f"killed {kills - left}"
            killed_with: list[int] = []
            seen: Files = {}
            while True:
                attempt = start(GRID, output_dir)
                if len(killed_with) < left:
                    attempt.wait(self.startup * 0.8 + self.draw.uniform(0, 0.6) * (self.duration - self.startup))
                    if attempt.kill():
                        seen = finished_files(output_dir) | seen  # as each was when it was first seen finished
                        killed_with.append(len(list(output_dir.glob("runs/*/results.json"))))
                        continue
                run_to_the_end(attempt, output_dir)
                break
            left -= len(killed_with)
            yield Tormented(output_dir, killed_with, seen, trainings(output_dir))

    def control(self, name: str) -> list[str]:
        """The faults of a grid that is killed with one run finished, and goes on wrongly."""
        output_dir = self.folder / name
        attempt = start(GRID, output_dir)
        attempt.wait(until=lambda: any(output_dir.glob("runs/*/results.json")))
        if not attempt.kill():
            raise RuntimeError(f"the grid in {output_dir} ended before it could be killed")
        seen = finished_files(output_dir)
        finished = len(list(output_dir.glob("runs/*/results.json")))
        if name == "rerun":
            attempt = start((*GRID, "rerun=true"), output_dir)
        else:
            attempt = start(GRID, output_dir, another_order(output_dir))
        run_to_the_end(attempt, output_dir)
        return Tormented(output_dir, [finished], seen, trainings(output_dir)).faults(self.reference)


def show_control(harness: Harness) -> bool:
    expected = {"another order": "runs.csv differs", "rerun": "trained again"}
    missed = False
    for name, fault in expected.items():
        seen = [found for found in harness.control(name) if found.startswith(fault)]
        missed |= not seen
        print(f"{name:15}{'seen: ' + seen[0] if seen else 'NOT SEEN'}", flush=True)
    return missed


def show_torment(harness: Harness, kills: int) -> bool:
    failed, grids, begun, before = False, 0, 0, 0
    for grid in harness.torment(kills):
        faults = grid.faults(harness.reference)
        failed |= bool(faults)
        grids, begun, before = grids + 1, begun + grid.trainings.total(), before + sum(grid.killed_with)
        when = ", ".join(map(str, grid.killed_with))
        verdict = "; ".join(["DIFFERENT", *faults]) if faults else "same table, no finished run touched"
        print(f"grid {grids}: killed with {when} of {RUNS} runs finished: {verdict}", flush=True)
    print(
        f"{kills} kills over {grids} grids: {begun} trainings begun for {grids * RUNS} runs, {before} finished runs "
        f"were there at a kill: {'FAULTS' if failed else 'same tables, none trained twice'}"
    )
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--control", action="store_true", help="show besides that a fault would be seen")
    arguments = parser.parse_args()
    for module in (*IMPORTED_LATE, *IMPORTED_BY_REPORTS):  # or most kills would fall into imports
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    folder = Path(tempfile.mkdtemp(prefix="kill-study-"))
    harness = Harness(folder, random.Random(arguments.seed))
    failed = show_torment(harness, arguments.kills)
    if arguments.control:
        failed |= show_control(harness)
    if failed:
        sys.exit(f"what is wrong lies in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
