"""What checkpoints cost a training: time that the step loop loses by a save, as a part of the interval between saves.

    python scripts/bench_checkpoint.py [--rounds 10] [--device cpu] [--folder DIR] [--json FILE]

at most   The time that a save holds the loop, for the copy of the state, and the CPU time of the thread that writes, as
          if it ran on a core that the steps need. It says the same on a busy machine.
measured  Steps, at least --steps, from a save to when it is on the disk, less the time of as many without a save.
error     The difference of two stretches without a save: of what is measured, this much is chance.

The median over the rounds is reported, with quartiles. The state is that of SGD with momentum; that of AdamW is half as
large again, and a moving average adds half.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from rich.console import Console
from rich.table import Table
from timm.layers.squeeze_excite import SEModule
from torch import nn

from srp_exp.backbones.resnet import build as build_resnet
from srp_exp.datasets import Batch
from srp_exp.runs.folder.provenance import device_name
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner, StepSettings
from srp_exp.training.lr_schedule import cosine

INTERVALS = (30, 5)  # seconds between saves
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int, int]]] = {
    "SE-ResNet-20": (
        lambda: build_resnet(20, attention=SEModule, num_classes=10, in_channels=3),
        (128, 3, 32, 32),
    ),
    "seresnet50": (lambda: timm.create_model("seresnet50", num_classes=100), (4, 3, 64, 64)),
}


class Timed(Checkpoints):
    """Checkpoints that keep the CPU seconds of each writing."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "")
        self.writing: list[float] = []

    def _write(self, learner: dict[str, Any], is_best: bool) -> None:
        started = time.thread_time()
        super()._write(learner, is_best)
        self.writing.append(time.thread_time() - started)


class Loop:
    """Training steps on a fixed batch of noise, with checkpoints in `folder`."""

    def __init__(self, network: str, folder: Path, device: torch.device) -> None:
        build, shape = NETWORKS[network]
        torch.manual_seed(0)
        model = build().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
        schedule = cosine(optimizer, epochs=1, steps_per_epoch=10**6, warmup_epochs=0, final_factor=0)
        self.learner = Learner(model, optimizer, schedule, StepSettings(seed=0, total_steps=10**6), device=device)
        self.checkpoints, self.copying = Timed(folder), list[float]()
        labels = torch.randint(10, shape[:1], device=device)
        self.batch = Batch(torch.randn(shape, device=device), labels, labels)

    def steps(self, at_least: int, saves: bool = False) -> tuple[float, int]:
        """Make steps, with `saves` until a save at the beginning is on the disk; their seconds and number."""
        number, started = 0, time.perf_counter()
        if saves:
            self.checkpoints.save(self.learner)
            self.copying.append(time.perf_counter() - started)
            saved = self.checkpoints.folder / f"step-{self.learner.step:09d}.pt"
        while number < at_least or (saves and not saved.exists()):
            self.learner.train_step(self.batch)
            if self.learner.device.type == "cuda":
                torch.cuda.synchronize()
            number += 1
        seconds = time.perf_counter() - started
        self.checkpoints.wait()
        return seconds, number


def lost_by_a_save(loop: Loop, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds lost by a save in each round, as the script's header has them."""
    loop.steps(3)  # the first steps allocate memory
    _, steps = loop.steps(steps, saves=True)
    lost: dict[str, list[float]] = {"at most": [], "measured": [], "error": []}
    for number in range(rounds):
        without, again, with_save, made = 0.0, 0.0, 0.0, steps
        order = ("with", "without", "again") if number % 2 else ("without", "again", "with")  # must not matter
        for stretch in order:
            seconds, count = loop.steps(steps, saves=stretch == "with")
            if stretch == "with":
                with_save, made = seconds, count
            elif stretch == "without":
                without = seconds
            else:
                again = seconds
        lost["at most"].append(loop.copying[-1] + loop.checkpoints.writing[-1])
        lost["measured"].append(with_save - without * made / steps)
        lost["error"].append(again - without)
    return lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=8, help="fewest of a stretch")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--network", choices=[*NETWORKS, "all"], default="all")
    parser.add_argument("--folder", type=Path, help="on the disk that is measured; a temporary one by default")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()

    table = Table(
        title=f"torch {torch.__version__}, {device_name(arguments.device)}, {torch.get_num_threads()} threads"
    )
    for heading in ("network", "MiB", "", "ms of a save", "quartiles", *(f"every {i} s" for i in INTERVALS), "rounds"):
        table.add_column(heading)
    report = {}
    for network in NETWORKS if arguments.network == "all" else [arguments.network]:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            loop = Loop(network, Path(folder), arguments.device)
            lost = lost_by_a_save(loop, arguments.rounds, arguments.steps)
            size = max(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
        for name, seconds in lost.items():
            low, median, high = statistics.quantiles(seconds, n=4)
            parts = [median / interval for interval in INTERVALS]
            table.add_row(
                network, f"{size:.1f}", name, f"{1e3 * median:.0f}", f"{1e3 * low:.0f} - {1e3 * high:.0f}",
                *(f"{part:.2%}" for part in parts), str(len(seconds)),
            )  # fmt: skip
            report[f"{network}/{name}"] = {"seconds": median, "quartiles": [low, high], "mib": size}
    Console(width=max(110, Console().width)).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
