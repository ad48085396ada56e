"""What a checkpoint holds, evaluated and measured."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from srp_exp.datasets import Batch, DataSet
from srp_exp.datasets.other_test import folders_of_classes, name_of
from srp_exp.datasets.split import file_names
from srp_exp.errors import MissingFileError, UserError
from srp_exp.evaluation import Evaluation, Scores, evaluate, score
from srp_exp.evaluation.evaluators import Subject, measure
from srp_exp.evaluation.figures import Pixels, png
from srp_exp.evaluation.pictures import result_pictures
from srp_exp.evaluation.tested_otherwise import WithMirrored, choose_among
from srp_exp.runs.build import Data, build_data, build_model
from srp_exp.runs.device import build_device, choose_kernels
from srp_exp.runs.folder.digests import digests_of_data, refuse_other_data
from srp_exp.runs.folder.layout import EVALUATION
from srp_exp.runs.folder.lock import only_writer
from srp_exp.runs.read_back.read import Trained, leave_out_weights, load_of_run
from srp_exp.training.autocast import autocast
from srp_exp.training.checkpoints import FINAL, model_state
from srp_exp.training.processes.distributed import SINGLE, Processes, connected
from srp_exp.training.reporting.dispensable import Dispensable
from srp_exp.training.reporting.logs import log_to


def evaluate_checkpoint(trained: Trained, folder: Path) -> dict[str, Any]:
    """Evaluate a checkpoint on the split of its configuration; metrics, predictions and pictures go into `folder`.

    Returns the details of the evaluation on rank 0, and nothing on the others.
    """
    config = trained.config
    choose_kernels(config)
    device = build_device(config.device)
    with connected(device) as processes:
        data = data_of(trained, config.split, device, processes)
        model = _restored(trained, data.dataset, device)
        evaluation = evaluate_on(config, model, data, config.split, processes)
        if evaluation is not None:
            facts = {name: config[name] for name in ("test_root", "some_classes", "flip") if config[name]}
            pictures = draw_result(evaluation, data, config.split)
            evaluation.save(folder, facts, {name: png(picture) for name, picture in pictures.items()})
    if evaluation is None:
        return {}
    measure_checkpoint(trained, config.split, config.evaluators, folder)
    return evaluation.details()


def draw_result(evaluation: Evaluation, data: Data, split: str) -> dict[str, Pixels]:
    """The pictures of an evaluation of a split of `data`, by their names; none where they can't be drawn."""
    with Dispensable("the pictures of the result", Exception).written():
        return result_pictures(evaluation, partial(data.pictures, split))
    return {}


def measure_checkpoint(trained: Trained, split: str, evaluators: Sequence[str], folder: Path) -> None:
    """Let `evaluators`, by name, measure a checkpoint on a split, into `folder`; for one process."""
    if evaluators:
        measure(restore(trained, split)[0], evaluators, folder)


def measure_run(config: DictConfig, folder: Path, evaluators: Sequence[str]) -> None:
    """Let `evaluators` measure the finished run in `folder` on the test split; for one process, which holds it."""
    final = folder / "checkpoints" / FINAL
    with only_writer(folder), log_to(folder):
        measure_checkpoint(Trained(config, final, load_of_run(final)), "test", evaluators, folder / EVALUATION)


def restore(trained: Trained, split: str) -> tuple[Subject, DataSet]:
    """What a checkpoint holds, as evaluators take it, with batches of a split, and the data set; for one process."""
    config = trained.config
    choose_kernels(config)
    device = build_device(config.device)
    data = data_of(trained, split, device)
    model = _restored(trained, data.dataset, device)
    batches = partial(data.evaluation_batches, split, config.recipe.batch_size)
    context = autocast(device, config.precision)
    dataset = data.dataset
    subject = Subject(model.eval(), batches, dataset.class_names, context, config.seed, dataset.mean, dataset.std)
    return subject, dataset


def _restored(trained: Trained, dataset: DataSet, device: torch.device) -> torch.nn.Module:
    """The network of a checkpoint; with config.some_classes it chooses among those of config.test_root alone."""
    config, plain = trained.config, trained.config.copy()
    leave_out_weights(plain)
    model, _ = build_model(plain, dataset, device)
    load_trained(model, trained.content, trained.file)
    if config.some_classes:
        known = folders_of_classes(Path(config.test_root).expanduser(), dataset.class_names, some_classes=True)
        choose_among(model, torch.tensor([*known]))
    return model


def part_name(config: DictConfig) -> str:
    """What is looked at, as a name for files: the split, or other test pictures."""
    name = config.split if config.test_root is None else name_of(Path(config.test_root).expanduser())
    return f"{name}-flip" if config.flip else str(name)


def data_of(trained: Trained, split: str, device: torch.device, processes: Processes = SINGLE) -> Data:
    """The data of the run of a checkpoint; for its test split, and a validation part of its own, none of training.

    With config.test_root its pictures are the test split, and no other is opened.

    Raises UserError where the data aren't those that the run has read, or aren't where they were.
    """
    config, facts = trained.config, trained.content.get("data") or {}
    apart = split == "test" or (split == "val" and facts.get("brings_val"))
    if not apart or config.dataset.test_on_unused or config.dataset.get("augmentation") is None:
        facts = {}
    if facts and config.test_root is not None:
        return build_data(config, device, processes, facts)
    try:
        data = build_data(config, device, processes, facts)
    except (InstantiationException, FileNotFoundError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, FileNotFoundError) or "root" not in config.dataset:
            raise
        raise MissingFileError(
            f"the data of the run aren't there ({cause}); dataset.root=FOLDER says where they are now, "
            "test_root=FOLDER takes other test pictures"
        ) from error
    refuse_other_data(trained.folder, digests_of_data(config, data.dataset))
    return data


def load_trained(model: torch.nn.Module, content: dict[str, Any], file: Path) -> None:
    """Load what the checkpoint `file`, of this `content`, evaluates into `model`; UserError where it isn't of it."""
    try:
        model.load_state_dict(model_state(content))
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = [line.strip().partition(", ")[0] for line in str(error).splitlines()][:2] or [type(error).__name__]
        raise UserError(f"{file}: its weights aren't those of its network ({why[-1]}); restore the file") from error


def evaluate_on(
    config: DictConfig, model: torch.nn.Module, data: Data, split: str, processes: Processes
) -> Evaluation | None:
    """Evaluate `model`, in evaluation mode, on a split of `data`; rank 0 gets the evaluation of all, others None."""
    asked = WithMirrored(model) if config.flip else model
    evaluation = evaluate(asked, *_on(config, model, data, split, processes))
    return None if evaluation is None else replace(evaluation, paths=file_names(data.splits[split]))


def score_on(config: DictConfig, model: torch.nn.Module, data: Data, split: str, processes: Processes) -> Scores:
    """As `evaluate_on`; every process gets the scores of all."""
    return score(model, *_on(config, model, data, split, processes))


def _on(
    config: DictConfig, model: torch.nn.Module, data: Data, split: str, processes: Processes
) -> tuple[Iterable[Batch], tuple[str, ...], torch.autocast, Processes]:
    processes.share(model.buffers())  # each process has gathered statistics of its own; the first's are saved
    batches = data.evaluation_batches(split, config.recipe.batch_size)
    return batches, data.dataset.class_names, autocast(data.device, config.precision), processes
