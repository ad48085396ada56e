"""All objects of a run, built once and passed on."""

from dataclasses import dataclass

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from srp_exp.datasets import TrainingBatches
from srp_exp.evaluation.evaluators import load_evaluator
from srp_exp.runs.build.arguments import arguments
from srp_exp.runs.build.data import Data, build_data
from srp_exp.runs.build.learner import build_learner
from srp_exp.runs.build.model import build_model
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.srp import SrpRecords
from srp_exp.training.learner import Learner
from srp_exp.training.loggers.logger import Logger
from srp_exp.training.processes.distributed import SINGLE, Processes


@dataclass(frozen=True)
class RunObjects:
    """What a run trains, and on what. srp_records: those of apply_srp, empty without SRP."""

    data: Data
    srp_records: SrpRecords
    batches: TrainingBatches
    learner: Learner


def build_objects(
    config: DictConfig, device: torch.device, processes: Processes = SINGLE, data: Data | None = None
) -> RunObjects:
    """The objects of a run. data: those of an earlier call with the same settings of the data, which are reused.

    Raises UserError or ValueError if they don't go together.
    """
    if data is None:
        data = build_data(config, device, processes)
    model, records = build_model(config, data.dataset, device)
    batches = data.training_batches(config.recipe.batch_size, config.seed)
    learner = build_learner(config, model, data, batches.steps_per_epoch, processes)
    return RunObjects(data, records, batches, learner)


def build_first(config: DictConfig) -> tuple[torch.device, list[Logger]]:
    """The device and the loggers, which have written nothing yet, before anything that takes long.

    Raises UserError if the device isn't available, or an evaluator or a logger needs a package that isn't installed.
    """
    for name in config.evaluators:
        load_evaluator(name)  # not after hours of training
    loggers = [instantiate(arguments(node, without=())) for node in config.logger.values()]
    choose_kernels(config)
    return build_device(config.device), loggers
