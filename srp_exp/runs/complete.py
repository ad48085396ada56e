"""A run from its configuration to its results."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from srp_exp.config.preprocessing import describe_preprocessing
from srp_exp.config.schemas.training import average_of_the_start, shortened_warmup
from srp_exp.datasets import TrainingBatches
from srp_exp.datasets.known import facts_of
from srp_exp.errors import CorruptImageError, UserError
from srp_exp.evaluation import Evaluation
from srp_exp.evaluation.accuracy import evaluation_mode
from srp_exp.evaluation.cost import multiply_adds
from srp_exp.evaluation.evaluators import load_evaluator
from srp_exp.evaluation.figures import Pixels, pixels, png
from srp_exp.evaluation.sample_batch import sample_batch
from srp_exp.files import write_atomically
from srp_exp.runs.build import Data, build_data, build_learner, build_loggers, build_model
from srp_exp.runs.device import build_device, choose_kernels, memory_suffices, slow_precision
from srp_exp.runs.evaluate import draw_result, evaluate_on, score_on
from srp_exp.runs.folder.digests import digests_of, digests_of_data, record_data, record_unread, refuse_other_data
from srp_exp.runs.folder.layout import CHECKPOINTS, CONFIG, EVALUATION, RESULTS, clear, remove_unfinished
from srp_exp.runs.folder.lock import LOCK, only_writer
from srp_exp.runs.folder.provenance import note_start
from srp_exp.seeding import derive
from srp_exp.srp import SrpRecord
from srp_exp.training.checkpoints import Checkpoints
from srp_exp.training.learner import Learner
from srp_exp.training.loggers.guarded import Loggers
from srp_exp.training.loggers.logger import LoggedRun
from srp_exp.training.loop import Training, fit
from srp_exp.training.processes.distributed import Processes, connected
from srp_exp.training.reporting.dispensable import Dispensable
from srp_exp.training.reporting.logs import LOG, log_from_the_start, log_to
from srp_exp.training.reporting.profiler import Profiled
from srp_exp.training.reporting.reporter import Reporter
from srp_exp.training.resume import load_best
from srp_exp.training.stopping.interruption import Interruption
from srp_exp.training.stopping.pruning import is_behind, read_bar
from srp_exp.training.throughput import Work, peak_tflops


def complete_run(config: DictConfig, folder: Path, settings: dict[str, Any]) -> None:
    """Train the run of `config` in `folder`, from its latest checkpoint where there is one, and evaluate it.

    `settings` are what loggers show of it. results.json is written last: a run that has it is finished.
    Raises UserError where another process trains in the folder, or the device's memory does not suffice, and
    GivenUpError where a search gives the run up (config.prune_by).
    """
    choose_kernels(config)
    device = build_device(config.device)
    for name in config.evaluators:
        load_evaluator(name)  # not after hours of training
    loggers = build_loggers(config)
    with (
        connected(device) as processes,
        log_from_the_start(processes.writes),
        memory_suffices(device, config.recipe.batch_size, _less_memory(config)),
    ):
        data = build_data(config, device, processes)  # before the folder is touched
        model, records = build_model(config, data.dataset, device)
        batches = data.training_batches(config.recipe.batch_size, config.seed)
        learner = build_learner(config, model, data, batches.steps_per_epoch, processes)
        afresh = config.rerun and not int(os.environ.get("SLURM_RESTART_COUNT") or 0)  # a requeued job resumes
        again = f"the same command{' without rerun=true' * config.rerun}"
        with Interruption(again).watch() as interruption, _hold(folder, afresh, processes) as confirm:
            _keep_to_its_data(config, folder, data, processes)
            reporter = None
            if processes.writes:
                write_atomically(folder / CONFIG, OmegaConf.to_yaml(config).encode())
                note_start(folder, device, processes.size)
                for line in filter(None, (describe_preprocessing(config), shortened_warmup(config))):
                    LOG.info("%s", line)
                steps = config.recipe.epochs * batches.steps_per_epoch
                for warning in filter(
                    None, (slow_precision(config.precision, device), average_of_the_start(config, steps))
                ):
                    LOG.warning("%s", warning)
                introduce = partial(
                    _introduce, folder=folder, config=config, data=data, learner=learner, records=records
                )
                logged = Loggers(LoggedRun(folder, settings, OmegaConf.to_yaml(config), afresh), loggers)
                reporter = Reporter(
                    folder, logged, introduce, config.recipe.epochs, config.recipe.batch_size, config.progress,
                    _work(config, learner, data),
                )  # fmt: skip
            try:
                evaluation, seconds = _train(config, folder, data, batches, learner, reporter, interruption, confirm)
                confirm()
                if reporter is not None and evaluation is not None:
                    pictures: dict[str, Pixels] = {}
                    with Dispensable("the pictures of the result", Exception).written():
                        pictures = draw_result(evaluation, data, "test")
                    evaluation.save(folder / EVALUATION, pictures={name: png(p) for name, p in pictures.items()})
                    reporter.pictures(pictures)
                    reporter.finish({f"final/{name}": value for name, value in evaluation.summary().items()})
                    facts = {"attention_modules": len(records), "run": folder.name, "training_seconds": seconds}
                    results = {**_results(data, learner, evaluation), **facts}
                    write_atomically(folder / RESULTS, json.dumps(results, indent=1).encode())
            except CorruptImageError as error:
                if processes.writes and error.file is not None:
                    record_unread(folder, error.file, digests_of(data.dataset, error.file))
                    data.dataset.forget()
                raise
            finally:
                if reporter is not None:
                    reporter.close()


def _work(config: DictConfig, learner: Learner, data: Data) -> Work | None:
    """What a step asks of a GPU, and what all of them can do."""
    if learner.device.type != "cuda":
        return None
    image = torch.zeros(1, data.dataset.channels, *data.dataset.image_size, device=learner.device)
    with evaluation_mode(learner.model):
        macs = multiply_adds(learner.model, image)
    peak = peak_tflops(torch.cuda.get_device_name(learner.device), config.precision, config.tf32)
    return Work.of(macs, peak, learner.processes.size)


def _less_memory(config: DictConfig) -> str:
    """What the user can do about it, but for what is done already."""
    remedies = ["lower it", "raise recipe.accumulate_steps (the batch stays)"]
    if config.precision == "fp32":
        remedies.append("set precision=bf16")
    if not config.activation_checkpointing:
        remedies.append("set activation_checkpointing=true")
    return f"{', '.join(remedies[:-1])} or {remedies[-1]}"


@contextmanager
def _hold(folder: Path, afresh: bool, processes: Processes) -> Iterator[Callable[[], None]]:
    """Be the only training in `folder` and log there; `afresh`, clear it of an earlier one.

    Yields what makes sure, before something is saved, that this process still holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)  # which Hydra has made, unless a file gives hydra.run.dir
    with ExitStack() as stack:
        held = stack.enter_context(only_writer(folder)) if processes.writes else None
        if held is not None:
            remove_unfinished(folder)
            if afresh:
                clear(folder, keep=LOCK)
        processes.gather(None)  # nobody reads the folder before that
        stack.enter_context(log_to(folder, processes.writes))
        if held is not None and held.died:
            LOG.info("previous process (%s) died; taking over its lock", held.died)
        yield (lambda: None) if held is None else held.confirm


