"""A run tried out: whether its data, network and settings go together, and how long it takes."""

import time

import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.runs.build import Data, build_data, build_first, build_objects

_IMAGES = 16  # of the first batch
_TIMED = 3  # steps
_PATIENCE = 30.0  # seconds for the steps of a whole batch
_OF_NETWORK = ("backbone", "attention", "srp", "optimizer", "lr_schedule", "loss", "mixing", "study")
"""What the data don't depend on."""


def rehearse(config: DictConfig, opened: dict[str, Data] | None = None) -> float:
    """Take a batch of the run of `config` through a step of training; return the seconds of all its steps.

    opened: the data of the rehearsal before, which are taken where the run has the same, and replaced elsewhere.

    They are estimated from the fastest step after the first of a whole batch. Where that would take minutes, as on a
    CPU, a small batch stands for it, the images of a step counting alike. Nothing is written. Raises what the run would
    raise: ValueError, OSError.
    """
    device, _ = build_first(config)
    opened = {} if opened is None else opened
    of_data = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key not in _OF_NETWORK]))
    if of_data not in opened:
        opened.clear()  # before the next takes its memory
        opened[of_data] = build_data(config, device)
    built = build_objects(config, device, data=opened[of_data])
    data, learner, whole = built.data, built.learner, config.recipe.batch_size
    parts = config.recipe.accumulate_steps
    size = parts * max(1, min(whole, _IMAGES) // parts)

    def fastest(size: int) -> float:
        batch = next(data.training_batches(size, config.seed).epoch(0))
        seconds = []
        for _ in range(1 + _TIMED):
            started = time.perf_counter()
            learner.train_step(batch)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - started)
        return min(seconds[1:])

    steps: int = built.batches.steps_per_epoch * config.recipe.epochs
    if config.compile:  # a shape of its own would be compiled for nothing
        return fastest(whole) * steps
    step: float = fastest(size) * whole / size
    if size < whole and steps >= 2 * (1 + _TIMED) and step * (1 + _TIMED) < _PATIENCE:
        step = fastest(whole)
    return step * steps
