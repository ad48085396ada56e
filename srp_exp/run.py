"""A run from its configuration to its results: training, and evaluation of what was trained."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.utils.tensorboard import SummaryWriter

from srp_exp.build import Data, build_data, build_device, build_learner, build_model
from srp_exp.evaluation import Evaluation, evaluate
from srp_exp.files import write_atomically
from srp_exp.provenance import provenance
from srp_exp.seeding import derive
from srp_exp.srp import SrpRecord
from srp_exp.training.checkpoints import Checkpoints, load
from srp_exp.training.learner import Learner, autocast
from srp_exp.training.logs import LOG, log_to
from srp_exp.training.loop import LoopSettings, fit
from srp_exp.training.pictures import regions_on_images
from srp_exp.training.reporter import Reporter

RESULTS = "results.json"


def train(config: DictConfig, folder: Path, hparams: dict[str, Any]) -> dict[str, Any]:
    """Train the run of `config` in `folder`, from its latest checkpoint where there is one, and evaluate it.

    `hparams` is what TensorBoard's HParams page shows. Returns what results.json holds, which is written last: a run
    with results.json is finished.
    """
    device = build_device(config.device)
    data = build_data(config, device)
    model, records = build_model(config, data.dataset, device)
    batches = data.training_batches(config.recipe.batch_size, config.seed)
    learner = build_learner(config, model, data.dataset.num_classes, batches.steps_per_epoch, device)
    if config.rerun:  # now that all could be built
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    yaml = OmegaConf.to_yaml(config)
    with log_to(folder), SummaryWriter(str(folder)) as writer:
        write_atomically(folder / "config.yaml", yaml.encode())
        write_atomically(folder / "provenance.json", json.dumps(provenance(device), indent=1).encode())
        LOG.info("run %s on %s", folder, device)
        checkpoints = Checkpoints(folder / "checkpoints", yaml)
        reporter = Reporter(folder, writer, config.recipe.epochs, config.recipe.batch_size, config.progress)
        _show_start(writer, learner, data, records, yaml)
        selects = config.recipe.selection == "best"
        settings = LoopSettings(
            epochs=config.recipe.epochs,
            log_every_steps=config.log_every_steps,
            evaluate_every_epochs=config.recipe.evaluate_every_epochs,
            select_by="val/top1" if selects else None,
        )
        watched = "test" if data.splits["val"] is None else "val"

        def measure(trained: torch.nn.Module) -> dict[str, float]:
            summary = _evaluate(config, trained, data, watched).summary()
            return {f"{watched}/{name}": value for name, value in summary.items()}

        started = time.perf_counter()
        try:
            fit(learner, batches, measure, checkpoints, reporter, settings)
        finally:
            reporter.close()
        seconds = time.perf_counter() - started
        if selects:
            learner.load_state_dict(load(checkpoints.best)["learner"])
        checkpoints.finish(learner.evaluated_model.state_dict())
        evaluation = _evaluate(config, learner.evaluated_model, data, "test")
        evaluation.save(folder / "evaluation" / "test")
        results = {
            "run": folder.name,
            "test": evaluation.summary(),
            "epoch": learner.epoch,
            "samples": {name: len(split) for name, split in data.splits.items() if split is not None},
            **_skipped(data),
            "parameters": sum(p.numel() for p in model.parameters()),
            "attention_modules": len(records),
            "training_seconds": round(seconds, 1),
        }
        final = {f"final/{name}": value for name, value in evaluation.summary().items()}
        writer.add_hparams(hparams, final, run_name=str(folder.resolve()))
        write_atomically(folder / RESULTS, json.dumps(results, indent=1).encode())
    return results


def evaluate_checkpoint(config: DictConfig, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Evaluate a checkpoint on config.split; metrics.json and predictions.parquet go into `folder`."""
    device = build_device(config.device)
    data = build_data(config, device)
    model, _ = build_model(config, data.dataset, device)
    model.load_state_dict(load(checkpoint)["model"])
    evaluation = _evaluate(config, model, data, config.split)
    evaluation.save(folder)
    return evaluation.details()


def _skipped(data: Data) -> dict[str, dict[str, int]]:
    """How many images of the official splits were left out as corrupt; nothing for a set held in memory."""
    parts = {"train": data.dataset.train, "test": data.dataset.test}
    skipped = {name: part.skipped for name, part in parts.items() if hasattr(part, "skipped")}
    return {"skipped": skipped} if skipped else {}


def _evaluate(config: DictConfig, model: torch.nn.Module, data: Data, split: str) -> Evaluation:
    batches = data.evaluation_batches(split, config.recipe.batch_size)
    context = autocast(data.device, config.precision)
    return evaluate(model, batches, data.dataset.class_names, context)


def _show_start(writer: SummaryWriter, learner: Learner, data: Data, records: list[SrpRecord], yaml: str) -> None:
    """The configuration, and a sample batch with regions as a first step may draw them."""
    dataset = data.dataset
    seed = learner.settings.seed
    batch = next(data.training_batches(min(16, len(dataset.train)), seed).epoch(0))
    torch.manual_seed(derive(seed, "picture"))
    picture, legend = regions_on_images(
        batch.images, learner.model, records, torch.tensor(dataset.mean), torch.tensor(dataset.std)
    )
    writer.add_image("regions", picture, 0)
    writer.add_text("regions", legend, 0)
    writer.add_text("config", "    " + yaml.replace("\n", "\n    "), 0)
