"""Evaluators: functions that measure a trained network and are chosen by name, as evaluators=[descriptors,gates]."""

import importlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from srp_exp.config.evaluators import EVALUATORS, measured_file
from srp_exp.config.failures.imports import import_failure
from srp_exp.datasets import Batch
from srp_exp.errors import UserError
from srp_exp.evaluation.figures import histograms, pixels, png
from srp_exp.files import write_atomically


@dataclass(frozen=True)
class Subject:
    """What an evaluator measures; it leaves all of it as it was.

    model: trained, in evaluation mode, with its SRP if it has some, on the device of the batches. batches: makes, at
    every call, the same evaluation batches of a split, all its samples. autocast: to run the model in. seed: the run's.
    mean, std: of the channels, with which the images are normalised.
    """

    model: nn.Module
    batches: Callable[[], Iterable[Batch]]
    class_names: tuple[str, ...]
    autocast: torch.autocast
    seed: int
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)


Evaluator: TypeAlias = Callable[[Subject], dict[str, Any]]
"""Returns {"summary": {name: number}} and whatever else JSON can hold; NaN, which it can't, is for undefined values.

Of {"histograms": {name: counts in equal parts of [0, 1]}} a picture is drawn.
"""


def load_evaluator(name: str) -> Evaluator:
    """The function of a name in EVALUATORS, or of a dotted one. Raises UserError where there is none to call."""
    path = EVALUATORS.get(name, name)
    module, _, function = path.rpartition(".")
    try:
        evaluator: Evaluator = getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever a module of the user's raises
        raise UserError(f"evaluators: {import_failure(path, error)}") from error
    try:
        inspect.signature(evaluator).bind(None)
    except TypeError as error:
        raise UserError(f"evaluators: {path} is no function of one argument, a Subject ({error}); name one") from error
    except ValueError:  # one of C without a signature
        pass
    return evaluator


def measure(subject: Subject, names: Iterable[str], folder: Path) -> None:
    """Let each evaluator measure `subject`, and write <name>.json and TensorBoard scalars into `folder`.

    The scalars are measure/<evaluator>/<name of the summary>; histograms are drawn, into <name>.png too. Undefined
    values are null in the file, and no scalars. Raises what the first evaluator that fails has raised, when the others
    have measured.
    """
    evaluators = {name: load_evaluator(name) for name in dict.fromkeys(names)}
    if not evaluators:
        return
    folder.mkdir(parents=True, exist_ok=True)
    failed: list[Exception] = []
    with SummaryWriter(str(folder)) as writer:
        for name, evaluator in evaluators.items():
            try:
                measured = _without_nan(evaluator(subject))
                _check(name, measured)
                content = json.dumps(measured, indent=1, allow_nan=False).encode()
            except Exception as error:
                error.add_note(f"evaluators: {name} failed")
                failed.append(error)
                continue
            for key, value in measured["summary"].items():
                if value is not None:
                    writer.add_scalar(f"measure/{name}/{key}", value, 0)
            if measured.get("histograms"):
                picture = pixels(histograms(measured["histograms"], f"{name.capitalize()} of each module", name))
                writer.add_image(f"measure/{name}", picture, 0, dataformats="HWC")
                write_atomically(folder / f"{name}.png", png(picture))
            write_atomically(measured_file(folder, name), content)
    if failed:
        raise failed[0]


def _check(name: str, measured: Any) -> None:
    summary = measured.get("summary") if isinstance(measured, dict) else None
    if not isinstance(summary, dict) or not all(isinstance(value, float | int | None) for value in summary.values()):
        raise UserError(f"evaluators: {name} returned {measured!r:.60}: let it return {{'summary': {{name: number}}}}")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
