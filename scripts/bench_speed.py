"""Images per second of the training step by speed setting: exact, one setting changed at a time, and all.

    python scripts/bench_speed.py [--rounds 9] [--steps 5] [--device auto] [--fewer] [override ...]

By default SE-ResNet-20 with scheduled SRP on CIFAR-shaped images, batch 128. Each variant is a network of its own in
the real training step, on one batch kept in memory. They take turns within a round, whose ratio is taken; its median
over the rounds is reported with the quartiles. --fewer leaves out what compiles. Prints a Markdown table.
"""

import argparse
import statistics
import time

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from srp_exp.config import CONF_DIR
from srp_exp.config.identity import plain_values
from srp_exp.config.register import register
from srp_exp.datasets import Batch
from srp_exp.runs.build import build_data, build_learner, build_model
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.runs.folder.provenance import device_name
from srp_exp.training.learner import Learner

SHAPED = ["dataset=synthetic", "dataset.train_size=512", "dataset.test_size=100", "recipe=cifar"]
VARIANTS = {
    "fp32, contiguous": ["channels_last=false"],
    "`speed=exact` (fp32, channels_last)": [],
    "bf16, contiguous": ["channels_last=false", "precision=bf16"],
    "`speed=fast compile=false` (bf16, channels_last)": ["speed=fast", "compile=false"],
    "fp32, compiled, contiguous": ["channels_last=false", "compile=true"],
    "`speed=fast` (bf16, channels_last, compiled)": ["speed=fast"],
}


def build(overrides: list[str], device_name: str) -> tuple[Learner, Batch]:
    """A learner of the configuration, and a batch for it."""
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        config = OmegaConf.create(plain_values(compose("config", overrides)))
    device = build_device(device_name)
    choose_kernels(config)
    data = build_data(config, device)
    model, _ = build_model(config, data.dataset, device)
    batches = data.training_batches(config.recipe.batch_size, config.seed)
    learner = build_learner(config, model, data, batches.steps_per_epoch)
    return learner, next(batches.epoch(0))


def images_per_second(learner: Learner, batch: Batch, steps: int) -> float:
    learner.model.train()
    start = time.perf_counter()
    for _ in range(steps):
        learner.train_step(batch)
    learner.totals.read()  # waits for the device
    return steps * len(batch.labels) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=5, help="steps of each variant in a round")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--fewer", action="store_true")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()

    register()
    kept = {name: own for name, own in VARIANTS.items() if not (arguments.fewer and "compiled" in name)}
    built = {name: build([*SHAPED, *arguments.overrides, *own], arguments.device) for name, own in kept.items()}
    speeds: dict[str, list[float]] = {name: [] for name in built}
    for number in range(arguments.rounds + 1):
        for name in list(built)[:: 1 if number % 2 else -1]:
            speed = images_per_second(*built[name], arguments.steps)
            if number:  # the first round warms up, and compiles
                speeds[name].append(speed)
    first, reference = next(iter(speeds.items()))
    device = build_device(arguments.device)
    print(f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads")
    print(f"\n| setting | images/s | over {first} |\n|---|---:|---:|")
    for name, values in speeds.items():
        ratios = [value / own for value, own in zip(values, reference, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        print(f"| {name} | {statistics.median(values):,.0f} | {median:.2f} ({low:.2f} - {high:.2f}) |")


if __name__ == "__main__":
    main()
