"""What the data pipeline costs: images per second of the real training loop over those of one batch kept in memory.

    python scripts/bench_pipeline.py [--rounds 15] [--device auto] [override ...]

Both loops train the same network of the configuration (by default SE-ResNet-20 on CIFAR-shaped synthetic data, batch
128, pad-and-crop and flip) with the real training step. They take turns, `--steps` steps each, and a ratio is taken
within a round; the median over the rounds is reported with its quartiles.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Iterator

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from srp_exp.config import CONF_DIR
from srp_exp.config.identity import plain_values
from srp_exp.config.register import register
from srp_exp.datasets import Batch, TrainingBatches
from srp_exp.runs.build import build_data, build_learner, build_model
from srp_exp.runs.device import build_device
from srp_exp.runs.folder.provenance import device_name
from srp_exp.training.learner import Learner

CIFAR_SHAPED = ["dataset=synthetic", "dataset.train_size=10000", "dataset.test_size=100", "recipe=cifar"]
CIFAR_SHAPED += ["dataset.augmentation.crop_padding=4", "dataset.augmentation.flip=true"]


def images_per_second(learner: Learner, batches: Iterator[Batch], steps: int) -> float:
    images = 0
    start = time.perf_counter()
    for batch in itertools.islice(batches, steps):
        learner.train_step(batch)
        images += len(batch.labels)
    learner.totals.read()  # waits for the device
    return images / (time.perf_counter() - start)


def endless(batches: TrainingBatches) -> Iterator[Batch]:
    return (batch for epoch in itertools.count() for batch in batches.epoch(epoch))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="steps of each loop in a round")
    parser.add_argument("--device", default="auto")
    parser.add_argument("overrides", nargs="*")
    arguments = parser.parse_args()

    register()
    with initialize_config_dir(str(CONF_DIR), version_base=None):
        config = OmegaConf.create(plain_values(compose("config", CIFAR_SHAPED + arguments.overrides)))
    device = build_device(arguments.device)
    data = build_data(config, device)
    model, _ = build_model(config, data.dataset, device)
    batches = data.training_batches(config.recipe.batch_size, config.seed)
    learner = build_learner(config, model, data, batches.steps_per_epoch)
    model.train()

    loops = {"pipeline": endless(batches), "one batch": itertools.repeat(next(batches.epoch(0)))}
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(arguments.rounds + 1):
        for name in list(loops)[:: 1 if number % 2 else -1]:
            speed = images_per_second(learner, loops[name], arguments.steps)
            if number:  # the first round warms up
                speeds[name].append(speed)
    ratios = [real / ideal for real, ideal in zip(speeds["pipeline"], speeds["one batch"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"torch {torch.__version__}, {device_name(device)}, {torch.get_num_threads()} threads")
    for name, values in speeds.items():
        print(f"{name}: {statistics.median(values):,.0f} images/s")
    print(f"pipeline / one batch: {median:.3f} (quartiles {low:.3f} - {high:.3f}, {arguments.rounds} rounds)")


if __name__ == "__main__":
    main()
