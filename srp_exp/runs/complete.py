"""A run from its configuration to its results."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter

from srp_exp.config.preprocessing import describe
from srp_exp.datasets import TrainingBatches
from srp_exp.errors import UserError
from srp_exp.evaluation import Evaluation
from srp_exp.evaluation.evaluators import load_evaluator
from srp_exp.files import TEMPORARY, write_atomically
from srp_exp.runs.build import Data, build_data, build_device, build_learner, build_model, use_deterministic_kernels
from srp_exp.runs.evaluate import evaluate_on
from srp_exp.runs.folder import CONFIG, EVALUATION, PROVENANCE, RESULTS, failure_files
from srp_exp.runs.lock import LOCK, only_writer
from srp_exp.runs.provenance import provenance
from srp_exp.seeding import derive
from srp_exp.srp import SrpRecord
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.distributed import Processes, connected
from srp_exp.training.interruption import Interruption
from srp_exp.training.learner import Learner
from srp_exp.training.logs import LOG, log_to
from srp_exp.training.loop import LoopSettings, Training, fit
from srp_exp.training.pictures import regions_on_images
from srp_exp.training.reporter import Reporter, SilentReporter


def complete_run(config: DictConfig, folder: Path, hparams: dict[str, Any]) -> None:
    """Train the run of `config` in `folder`, from its latest checkpoint where there is one, and evaluate it.

    `hparams` is what TensorBoard's HParams page shows. results.json is written last: a run that has it is finished.
    Raises UserError where another process trains in the folder, or the device's memory does not suffice.
    """
    use_deterministic_kernels(config.deterministic)
    device = build_device(config.device)
    for name in config.evaluators:
        load_evaluator(name)  # not after hours of training
    with connected(device) as processes, ExitStack() as stack:
        try:
            built = _build(config, device, processes)  # before the folder is touched
            interruption = stack.enter_context(Interruption().watch())
            stack.enter_context(_hold(folder, config.rerun, processes))
            results = _train(config, folder, hparams, built, interruption)
            if processes.writes:
                write_atomically(folder / RESULTS, json.dumps(results, indent=1).encode())
        except torch.OutOfMemoryError as error:
            raise UserError(_out_of_memory(config, device)) from error


def _out_of_memory(config: DictConfig, device: torch.device) -> str:
    """What the user can do about it, but for what is done already."""
    remedies = ["lower it", "raise recipe.accumulate_steps (the batch stays)"]
    if config.precision == "fp32":
        remedies.append("set precision=bf16")
    if not config.activation_checkpointing:
        remedies.append("set activation_checkpointing=true")
    size = config.recipe.batch_size
    return f"out of memory on {device} with recipe.batch_size={size}: {', '.join(remedies[:-1])} or {remedies[-1]}"


@dataclass(frozen=True)
class _Built:
    data: Data
    records: list[SrpRecord]
    batches: TrainingBatches
    learner: Learner


def _build(config: DictConfig, device: torch.device, processes: Processes) -> _Built:
    data = build_data(config, device, processes)
    model, records = build_model(config, data.dataset, device)
    batches = data.training_batches(config.recipe.batch_size, config.seed)
    return _Built(data, records, batches, build_learner(config, model, data, batches.steps_per_epoch, processes))


@contextmanager
def _hold(folder: Path, clear: bool, processes: Processes) -> Iterator[None]:
    """Be the only training in `folder` and log there; `clear` it of an earlier one, or of unfinished files only."""
    with ExitStack() as stack:
        died = stack.enter_context(only_writer(folder)) if processes.writes else ""
        failures = failure_files(folder)
        for entry in folder.iterdir() if processes.writes else ():
            if entry.name != LOCK and (clear or entry.suffix == TEMPORARY or entry in failures):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        processes.gather(None)  # nobody reads the folder before that
        stack.enter_context(log_to(folder, processes.writes))
        if died:
            LOG.info("taking over from %s, which ended without a word", died)
        yield


def _train(
    config: DictConfig, folder: Path, hparams: dict[str, Any], built: _Built, interruption: Interruption
) -> dict[str, Any]:
    data, learner, processes = built.data, built.learner, built.data.processes
    yaml = OmegaConf.to_yaml(config)
    every = config.checkpoint
    checkpoints = Checkpoints(
        folder / "checkpoints",
        yaml,
        every_steps=every.every_steps,
        every_minutes=every.every_minutes,
        writes=processes.writes,
    )
    reporter: Reporter = SilentReporter()
    if processes.writes:
        _write_origin(folder, yaml, data)
        if wanted := describe(config):
            LOG.info("%s", wanted)
        introduce = partial(_introduce, built=built, yaml=yaml)
        reporter = Reporter(folder, introduce, config.recipe.epochs, config.recipe.batch_size, config.progress)
    selects = config.recipe.selection == "best"
    settings = LoopSettings(
        epochs=config.recipe.epochs,
        log_every_steps=config.log_every_steps,
        evaluate_every_epochs=config.recipe.evaluate_every_epochs,
        select_by="val/top1" if selects else None,
    )
    watched = "test" if data.splits["val"] is None else "val"

    def measure(trained: torch.nn.Module) -> dict[str, float]:
        summary = evaluate_on(config, trained, data, watched).summary()
        return {f"{watched}/{name}": value for name, value in summary.items()}

    started = time.perf_counter()
    try:
        fit(Training(learner, built.batches, checkpoints, reporter, interruption, settings), measure)
        seconds = time.perf_counter() - started
        processes.gather(None)  # the best checkpoint is on the disk, whichever process wrote it
        if selects:
            checkpoints.load_best(learner)
        checkpoints.finish(learner.evaluated_model.state_dict())
        evaluation = evaluate_on(config, learner.evaluated_model, data, "test")
        results = {**_results(built, evaluation), "run": folder.name, "training_seconds": round(seconds, 1)}
        if processes.writes:
            evaluation.save(folder / EVALUATION)
            reporter.finish(hparams, {f"final/{name}": value for name, value in evaluation.summary().items()})
    finally:
        checkpoints.wait()
        reporter.close()
    return results


def _write_origin(folder: Path, yaml: str, data: Data) -> None:
    size = data.processes.size
    write_atomically(folder / CONFIG, yaml.encode())
    write_atomically(folder / PROVENANCE, json.dumps(provenance(data.device, size), indent=1).encode())
    LOG.info("run %s on %s", folder, f"{size} x {data.device.type}" if size > 1 else data.device)


def _results(built: _Built, evaluation: Evaluation) -> dict[str, Any]:
    data = built.data
    return {
        "test": evaluation.summary(),
        "epoch": built.learner.epoch,
        "samples": {name: len(split) for name, split in data.splits.items() if split is not None},
        **_skipped(data),
        "parameters": sum(p.numel() for p in built.learner.model.parameters()),
        "attention_modules": len(built.records),
    }


def _skipped(data: Data) -> dict[str, dict[str, int]]:
    """How many images of the official splits were left out as corrupt; nothing for a set held in memory."""
    parts = {"train": data.dataset.train, "test": data.dataset.test}
    skipped = {name: part.skipped for name, part in parts.items() if hasattr(part, "skipped")}
    return {"skipped": skipped} if skipped else {}


def _introduce(writer: SummaryWriter, *, built: _Built, yaml: str) -> None:
    """The configuration, and a sample batch with regions as a first step may draw them."""
    data, dataset, seed = built.data, built.data.dataset, built.learner.settings.seed
    share = min(8, len(dataset.train) // data.processes.size)
    batch = next(data.training_batches(share * data.processes.size, seed).epoch(0))
    torch.manual_seed(derive(seed, "picture"))
    picture, legend = regions_on_images(
        batch.images, built.learner.model, built.records, torch.tensor(dataset.mean), torch.tensor(dataset.std)
    )
    writer.add_image("regions", picture, 0)
    writer.add_text("regions", legend, 0)
    writer.add_text("config", "    " + yaml.replace("\n", "\n    "), 0)
