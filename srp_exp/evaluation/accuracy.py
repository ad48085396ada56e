"""Accuracy of a classifier on a split, and the files that hold it."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srp_exp.datasets import Batch
from srp_exp.errors import UserError
from srp_exp.files import write_together
from srp_exp.srp.finding.undisturbed import evaluation_mode
from srp_exp.training.distributed import SINGLE, Processes


@dataclass(frozen=True)
class Evaluation:
    """What a model answered on N samples: all tensors on the CPU, in the order of the split.

    index: (N,) int64. labels: (N,) int64. probabilities: (N, classes) float32. losses: (N,) float32, the
    cross-entropy of each sample, without label smoothing.
    """

    class_names: tuple[str, ...]
    index: Tensor
    labels: Tensor
    probabilities: Tensor
    losses: Tensor

    @property
    def predictions(self) -> Tensor:
        """(N,) int64, the most probable class; the lower one of two that are equally probable."""
        return self.probabilities.argmax(1)

    def accuracy(self, k: int = 1) -> float:
        """Part of the samples, in [0, 1], whose label is among the k most probable classes.

        Of equally probable classes the lower ones come first, as in `predictions`.
        """
        return (self._before_label < k).double().mean().item()

    @cached_property
    def _before_label(self) -> Tensor:
        """(N,) int64: how many classes come before the label, by their probability, then by their number.

        Counted, since topk leaves open which of equal classes it takes, and a sort of all takes forty times longer.
        """
        own = self.probabilities.gather(1, self.labels[:, None])
        lower = torch.arange(self.probabilities.shape[1]) < self.labels[:, None]
        return ((self.probabilities > own) | ((self.probabilities == own) & lower)).sum(1)

    def summary(self) -> dict[str, float]:
        """loss and top1, and top5 where there are more than five classes; accuracies in [0, 1]."""
        values = {"loss": self.losses.double().mean().item(), "top1": self.accuracy()}
        return {**values, "top5": self.accuracy(5)} if len(self.class_names) > 5 else values

    def confusion(self) -> Tensor:
        """(classes, classes) int64: samples by label (row) and prediction (column)."""
        classes = len(self.class_names)
        return torch.bincount(self.labels * classes + self.predictions, minlength=classes**2).view(classes, classes)

    def details(self) -> dict[str, Any]:
        """The summary, the number of samples, the accuracy by class (None: no sample) and the confusion matrix."""
        confusion = self.confusion()
        per_class = (confusion.diagonal().double() / confusion.sum(1)).tolist()
        accuracies = [None if value != value else value for value in per_class]
        return {
            **self.summary(),
            "samples": len(self.labels),
            "top1_per_class": dict(zip(self.class_names, accuracies, strict=True)),
            "confusion": confusion.tolist(),
        }

    def save(self, folder: Path, facts: dict[str, Any] | None = None) -> None:
        """Write metrics.json, with `facts`, and predictions.parquet: index, label, prediction, probability_<class>."""
        folder.mkdir(parents=True, exist_ok=True)
        columns = {"index": self.index, "label": self.labels, "prediction": self.predictions}
        columns |= {f"probability_{name}": self.probabilities[:, i] for i, name in enumerate(self.class_names)}
        table = pa.table({name: column.numpy() for name, column in columns.items()})
        metrics = json.dumps(self.details() | (facts or {}), indent=1).encode()
        write_together(
            folder, {"predictions.parquet": lambda file: pq.write_table(table, file), "metrics.json": metrics}
        )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    class_names: tuple[str, ...],
    autocast: torch.autocast,
    processes: Processes = SINGLE,
) -> Evaluation:
    """Evaluate `model` on every sample of `batches` in evaluation mode; each of its modules is left in its own mode.

    Of several processes each passes its own batches, every N-th, and gets the evaluation of all. What was answered
    stays on the device until the end, N x classes float32: nothing waits for it before. Raises UserError where the
    answer to a sample isn't a number.
    """
    parts: list[tuple[Tensor, ...]] = []
    with evaluation_mode(model):
        for batch in batches:
            with autocast:
                logits = model(batch.images)
            log_probabilities = F.log_softmax(logits.float(), dim=1)
            losses = F.nll_loss(log_probabilities, batch.labels, reduction="none")
            parts.append((batch.index, batch.labels, log_probabilities.exp(), losses))
    rounds = itertools.zip_longest(*processes.gather(_on_cpu(parts)))
    in_order = [part for of_ranks in rounds for part in of_ranks if part is not None]
    evaluation = Evaluation(class_names, *(torch.cat(column) for column in zip(*in_order, strict=True)))
    unanswered = evaluation.index[evaluation.losses.isnan()]
    if len(unanswered):
        raise UserError(
            f"the network's answer isn't a number for {len(unanswered)} of {len(evaluation.index)} samples, the first "
            f"of them number {int(unanswered[0])}: a value in it left the range; with precision=fp16 take bf16"
        )
    return evaluation


def _on_cpu(parts: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """The parts on the CPU, copied there in one piece per column."""
    sizes = [len(part[0]) for part in parts]
    columns = [torch.cat(column).cpu().split(sizes) for column in zip(*parts, strict=True)]
    return list(zip(*columns, strict=True))
