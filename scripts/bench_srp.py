"""Cost of SRP in training: time of a step, and peak memory, of a network with SRP over the same network with GAP.

    python scripts/bench_srp.py [--rounds 40] [--device cpu] [--json FILE]

The variants take turns within every round, so that a disturbance of the machine meets all of them; a ratio is taken
within a round, and the median over the rounds is reported with its quartiles. Two GAP networks give the error of the
method.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from timm.layers.squeeze_excite import SEModule
from torch import nn

from srp_exp import Linear, apply_srp
from srp_exp.backbones.resnet import build as build_resnet
from srp_exp.provenance import device_name
from srp_exp.srp.region import SHARES

VARIANTS = ("gap", "gap again", *SHARES)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int, int]]] = {
    "seresnet50": (lambda: timm.create_model("seresnet50", num_classes=100), (16, 3, 112, 112)),
    "SE-ResNet-20": (
        lambda: build_resnet(20, attention=SEModule, num_classes=10, in_channels=3),
        (128, 3, 32, 32),
    ),
}


class Step:
    """A training step of one variant of a network on a fixed batch of noise."""

    def __init__(self, network: str, variant: str, device: torch.device) -> None:
        build, shape = NETWORKS[network]
        torch.manual_seed(0)
        self.model = build().to(device)
        self.images = torch.randn(shape, device=device)
        self.labels = torch.randint(10, shape[:1], device=device)
        for share in SHARES:
            if share == variant:
                apply_srp(self.model, Linear(1.0, 0.5), share=share, example_input=self.images[:2])
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.model.train()

    def __call__(self) -> float:
        """Make the step; return its seconds."""
        start = time.perf_counter()
        F.cross_entropy(self.model(self.images), self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def time_ratios(network: str, rounds: int, warmup: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of a step of each variant over those of GAP in the same round."""
    steps = {variant: Step(network, variant, device) for variant in VARIANTS}
    order = list(VARIANTS)
    ratios: dict[str, list[float]] = {variant: [] for variant in VARIANTS[1:]}
    for number in range(warmup + rounds):
        seconds = {variant: steps[variant]() for variant in order}
        order.reverse()  # whoever follows whom must not matter
        if number >= warmup:
            for variant, values in ratios.items():
                values.append(seconds[variant] / seconds["gap"])
    return ratios


def peak_memory(network: str, variant: str, device: torch.device) -> float:
    """Highest sum in MiB of the tensors that a training step has at one time, beyond those that exist before it."""
    step = Step(network, variant, device)
    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    with torch.profiler.profile(profile_memory=True) as profiler:
        step()
    results = profiler.profiler and profiler.profiler.kineto_results
    assert results is not None
    events = results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    peak: int = max(itertools.accumulate(size for _, size in changes))
    return peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--network", choices=[*NETWORKS, "all"], default="all")
    parser.add_argument("--json", type=Path, help="write the ratios here")
    arguments = parser.parse_args()

    table = Table(
        title=f"torch {torch.__version__}, {device_name(arguments.device)}, {torch.get_num_threads()} threads"
    )
    for heading in ("network", "variant", "step time / GAP", "quartiles", "rounds", "peak memory / GAP"):
        table.add_column(heading)
    report = {}
    for network in NETWORKS if arguments.network == "all" else [arguments.network]:
        ratios = time_ratios(network, arguments.rounds, arguments.warmup, arguments.device)
        memory = {variant: peak_memory(network, variant, arguments.device) for variant in VARIANTS}
        for variant, values in ratios.items():
            low, median, high = statistics.quantiles(values, n=4)
            of_gap = memory[variant] / memory["gap"]
            table.add_row(
                network, variant, f"{median:.4f}", f"{low:.4f} - {high:.4f}", str(len(values)), f"{of_gap:.4f}"
            )
            report[f"{network}/{variant}"] = {"time": median, "quartiles": [low, high], "memory": of_gap}
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
