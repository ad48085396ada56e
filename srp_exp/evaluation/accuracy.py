"""Accuracy of a classifier on a split, and the files that hold it."""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srp_exp.config.visible import visible
from srp_exp.datasets import Batch
from srp_exp.errors import UserError
from srp_exp.files import write_together
from srp_exp.training.processes.distributed import SINGLE, Processes

_Parts: TypeAlias = list[tuple[Tensor, ...]]
"""Columns of some batches, one after another."""


@dataclass(frozen=True)
class Scores:
    """How well a model answered on N samples: all tensors on the CPU, in the order of the split.

    index, labels: (N,) int64. predictions: (N,) int64, the most probable class, the lower one of two that are equally
    probable. losses: (N,) float32, the cross-entropy of each sample, without label smoothing and weights of classes.
    before_label: (N,) int64, how many classes come before the label, by their probability, then by their number.
    """

    class_names: tuple[str, ...]
    index: Tensor
    labels: Tensor
    predictions: Tensor
    losses: Tensor
    before_label: Tensor

    def accuracy(self, k: int = 1) -> float:
        """Part of the samples, in [0, 1], whose label is among the k most probable classes.

        Of equally probable classes the lower ones come first, as in `predictions`.
        """
        return (self.before_label < k).double().mean().item()

    def balanced_accuracy(self) -> float:
        """The mean over the classes of the part of their samples that is right, in [0, 1]; a class without samples is
        left out. So does scikit-learn's balanced_accuracy_score.
        """
        right, labelled, _ = self._counts()
        return (right / labelled)[labelled > 0].mean().item()

    def macro_f1(self) -> float:
        """The mean over the classes of F1 = 2 right / (samples + answers); a class with neither is left out.

        As scikit-learn's f1_score(average="macro"), which would cost an import of a second.
        """
        right, labelled, answered = self._counts()
        either = labelled + answered
        return (2 * right / either)[either > 0].mean().item()

    def never_predicted(self) -> list[str]:
        """The names of the classes that have samples, and are the answer to none."""
        _, labelled, answered = self._counts()
        return [self.class_names[label] for label in ((labelled > 0) & (answered == 0)).nonzero().flatten().tolist()]

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        """By class, (classes,) float64: right answers, samples and answers."""
        groups = (self.labels[self.labels == self.predictions], self.labels, self.predictions)
        right, labelled, answered = (group.bincount(minlength=len(self.class_names)).double() for group in groups)
        return right, labelled, answered

    def summary(self) -> dict[str, float]:
        """loss, top1, top5 where there are more than five classes, balanced_top1, macro_f1; all but loss in [0, 1]."""
        top5 = {"top5": self.accuracy(5)} if len(self.class_names) > 5 else {}
        by_class = {"balanced_top1": self.balanced_accuracy(), "macro_f1": self.macro_f1()}
        return {"loss": self.losses.double().mean().item(), "top1": self.accuracy(), **top5, **by_class}


