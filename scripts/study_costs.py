"""What each shipped study trains at most: runs, floating-point operations, and GPU-hours at an assumed rate.

    python scripts/study_costs.py [--tflops 10] [study ...]

Counted without data: the multiply-adds of a network's forward pass in training, two operations each, three times for
forward and backward, for every training image of every epoch; evaluation is left out. A run that two methods share
counts once. What a GPU sustains is an assumption: a large network in bf16 reaches several times 10 TFLOP/s, a small one
of CIFAR a tenth of it. `dry=true` measures this machine instead.
"""

import argparse
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.commands.report.command import plan_study, shipped_studies
from srp_exp.config.identity import plain_values
from srp_exp.datasets.sets import cars, cub200, dogs, imagenet
from srp_exp.evaluation.cost import multiply_adds
from srp_exp.runs.build import build_model

PUBLISHED = {
    "cub200": cub200.Cub200.facts, "dogs": dogs.Dogs.facts, "cars": cars.Cars.facts, "imagenet": imagenet.FACTS,
}  # fmt: skip


class Shape(NamedTuple):
    """The facts of a data set that a network and the length of its training need."""

    train_size: int
    num_classes: int
    image_size: tuple[int, int]
    channels: int


SMALL = {
    "cifar10": Shape(50_000, 10, (32, 32), 3), "cifar100": Shape(50_000, 100, (32, 32), 3),
    "mnist5k": Shape(4_000, 10, (28, 28), 1),
}  # fmt: skip


def shape_of(dataset: DictConfig) -> Shape:
    whole = whole_shape_of(dataset)
    few = dataset.train_per_class
    return whole if few is None else whole._replace(train_size=few * whole.num_classes)


def whole_shape_of(dataset: DictConfig) -> Shape:
    if dataset.name == "synthetic":
        return Shape(dataset.train_size, dataset.num_classes, tuple(dataset.image_size), dataset.channels)
    if dataset.name in SMALL:
        return SMALL[dataset.name]
    facts, side = PUBLISHED[dataset.name], dataset.augmentation.crop_size
    return Shape(facts.train_size, facts.num_classes, (side, side), 3)


def multiply_adds_of(config: DictConfig, shape: Shape) -> int:
    """Of the network's forward pass of one image in training."""
    config = OmegaConf.create(plain_values(config))
    config.srp._target_ = None  # which changes no number of operations, as weights don't
    if "pretrained" in config.backbone:
        config.backbone.pretrained = False
    facts: Any = shape  # as much of a data set as a network needs
    model = build_model(config, facts, torch.device("cpu"))[0].to("meta").train()
    return multiply_adds(model, torch.zeros(2, shape.channels, *shape.image_size, device="meta"))


def cost_of(name: str) -> tuple[int, float]:
    """The number of trainings of a study, and their floating-point operations."""
    _, grid = plan_study([f"study={name}"])
    runs, known, total = grid.distinct(), dict[str, int](), 0.0
    for run in runs:
        shape = shape_of(run.config.dataset)
        network = f"{run.config.backbone} {run.config.attention} {shape}"
        if network not in known:
            known[network] = multiply_adds_of(run.config, shape)
        total += 6.0 * known[network] * shape.train_size * run.config.recipe.epochs
    return len(runs), total


def line(name: str, tflops: float) -> str:
    runs, total = cost_of(name)
    return f"| `{name}` | {runs} | {total / 1e15:,.2f} | {total / (tflops * 1e12) / 3600:,.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tflops", type=float, default=10.0, help="what a GPU sustains, in 10^12 operations a second")
    parser.add_argument("names", nargs="*", metavar="study", help="those of conf/study by default")
    options = parser.parse_args()
    names = options.names or shipped_studies()
    print(f"| study | runs at most | 10^15 operations | GPU-hours at {options.tflops:g} TFLOP/s |")
    print("|---|---:|---:|---:|")
    for name in names:
        print(line(name, options.tflops), flush=True)


if __name__ == "__main__":
    main()
