"""What a run writes at its end: its evaluation, pictures of it, and results.json."""

import json
from pathlib import Path
from typing import Any

from srp_exp.evaluation import Evaluation
from srp_exp.evaluation.figures import png
from srp_exp.files import write_atomically
from srp_exp.runs.build import Data, RunObjects
from srp_exp.runs.evaluate import draw_result
from srp_exp.runs.folder.layout import EVALUATION, RESULTS
from srp_exp.training.reporting.reporter import Reporter


def finish(folder: Path, built: RunObjects, evaluation: Evaluation, reporter: Reporter, seconds: float) -> None:
    """Save the evaluation on the test split, then results.json, with which the run is finished.

    seconds: of this start's training.
    """
    pictures = draw_result(evaluation, built.data, "test")
    evaluation.save(folder / EVALUATION, pictures={name: png(p) for name, p in pictures.items()})
    reporter.pictures(pictures)
    reporter.finish({f"final/{name}": value for name, value in evaluation.summary().items()})
    facts = {"attention_modules": len(built.srp_records), "run": folder.name, "training_seconds": seconds}
    results = {**_results(built, evaluation), **facts}
    write_atomically(folder / RESULTS, json.dumps(results, indent=1).encode())


def _results(built: RunObjects, evaluation: Evaluation) -> dict[str, Any]:
    data, learner = built.data, built.learner
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
