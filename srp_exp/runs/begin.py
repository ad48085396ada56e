"""What a run writes before its first step: configuration, provenance, warnings, and a sample batch with its regions."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.preprocessing import describe_preprocessing
from srp_exp.config.schemas.training import average_of_the_start, shortened_warmup
from srp_exp.evaluation.accuracy import evaluation_mode
from srp_exp.evaluation.cost import multiply_adds
from srp_exp.evaluation.figures import pixels, png
from srp_exp.evaluation.sample_batch import sample_batch
from srp_exp.files import write_atomically
from srp_exp.runs.build import RunObjects
from srp_exp.runs.device import slow_precision
from srp_exp.runs.folder.layout import CONFIG
from srp_exp.runs.folder.provenance import note_start
from srp_exp.seeding import derive
from srp_exp.training.loggers.guarded import Loggers
from srp_exp.training.loggers.logger import LoggedRun, Logger
from srp_exp.training.reporting.dispensable import Dispensable
from srp_exp.training.reporting.logs import LOG
from srp_exp.training.reporting.reporter import Reporter
from srp_exp.training.throughput import Work, peak_tflops


def begin(
    config: DictConfig, folder: Path, settings: dict[str, Any], built: RunObjects, loggers: list[Logger], afresh: bool
) -> Reporter:
    """Record the start of a run in its folder and warn of doubtful settings; return the reporter of its training."""
    learner, recipe = built.learner, config.recipe
    text = OmegaConf.to_yaml(config)
    write_atomically(folder / CONFIG, text.encode())
    note_start(folder, learner.device, learner.processes.size)
    for line in filter(None, (describe_preprocessing(config), shortened_warmup(config))):
        LOG.info("%s", line)
    steps = recipe.epochs * built.batches.steps_per_epoch
    for warning in filter(
        None, (slow_precision(config.precision, learner.device), average_of_the_start(config, steps))
    ):
        LOG.warning("%s", warning)
    introduce = partial(_introduce, folder=folder, seed=config.seed, built=built)
    logged = Loggers(LoggedRun(folder, settings, text, afresh), loggers)
    return Reporter(folder, logged, introduce, recipe.epochs, recipe.batch_size, config.progress, _work(config, built))


def _work(config: DictConfig, built: RunObjects) -> Work | None:
    """What a step asks of a GPU, and what all of them can do."""
    learner, dataset = built.learner, built.data.dataset
    if learner.device.type != "cuda":
        return None
    image = torch.zeros(1, dataset.channels, *dataset.image_size, device=learner.device)
    with evaluation_mode(learner.model):
        macs = multiply_adds(learner.model, image)
    peak = peak_tflops(torch.cuda.get_device_name(learner.device), config.precision, config.tf32)
    return Work.of(macs, peak, learner.processes.size)


def _introduce(loggers: Loggers, *, folder: Path, seed: int, built: RunObjects) -> None:
    """A sample batch with regions as a first step may draw them, which is also a file of the run."""
    data, learner = built.data, built.learner
    size = learner.processes.size
    share = min(8, len(data.splits["train"]) // size)
    batch = next(data.training_batches(share * size, seed).epoch(0))
    torch.manual_seed(derive(seed, "picture"))
    labels = [data.dataset.class_names[label] for label in batch.labels.tolist()]
    picture = pixels(sample_batch(data.shown(batch.images), labels, learner.model, built.srp_records))
    with Dispensable("sample_batch.png").written():
        write_atomically(folder / "sample_batch.png", png(picture))
    loggers.picture("sample_batch", torch.from_numpy(picture).permute(2, 0, 1), 0)