def _keep_to_its_data(config: DictConfig, folder: Path, data: Data, processes: Processes) -> None:
    """Note what the run reads. Raises UserError where it read other data before, or another process reads others."""
    digests = digests_of_data(config, data.dataset)
    if any(other != digests for other in processes.gather(digests)):
        raise UserError("the processes read different data: give all of them the same files, and begin again")
    refuse_other_data(folder, digests, partial(digests_of, data.dataset))
    processes.gather(None)  # all have read the record before it is written
    if processes.writes:
        record_data(folder, digests)


def _train(
    config: DictConfig,
    folder: Path,
    data: Data,
    batches: TrainingBatches,
    learner: Learner,
    reporter: Reporter | None,
    interruption: Interruption,
    confirm: Callable[[], None],
) -> tuple[Evaluation | None, float]:
    """Train to the end; return the evaluation of the result on the test split, and the seconds of this start."""
    selects = config.recipe.selection == "best"
    checkpoints = Checkpoints(
        folder / CHECKPOINTS,
        OmegaConf.to_yaml(config),
        facts_of(data.dataset),
        confirm=confirm,
        every_steps=config.checkpoint.every_steps,
        every_minutes=config.checkpoint.every_minutes,
        writes=learner.processes.writes,
    )
    profiled = config.profile and learner.processes.writes
    training = Training(
        learner,
        Profiled(batches, folder / "profile") if profiled else batches,
        checkpoints,
        interruption,
        reporter,
        epochs=config.recipe.epochs,
        log_every_steps=config.log_every_steps,
        evaluate_every_epochs=config.recipe.evaluate_every_epochs,
        select_by="val/top1" if selects else None,
        patience=config.recipe.early_stopping,
        gives_up=None if config.prune_by is None else lambda of: is_behind(of, read_bar(Path(config.prune_by))),
    )
    watched = "test" if data.splits["val"] is None else "val"

    def measure(trained: torch.nn.Module) -> dict[str, float]:
        summary = score_on(config, trained, data, watched, learner.processes).summary()
        return {f"{watched}/{name}": value for name, value in summary.items()}

    started = time.perf_counter()
    try:
        fit(training, measure)
        seconds = time.perf_counter() - started
        if selects:
            load_best(checkpoints, learner)
        checkpoints.finish(learner.evaluated_model.state_dict())
        return evaluate_on(config, learner.evaluated_model, data, "test", learner.processes), round(seconds, 1)
    finally:
        checkpoints.wait()


def _results(data: Data, learner: Learner, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "test": evaluation.summary(),
        "classes": len(evaluation.class_names),
        "never_predicted": evaluation.never_predicted(),
        "epoch": learner.epoch,
        "samples": {name: len(split) for name, split in data.splits.items() if split is not None},
        **_skipped(data),
        "parameters": sum(p.numel() for p in learner.model.parameters()),
    }


def _skipped(data: Data) -> dict[str, dict[str, int]]:
    """How many images of the official splits were left out as corrupt; nothing for a set held in memory."""
    parts = {"train": data.dataset.train, "val": data.dataset.val, "test": data.dataset.test}
    skipped = {name: part.skipped for name, part in parts.items() if hasattr(part, "skipped")}
    return {"skipped": skipped} if skipped else {}


def _introduce(
    loggers: Loggers, *, folder: Path, config: DictConfig, data: Data, learner: Learner, records: list[SrpRecord]
) -> None:
    """A sample batch with regions as a first step may draw them, which is also a file of the run."""
    dataset, size = data.dataset, learner.processes.size
    share = min(8, len(data.splits["train"]) // size)
    batch = next(data.training_batches(share * size, config.seed).epoch(0))
    torch.manual_seed(derive(config.seed, "picture"))
    labels = [dataset.class_names[label] for label in batch.labels.tolist()]
    picture = pixels(sample_batch(data.shown(batch.images), labels, learner.model, records))
    with Dispensable("sample_batch.png").written():
        write_atomically(folder / "sample_batch.png", png(picture))
    loggers.picture("sample_batch", torch.from_numpy(picture).permute(2, 0, 1), 0)
