"""What the pictures of a result show, read off the drawn figures: numbers against loops, for few and many classes."""

from collections import Counter

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from srp_exp.evaluation import Evaluation
from srp_exp.evaluation.figures import histograms, pixels, png
from srp_exp.evaluation.pictures import accuracy_by_class, confusion, errors, result_pictures


def evaluation_of(classes: int, samples: int = 300, without: int | None = None) -> Evaluation:
    """Of random answers that are often right; no sample is of the class `without`."""
    source = torch.Generator().manual_seed(classes)
    labels = torch.randint(0, classes, (samples,), generator=source)
    if without is not None:
        labels[labels == without] = (without + 1) % classes
    logits = torch.randn(samples, classes, generator=source)
    logits[torch.arange(samples), labels] += 2
    probabilities = logits.softmax(1)
    own = probabilities[torch.arange(samples), labels]
    names = tuple(f"class {label}" for label in range(classes))
    index = torch.arange(samples) + 1000
    before = (probabilities > own[:, None]).sum(1)
    return Evaluation(names, index, labels, probabilities.argmax(1), -own.log(), before, probabilities)


def take(rows: Tensor) -> Tensor:
    return torch.zeros(len(rows), 1, 4, 6)


def texts(figure: Figure, axes: int = 0) -> list[str]:
    return [text.get_text() for text in figure.axes[axes].texts]


@pytest.mark.parametrize("classes", [30, 200])
def test_a_confusion_matrix_shows_the_answers_to_each_class(classes: int) -> None:
    evaluation = evaluation_of(classes, without=1)
    figure = confusion(evaluation)
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    pairs = Counter(zip(evaluation.labels.tolist(), evaluation.predictions.tolist(), strict=True))
    sizes = Counter(evaluation.labels.tolist())
    for row in range(classes):
        if row == 1 or not sizes[row]:
            assert np.ma.getmaskarray(shown)[row].all()
        else:
            assert shown[row].tolist() == pytest.approx([pairs[row, c] / sizes[row] for c in range(classes)])
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    if classes <= 30:
        assert named == list(evaluation.class_names)
    else:
        assert 5 <= len(named) <= 12  # numbers that don't overlap
    (one, _), count = next(pair for pair in pairs.most_common() if pair[0][0] != pair[0][1])
    if classes > 20:  # which has words for the most frequent
        assert texts(figure, 1)[0] == f"{count} of {sizes[one]}"
    else:
        assert f"{100 * count / sizes[one]:.0f}" in texts(figure)
    assert pixels(figure).shape[2] == 3


@pytest.mark.parametrize("classes", [10, 200])
def test_bars_show_the_worst_classes_first(classes: int) -> None:
    evaluation = evaluation_of(classes, samples=900)
    right = Counter(evaluation.labels[evaluation.labels == evaluation.predictions].tolist())
    sizes = Counter(evaluation.labels.tolist())
    values = sorted(right[label] / size for label, size in sizes.items())
    figure = accuracy_by_class(evaluation)
    bars = [bar.get_width() for bar in figure.axes[0].patches]
    assert bars == pytest.approx(values[: len(bars)])
    assert len(bars) == min(20 if classes > 40 else classes, classes)
    assert len(figure.axes) == (2 if classes > 40 else 1)
    assert pixels(figure).shape[2] == 3


def test_a_class_that_is_never_predicted_is_marked() -> None:
    evaluation = evaluation_of(3)
    probabilities = evaluation.probabilities.clone()
    probabilities[:, 2] = 0
    vars(evaluation).update(probabilities=probabilities, predictions=probabilities.argmax(1))
    assert texts(accuracy_by_class(evaluation))[0] == "never predicted"


def test_the_surest_errors_are_shown_with_class_answer_and_picture() -> None:
    evaluation = evaluation_of(5)
    asked: list[list[int]] = []

    def noted(rows: Tensor) -> Tensor:
        asked.append(rows.tolist())
        return take(rows)

    figure = errors(evaluation, noted)
    wrong = [row for row in range(300) if evaluation.labels[row] != evaluation.predictions[row]]
    surest = sorted(wrong, key=lambda row: -float(evaluation.probabilities[row].max()))[:20]
    assert asked == [surest]
    for row, axes in zip(surest, figure.axes, strict=True):
        share = f"{float(evaluation.probabilities[row].max()):.0%}"
        answer = int(evaluation.predictions[row])
        assert axes.get_title() == f"class {int(evaluation.labels[row])}\n→ class {answer} {share}"
        assert axes.texts[0].get_text() == f"picture {1000 + row}"
    vars(evaluation)["paths"] = [f"test/a/{row}.jpg" for row in range(300)]
    assert errors(evaluation, take).axes[0].texts[0].get_text() == f"{surest[0]}.jpg"


def test_without_errors_the_picture_says_so() -> None:
    evaluation = evaluation_of(3, samples=4)
    vars(evaluation)["labels"] = evaluation.predictions
    assert [text.get_text() for text in errors(evaluation, take).texts] == ["none of 4 answers is wrong"]


def test_the_same_result_gives_the_same_files_whatever_the_names() -> None:
    evaluation = evaluation_of(3)
    vars(evaluation)["class_names"] = ("$a$ \x1b[31m", "鳥", "b" * 99)
    one, other = (result_pictures(evaluation, take) for _ in range(2))
    assert list(one) == ["confusion", "accuracy_by_class", "errors"]
    assert {name: png(picture) for name, picture in one.items()} == {name: png(p) for name, p in other.items()}


def test_histograms_have_a_row_for_each_module_and_its_mean() -> None:
    figure = histograms({"stem": [0, 2, 2, 0], "head": [0, 0, 0, 5]}, "Gates", "gates")
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    assert shown.tolist() == [[0, 0.5, 0.5, 0], [0, 0, 0, 1]]
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([0.5, 0.875])
