"""Accuracies against loops in pure Python and scikit-learn, the files they go to, and what evaluation leaves alone."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn import metrics
from timm.layers import SEModule
from torch import Tensor, nn

from srp_exp.datasets import Batch, EvalLoader, ImageSet, Split
from srp_exp.datasets.augmentation import Augmentation
from srp_exp.evaluation import Evaluation, evaluate, score
from srp_exp.srp import apply_srp
from srp_exp.training.autocast import autocast

torch.set_num_threads(1)

CPU = torch.device("cpu")
SAMPLES = 101

Answer = tuple[list[int], list[list[float]]]


class Scores(nn.Module):
    """Answers with the logits that stand in the pixels of an image (B, 1, 1, classes)."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        self.batches.append(len(images))
        return images.flatten(1)


def random_answers(classes: int, samples: int = SAMPLES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels, and logits that favour them a little."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (samples,), generator=source)
    logits = torch.randn(samples, classes, generator=source)
    logits[torch.arange(samples), labels] += 1
    return labels, logits


def batches_of(labels: Tensor, logits: Tensor, batch_size: int, first_index: int = 1000) -> Iterator[Batch]:
    index = torch.arange(len(labels)) + first_index
    for rows in torch.arange(len(labels)).split(batch_size):
        yield Batch(logits[rows][:, None, None], labels[rows], index[rows])


def names_of(classes: int) -> tuple[str, ...]:
    return tuple(f"class {label}" for label in range(classes))


def evaluation_of(labels: Tensor, logits: Tensor, batch_size: int = 16) -> Evaluation:
    batches = batches_of(labels, logits, batch_size)
    return evaluate(Scores(), batches, names_of(logits.shape[1]), autocast(CPU, "fp32"))


@pytest.mark.parametrize(("classes", "batch_size"), [(2, 1000), (5, 101), (6, 1), (12, 16)])
def test_every_number_equals_a_slow_loop(classes: int, batch_size: int) -> None:
    labels, logits = random_answers(classes)
    loss, top1, top5 = 0.0, 0, 0
    confusion = [[0] * classes for _ in range(classes)]
    for label, row in zip(labels.tolist(), logits.tolist(), strict=True):
        loss += math.log(sum(math.exp(value) for value in row)) - row[label]
        ranking = sorted(range(classes), key=lambda c: -row[c])
        top1 += ranking[0] == label
        top5 += label in ranking[:5]
        confusion[label][ranking[0]] += 1
    details = evaluation_of(labels, logits, batch_size).details()
    assert details["samples"] == SAMPLES
    assert details["loss"] == pytest.approx(loss / SAMPLES, rel=1e-5)
    assert details["top1"] == pytest.approx(top1 / SAMPLES, rel=1e-12)
    if classes > 5:
        assert details["top5"] == pytest.approx(top5 / SAMPLES, rel=1e-12)
    else:
        assert "top5" not in details
    assert details["confusion"] == confusion
    per_class = {f"class {c}": confusion[c][c] / sum(confusion[c]) for c in range(classes)}
    assert details["top1_per_class"] == pytest.approx(per_class, rel=1e-12)


def test_the_numbers_are_those_of_scikit_learn() -> None:
    labels, logits = random_answers(8, seed=1)
    evaluation = evaluation_of(labels, logits)
    truth, scores = labels.numpy(), logits.double().softmax(1).numpy()
    predicted = scores.argmax(1)
    summary = evaluation.summary()
    assert summary["top1"] == pytest.approx(metrics.accuracy_score(truth, predicted))
    for k in (2, 3, 5):
        expected = metrics.top_k_accuracy_score(truth, scores, k=k, labels=range(8))
        assert evaluation.accuracy(k) == pytest.approx(expected)
    assert summary["loss"] == pytest.approx(metrics.log_loss(truth, scores, labels=range(8)), rel=1e-5)
    np.testing.assert_array_equal(evaluation.confusion().numpy(), metrics.confusion_matrix(truth, predicted))
    assert summary["balanced_top1"] == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert summary["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    recall = metrics.recall_score(truth, predicted, average=None)
    assert list(evaluation.details()["top1_per_class"].values()) == pytest.approx(list(recall))


@pytest.mark.parametrize("batch_size", [4, 7])
def test_a_split_is_evaluated_once_and_in_its_order(batch_size: int) -> None:
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (7, 1, 2, 3), dtype=torch.uint8, generator=source)
    labels, index = torch.tensor([5, 0, 3, 3, 1, 2, 0]), torch.tensor([9, 8, 1, 0, 4, 77, 6])
    split = Split(images, labels, index)
    dataset = ImageSet(split, split, names_of(6), (0.5,), (0.25,), Augmentation())
    model = Scores()
    evaluation = evaluate(model, EvalLoader(dataset, split, batch_size=batch_size), names_of(6), autocast(CPU, "fp32"))
    assert sum(model.batches) == 7
    assert model.batches[-1] == (7 % batch_size or batch_size)
    assert torch.equal(evaluation.index, index)
    assert torch.equal(evaluation.labels, labels)
    assert torch.equal(evaluation.predictions, images.flatten(1).argmax(1))
    torch.testing.assert_close(evaluation.probabilities, ((images.flatten(1) / 255 - 0.5) / 0.25).softmax(1))


def test_classes_absent_from_the_split() -> None:
    labels, logits = random_answers(7)
    kept = (labels != 2) & (labels != 6)
    details = evaluation_of(labels[kept], logits[kept]).details()
    per_class = details["top1_per_class"]
    assert [name for name, accuracy in per_class.items() if accuracy is None] == ["class 2", "class 6"]
    assert details["confusion"][2] == details["confusion"][6] == [0] * 7
    assert len(details["confusion"]) == 7
    json.loads(json.dumps(details, allow_nan=False))  # valid JSON knows no NaN


@pytest.mark.parametrize("classes", [3, 10])
def test_of_equal_classes_the_lower_is_chosen_everywhere(classes: int) -> None:
    # A collapsed network answers the same for all classes, and bf16 makes ties common.
    labels = torch.arange(classes)
    evaluation = evaluation_of(labels, torch.zeros(classes, classes))
    assert evaluation.predictions.tolist() == [0] * classes
    assert evaluation.accuracy() == pytest.approx(1 / classes)
    assert evaluation.confusion().diagonal().sum() == 1
    top1 = [[evaluation_of(labels[i : i + 1], torch.zeros(1, classes)).accuracy(k) for k in (1, 3)] for i in labels]
    assert [first for first, _ in top1] == [1.0] + [0.0] * (classes - 1)
    assert [third for _, third in top1] == [1.0] * 3 + [0.0] * (classes - 3)


def test_top1_agrees_with_the_confusion_matrix_under_many_ties() -> None:
    labels, logits = random_answers(10)
    evaluation = evaluation_of(labels, logits.round())
    trace = evaluation.confusion().diagonal().sum().item()
    assert evaluation.accuracy() == pytest.approx(trace / SAMPLES)


@pytest.mark.parametrize("k", [1, 5, 12])
def test_top_k_under_ties_is_that_of_a_stable_sort(k: int) -> None:
    """Sorted by probability, then by class: Python's sort is stable."""
    for seed in range(5):
        labels, logits = random_answers(9, seed=seed)
        evaluation = evaluation_of(labels, logits.round())
        hits = 0
        for label, row in zip(labels.tolist(), evaluation.probabilities.tolist(), strict=True):
            hits += label in sorted(range(9), key=lambda c: -row[c])[:k]
        assert evaluation.accuracy(k) == hits / SAMPLES


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
def test_classes_without_samples_or_answers_count_as_scikit_learn_counts_them() -> None:
    """Class 1 has samples and is never the answer, 2 is an answer and has none, 4 has neither."""
    labels = torch.tensor([0, 0, 0, 0, 1, 3])
    logits = torch.eye(5)[[0, 0, 0, 2, 0, 3]]
    evaluation = evaluation_of(labels, logits)
    truth, predicted = labels.numpy(), evaluation.predictions.numpy()
    summary = evaluation.summary()
    assert summary["balanced_top1"] == pytest.approx((3 / 4 + 0 + 1) / 3)
    assert summary["balanced_top1"] == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
    assert summary["macro_f1"] == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
    assert evaluation.never_predicted() == evaluation.details()["never_predicted"] == ["class 1"]


def test_no_sort_and_one_transfer_of_each_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sort of 5,000 x 1,000 probabilities took 1.7 s, and four transfers a batch wait for the device each time."""
    transfers: list[tuple[int, ...]] = []
    cpu = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: transfers.append(tuple(tensor.shape)) or cpu(tensor))
    for name in ("sort", "argsort", "topk"):
        monkeypatch.setattr(Tensor, name, None)
    evaluation = evaluation_of(*random_answers(7), batch_size=10)
    evaluation.summary()
    assert sorted(transfers) == [*[(SAMPLES,)] * 5, (SAMPLES, 7)]


def test_scores_are_those_of_the_evaluation() -> None:
    labels, logits = random_answers(7)
    scores = score(Scores(), batches_of(labels, logits, 10), names_of(7), autocast(CPU, "fp32"))
    assert scores.summary() == evaluation_of(labels, logits).summary()
    assert not hasattr(scores, "probabilities")


def test_an_answer_that_is_no_number_is_refused() -> None:
    labels, logits = random_answers(7)
    logits[40, 3] = math.nan
    with pytest.raises(ValueError, match="isn't a number for 1 of 101 samples, the first of them number 1040"):
        evaluation_of(labels, logits)


def test_extreme_logits_give_finite_numbers() -> None:
    labels = torch.tensor([0, 1, 0])
    logits = torch.tensor([[1000.0, 0.0], [1000.0, 0.0], [-1000.0, 0.0]])
    summary = evaluation_of(labels, logits).summary()
    assert (summary["loss"], summary["top1"]) == (pytest.approx(2000 / 3), pytest.approx(1 / 3))


def test_half_precision_is_scored_in_float32() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.dtypes: set[torch.dtype] = set()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.layer(images.flatten(1))
            self.dtypes.add(logits.dtype)
            return logits

    torch.manual_seed(0)
    model = Linear()
    labels, logits = random_answers(4)
    half, full = (
        evaluate(model, batches_of(labels, logits, 16), names_of(4), autocast(CPU, precision))
        for precision in ("bf16", "fp32")
    )
    assert model.dtypes == {torch.bfloat16, torch.float32}
    assert half.probabilities.dtype == half.losses.dtype == torch.float32
    torch.testing.assert_close(half.probabilities.sum(1), torch.ones(SAMPLES))
    assert half.summary()["loss"] == pytest.approx(full.summary()["loss"], abs=2e-2)


# Files


def test_predictions_file_holds_every_sample(tmp_path: Path) -> None:
    labels, logits = random_answers(6)
    evaluation_of(labels, logits).save(tmp_path / "evaluation" / "test")
    table = pq.read_table(tmp_path / "evaluation" / "test" / "predictions.parquet")
    names = [f"probability_class {label}" for label in range(6)]
    assert table.column_names == ["index", "label", "prediction", *names]
    assert [str(table.schema.field(name).type) for name in table.column_names] == ["int64"] * 3 + ["float"] * 6
    columns = table.to_pydict()
    assert columns["index"] == list(range(1000, 1000 + SAMPLES))
    assert columns["label"] == labels.tolist()
    assert columns["prediction"] == logits.argmax(1).tolist()
    probabilities = np.array([columns[name] for name in names]).T
    np.testing.assert_allclose(probabilities, logits.double().softmax(1).numpy(), rtol=1e-5)


def test_metrics_file_holds_the_details_and_a_second_evaluation_replaces_them(tmp_path: Path) -> None:
    for seed in (0, 1):
        evaluation = evaluation_of(*random_answers(6, seed=seed))
        evaluation.save(tmp_path)
        assert json.loads((tmp_path / "metrics.json").read_text()) == evaluation.details()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "predictions.parquet"]


# What stays as it was


@pytest.fixture
def network() -> nn.Sequential:
    """A network in which a step draws: dropout and SRP."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        SEModule(4, rd_channels=2),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    apply_srp(model, 0.5, example_input=torch.zeros(2, 1, 6, 6))
    return model


@pytest.fixture
def image_batches() -> Callable[[], Iterator[Batch]]:
    def batches() -> Iterator[Batch]:
        source = torch.Generator().manual_seed(1)
        for size in (4, 4, 2):
            images = torch.randn(size, 1, 6, 6, generator=source)
            yield Batch(images, torch.zeros(size, dtype=torch.int64), torch.arange(size))

    return batches


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was_and_nothing_is_drawn(
    network: nn.Sequential, image_batches: Callable[[], Iterator[Batch]], training: bool
) -> None:
    network.train(training)
    modes = [module.training for module in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    rng = torch.get_rng_state()
    first, second = (evaluate(network, image_batches(), ("a", "b", "c"), autocast(CPU, "fp32")) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(first.probabilities, second.probabilities)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not first.probabilities.requires_grad
