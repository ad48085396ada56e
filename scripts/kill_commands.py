"""Kill what is made of finished runs, at every moment at which it touches a file, and look for halves.

    python scripts/kill_commands.py [--only eval export compare report] [--most 40]

Six short trainings of the study demo are evaluated, exported, compared and reported. Each command is done once, for
reference. Then all its files are replaced by older ones, and the command gets SIGKILL before the first time that it
opens for writing, renames or removes a file there; then before the second time, and so on (`--most` of them, evenly,
where there are more). After each kill
  - every file must be an old one or a new one, whole, and the last one that the command writes may only exist where
    all are old or all are new;
  - the runs must be as they were;
  - the command, given again, must end with the files of the reference.
Exit code 1 where that doesn't hold. --control shows that it would be seen: it writes the files in place.
"""

import argparse
import functools
import importlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from kill_harness import COMMON, IMPORTED_LATE, IN_MEMORY, Attempt, Change, fork, start

import srp_exp.files as files
from srp_exp.__main__ import main as srp_exp
from srp_exp.commands.report.command import main as srp_report

GRID = ("study=demo", "study.pilot=true", "seed=0,1", *IN_MEMORY, "backbone.depth=8", "recipe.epochs=1")
IMPORTED = (
    "matplotlib.figure", "scipy.stats", "jinja2", "safetensors", "srp_exp.commands.evaluate",
    "srp_exp.commands.export", "srp_exp.commands.compare", "srp_exp.studies.reports.report",
)  # fmt: skip
TOUCHING = ("os.rename", "os.remove")
Files = dict[str, bytes]


@dataclass(frozen=True)
class Command:
    """A command, the folder into which it writes, and the file that it writes last."""

    call: Change
    arguments: list[str]
    folder: Path
    last: str


def commands(output_dir: Path) -> dict[str, Command]:
    configs = sorted((output_dir / "runs").glob("*/config.yaml"))
    one, other = [path.parent for path in configs if "\nseed: 0\n" in path.read_text()][:2]
    named = ["srp-exp", f"run={one}", "device=cpu"]
    compared = output_dir / "reports" / f"compare-{one.name}-{other.name}"
    (reported,) = (output_dir / "reports").glob("demo*")  # by the grid, at its end
    report = ["srp-report", *COMMON, *GRID, f"output_dir={output_dir}"]
    return {
        "eval": Command(srp_exp, [*named, "mode=eval"], one / "evaluation" / "test", "metrics.json"),
        "export": Command(
            srp_exp, [*named, "mode=export", "format=safetensors"], one / "export", "model.safetensors.json"
        ),
        "compare": Command(
            srp_exp, [*named, "mode=compare", f"other={other}", f"output_dir={output_dir}"], compared, "test.md"
        ),
        "report": Command(srp_report, report, reported, "report.md"),
    }


def read(folder: Path) -> Files:
    """What lies in a folder, but for what is named as unfinished."""
    found = {path.name: path for path in folder.iterdir() if path.is_file() and not path.name.endswith(files.TEMPORARY)}
    return {name: path.read_bytes() for name, path in found.items()}


def die_before(moment: int, folder: Path, note: Path | None = None) -> None:
    """Let this process get SIGKILL when it touches a file of `folder` for the `moment`-th time; count in `note`."""
    touched = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not (writes or event in TOUCHING) or not str(arguments[0]).startswith(str(folder)):
            return
        if touched == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        touched += 1
        if note is not None:
            os.write(descriptor, b".")

    descriptor = -1 if note is None else os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(hook)


def in_place() -> None:
    """Write files where they belong, one after the other."""

    def write(folder: Path, content: dict[str, Any]) -> None:
        for name, part in content.items():
            with (folder / name).open("wb") as file:
                file.write(part) if isinstance(part, bytes) else part(file)

    for module in ("srp_exp.evaluation.accuracy", "srp_exp.studies.reports.report", "srp_exp.commands.compare"):
        mock.patch(f"{module}.write_together", write).start()


class Harness:
    """The runs in `output_dir`, and what is made of them."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.ended(start(GRID, output_dir))
        self.runs = self.state()

    def state(self) -> Files:
        """All files of the runs but those that the commands write."""
        paths = [path for path in (self.output_dir / "runs").rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in paths if not {"evaluation", "export"}.intersection(path.parts)}

    def ended(self, attempt: Attempt) -> None:
        attempt.wait()
        if attempt.runs() or attempt.code != 0:
            attempt.kill()
            raise RuntimeError(f"exit code {attempt.code}\n{(self.output_dir / 'printed.txt').read_text()[-3000:]}")

    def start(self, command: Command, before: Change = lambda: None) -> Attempt:
        return fork(command.call, command.arguments, self.output_dir / "printed.txt", before)

    def torment(self, command: Command, most: int, change: Change = lambda: None) -> tuple[int, list[str]]:
        """Kill `command` at each of its moments; return their number and what was wrong."""
        self.ended(self.start(command))
        new = read(command.folder)
        note = self.output_dir / "touched"
        note.unlink(missing_ok=True)
        self.ended(self.start(command, before_all(change, functools.partial(die_before, -1, command.folder, note))))
        moments = len(note.read_bytes())
        chosen = sorted({moments * number // min(most, moments) for number in range(min(most, moments))})
        faults = []
        for moment in chosen:
            for name in new:
                (command.folder / name).write_bytes(b"old " + name.encode())
            attempt = self.start(command, before_all(change, functools.partial(die_before, moment, command.folder)))
            attempt.wait()
            if attempt.code != -signal.SIGKILL:
                faults.append(f"{moment}: not killed, but exit code {attempt.code}")
            faults += [f"{moment}: {fault}" for fault in self.halves(command, new)]
            self.ended(self.start(command))
            if read(command.folder) != new:
                faults.append(f"{moment}: the command given again ends with other files")
            if self.state() != self.runs:
                faults.append(f"{moment}: a run was changed")
        return len(chosen), faults

    def halves(self, command: Command, new: Files) -> list[str]:
        found = read(command.folder)
        old = {name: b"old " + name.encode() for name in new}
        faults = [
            f"{name} is neither old nor new" for name in found if found[name] not in (old.get(name), new.get(name))
        ]
        if command.last in found and found not in (old, new):
            faults.append(f"{command.last} stands among files of two writings")
        return faults


def before_all(*changes: Change) -> Change:
    def change() -> None:
        for one in changes:
            one()

    return change


def main() -> None:
    names = ("eval", "export", "compare", "report")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--most", type=int, default=40, help="kills of each command")
    parser.add_argument("--control", action="store_true", help="show that halves would be seen")
    arguments = parser.parse_args()
    for module in (*IMPORTED_LATE, *IMPORTED):  # or the trainings and commands would spend their time so
        if importlib.util.find_spec(module):
            importlib.import_module(module)
    folder = Path(tempfile.mkdtemp(prefix="kill-commands-"))
    harness = Harness(folder / "outputs")
    kills, failed = 0, False
    for name, command in commands(folder / "outputs").items():
        if name not in arguments.only or (arguments.control and name == "export"):
            continue
        change: Callable[[], None] = in_place if arguments.control else lambda: None
        count, faults = harness.torment(command, arguments.most, change)
        kills += count
        failed |= bool(faults) != arguments.control
        verdict = f"FAULTS: {'; '.join(faults)}" if faults else "nothing half-written is taken for whole"
        print(f"{name:10}{count:4} kills: {verdict}", flush=True)
    print(f"{kills} kills: {'WRONG' if failed else 'as it should be'}")
    if failed:
        sys.exit(f"what is wrong lies in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
