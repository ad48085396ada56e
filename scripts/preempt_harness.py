"""Preempt, or kill, one process of a training of several, and look at what the others do and what is left.

    python scripts/preempt_harness.py [--processes 2] [--times 20] [--seed 0]

`--times` trainings of `--processes` processes (gloo) each get one SIGUSR2 at a random moment, as SLURM sends it
before it takes a node away, to each rank in turn. Right is: every process leaves through the handler that was there
before (submitit's requeues the job), none of them before rank 0 has saved; the same command then resumes and ends
with the bits of a training that nothing disturbed. Then each rank is killed once, and the seconds until the last
process has ended are printed. Exit code 1 where something isn't right, or a process outlives a killed one by more
than 15 s.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from kill_harness import COMMON, IN_MEMORY, Attempt, folder_of, fork, leaves

import srp_exp.training.checkpoints as checkpoint_files
from srp_exp.__main__ import main as train_command
from srp_exp.training.stopping.interruption import EXIT_CODE

OVERRIDES = (*COMMON, *IN_MEMORY, "recipe.epochs=8", "wait=false")
MOST_SECONDS = 15.0


def start(output_dir: Path, processes: int) -> list[Attempt]:
    """Fork the processes of a training into `output_dir`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    time.sleep(1 - time.time() % 1)  # as kill_harness.start

    def prepare(rank: int) -> None:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in names.items()}}

        def requeue(number: int, _: object) -> None:
            saved = sorted(path.name for path in output_dir.glob("runs/*/checkpoints/step-*.pt"))
            (output_dir / f"requeued-{rank}").write_text(saved[-1] if saved else "")

        signal.signal(signal.SIGUSR2, requeue)

    arguments = ["srp-exp", *OVERRIDES, f"output_dir={output_dir}"]
    return [
        fork(train_command, arguments, output_dir / f"printed-{rank}.txt", lambda rank=rank: prepare(rank))  # type: ignore[misc]
        for rank in range(processes)
    ]


def finish(attempts: Iterable[Attempt], seconds: float = 300) -> list[int | None]:
    """The exit codes, None of a process that had to be killed after `seconds`."""
    end = time.monotonic() + seconds
    codes = []
    for attempt in attempts:
        attempt.wait(end - time.monotonic())
        codes.append(None if attempt.kill() else attempt.code)
    return codes


def final(output_dir: Path) -> dict[str, object]:
    """The values of final.pt, which two trainings with the same command have in common to the bit."""
    content = checkpoint_files.load(folder_of(output_dir) / "checkpoints" / "final.pt")
    content.pop("config")  # names output_dir
    return leaves(content)


def training_began(output_dir: Path) -> bool:
    return any(output_dir.glob("runs/*/run.log")) and "epoch 1/" in (folder_of(output_dir) / "run.log").read_text()


class Harness:
    """Trainings of `processes` processes below `folder`; the first one is left alone."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.processes = folder, processes
        undisturbed = folder / "undisturbed"
        attempts = start(undisturbed, processes)
        attempts[0].wait(until=lambda: training_began(undisturbed))
        began = time.monotonic()
        codes = finish(attempts)
        if any(codes):
            raise RuntimeError(f"exit codes {codes}\n{(undisturbed / 'printed-0.txt').read_text()[-3000:]}")
        self.seconds, self.reference = time.monotonic() - began, final(undisturbed)

    def preempt(self, name: str, rank: int, moment: float) -> list[str]:
        """What isn't right after a SIGUSR2 to `rank` at `moment` of the training, in [0, 1]."""
        output_dir = self.folder / name
        attempts = start(output_dir, self.processes)
        attempts[rank].wait(until=lambda: training_began(output_dir))
        attempts[rank].wait(moment * self.seconds)
        if not all(attempt.runs() for attempt in attempts):  # on a machine that is less busy now
            finish(attempts)
            self.seconds *= 0.7
            return self.preempt(f"{name} again", rank, moment)
        os.kill(attempts[rank].pid, signal.SIGUSR2)
        codes = finish(attempts)
        wrong = [] if codes == [EXIT_CODE] * self.processes else [f"exit codes {codes}"]
        saved = max((path.name for path in output_dir.glob("runs/*/checkpoints/step-*.pt")), default="none")
        for each in range(self.processes):
            requeued = output_dir / f"requeued-{each}"
            told = requeued.read_text() if requeued.exists() else "never"
            if told != saved:
                wrong.append(f"rank {each} left at {told or 'nothing saved'}, saved is {saved}")
        again = finish(start(output_dir, self.processes))
        if any(again):
            return [*wrong, f"resumed: exit codes {again}"]
        changed = [f"{name} differs" for name, value in final(output_dir).items() if value != self.reference.get(name)]
        return wrong + changed[:1]

    def kill(self, rank: int) -> float:
        """The seconds from a SIGKILL to `rank` until the last process has ended; inf where one stays for 2 minutes."""
        output_dir = self.folder / f"killed {rank}"
        attempts = start(output_dir, self.processes)
        attempts[rank].wait(until=lambda: training_began(output_dir))
        attempts[rank].kill()
        killed = time.monotonic()
        codes = finish(attempts, 120)
        others = codes[:rank] + codes[rank + 1 :]
        return float("inf") if None in others or 0 in others else time.monotonic() - killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the signals")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="preempt-harness-"))
    harness, draw, right = Harness(folder, arguments.processes), random.Random(arguments.seed), 0
    for number in range(arguments.times):
        rank, moment = number % arguments.processes, draw.uniform(0, 0.6)
        wrong = harness.preempt(f"preempted {number}", rank, moment)
        right += not wrong
        print(
            f"SIGUSR2 to rank {rank}: {'; '.join(wrong) or 'saved, requeued, resumed with the same bits'}", flush=True
        )
    seconds = [harness.kill(rank) for rank in range(arguments.processes)]
    print(f"{right} of {arguments.times} right; after a kill the others ended in {max(seconds):.1f} s at most")
    if right < arguments.times or max(seconds) > MOST_SECONDS:
        sys.exit(f"see {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