@dataclass(frozen=True)
class Evaluation(Scores):
    """The scores, and what the model answered.

    probabilities: (N, classes) float32. paths: where each of the N pictures was read from; None where they aren't
    files.
    """

    probabilities: Tensor
    paths: Sequence[str] | None = None

    def confusion(self) -> Tensor:
        """(classes, classes) int64: samples by label (row) and prediction (column)."""
        classes = len(self.class_names)
        return torch.bincount(self.labels * classes + self.predictions, minlength=classes**2).view(classes, classes)

    def details(self) -> dict[str, Any]:
        """The summary, the number of samples, classes that are never predicted, the accuracy by class (None: no
        sample) and the confusion matrix.
        """
        confusion = self.confusion()
        per_class = (confusion.diagonal().double() / confusion.sum(1)).tolist()
        accuracies = [None if value != value else value for value in per_class]
        return {
            **self.summary(),
            "samples": len(self.labels),
            "never_predicted": self.never_predicted(),
            "top1_per_class": dict(zip(self.class_names, accuracies, strict=True)),
            "confusion": confusion.tolist(),
        }

    def save(
        self, folder: Path, facts: dict[str, Any] | None = None, pictures: Mapping[str, bytes] | None = None
    ) -> None:
        """Write metrics.json, with `facts`, predictions.parquet, and `pictures`, the content of PNG files by name.

        Its columns are index, path (of pictures in files), label, prediction and probability_<class>.
        """
        folder.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Any] = {"index": self.index.numpy()}
        columns |= {} if self.paths is None else {"path": [visible(path) for path in self.paths]}
        columns |= {"label": self.labels.numpy(), "prediction": self.predictions.numpy()}
        columns |= {f"probability_{name}": self.probabilities[:, i].numpy() for i, name in enumerate(self.class_names)}
        table = pa.table(columns)
        metrics = json.dumps(self.details() | (facts or {}), indent=1).encode()
        files = {f"{name}.png": content for name, content in (pictures or {}).items()}
        predictions = {"predictions.parquet": lambda file: pq.write_table(table, file)}
        write_together(folder, {**files, **predictions, "metrics.json": metrics})


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    class_names: tuple[str, ...],
    autocast: torch.autocast,
    processes: Processes = SINGLE,
) -> Evaluation | None:
    """Evaluate `model` on every sample of `batches` in evaluation mode; each of its modules is left in its own mode.

    With N processes each passes its own batches, every N-th, and rank 0 gets the evaluation of all, the others
    None. What was answered stays on the device until the end, N x classes float32: nothing waits for it before. Raises
    UserError, in every process, where the answer to a sample isn't a number.
    """
    scores, answers = _answer(model, batches, autocast, keep=True)
    found = _scores(class_names, scores, processes)
    of_ranks = processes.gather_on_first(answers)
    return None if of_ranks is None else Evaluation(*vars(found).values(), *_in_order(of_ranks))


def score(
    model: nn.Module,
    batches: Iterable[Batch],
    class_names: tuple[str, ...],
    autocast: torch.autocast,
    processes: Processes = SINGLE,
) -> Scores:
    """As `evaluate`, without keeping the answers: every process gets the scores of all."""
    return _scores(class_names, _answer(model, batches, autocast, keep=False)[0], processes)


@torch.no_grad()
def _answer(model: nn.Module, batches: Iterable[Batch], autocast: torch.autocast, keep: bool) -> tuple[_Parts, _Parts]:
    """By batch what `Scores` has, and, to `keep`, probabilities."""
    scores: list[tuple[Tensor, ...]] = []
    answers: list[tuple[Tensor, ...]] = []
    with evaluation_mode(model):
        for batch in batches:
            with autocast:
                logits = model(batch.images)
            log_probabilities = F.log_softmax(logits.float(), dim=1)
            losses = F.nll_loss(log_probabilities, batch.labels, reduction="none")
            probabilities = log_probabilities.exp()
            before_label = _before_label(probabilities, batch.labels)
            scores.append((batch.index, batch.labels, probabilities.argmax(1), losses, before_label))
            if keep:
                answers.append((probabilities,))
    return _on_cpu(scores), _on_cpu(answers)


def _before_label(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(N,) int64. Counted: topk leaves open which of equal classes it takes, and a sort of all takes far longer."""
    own = probabilities.gather(1, labels[:, None])
    lower = torch.arange(probabilities.shape[1], device=labels.device) < labels[:, None]
    return ((probabilities > own) | ((probabilities == own) & lower)).sum(1)


def _scores(class_names: tuple[str, ...], own: _Parts, processes: Processes) -> Scores:
    found = Scores(class_names, *_in_order(processes.gather(own)))
    unanswered = found.index[found.losses.isnan()]
    if len(unanswered):
        raise UserError(
            f"the network's answer isn't a number for {len(unanswered)} of {len(found.index)} samples, the first "
            f"of them number {int(unanswered[0])}: a value in it left the range; with precision=fp16 take bf16"
        )
    return found


def _in_order(of_ranks: list[_Parts]) -> list[Tensor]:
    """The columns of all batches, of which each rank has every N-th."""
    rounds = itertools.zip_longest(*of_ranks)
    in_order = [part for of_round in rounds for part in of_round if part is not None]
    return [torch.cat(column) for column in zip(*in_order, strict=True)]


def _on_cpu(parts: _Parts) -> _Parts:
    """The parts on the CPU, copied there in one piece per column."""
    sizes = [len(part[0]) for part in parts]
    columns = [torch.cat(column).cpu().split(sizes) for column in zip(*parts, strict=True)]
    return list(zip(*columns, strict=True))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Every module of `model` in evaluation mode; afterwards each is in the mode in which it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
