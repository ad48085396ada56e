"""Pictures of a result, drawn from its predictions: who is taken for whom, how each class does, the surest errors.

They lie in the folder of an evaluation, after a training as after mode=eval, and the loggers of a training get them.
"""

from collections.abc import Callable, Sequence
from pathlib import PurePath

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from srp_exp.evaluation.accuracy import Evaluation
from srp_exp.evaluation.figures import BLUE, DPI, GREY, ORANGE, Pixels, grid, pixels, short, style

MOST_NUMBERED, MOST_NAMED, MOST_BARS = 20, 50, 40
"""Classes up to which a confusion matrix has a number in each cell, has names at its sides, and each has a bar."""

LISTED, ERRORS = 20, 20
"""How many of the most frequent confusions and of the worst classes are named, and how many errors are shown."""


def result_pictures(evaluation: Evaluation, take: Callable[[Tensor], Tensor]) -> dict[str, Pixels]:
    """The pictures of an evaluation by their names: confusion, accuracy_by_class and errors.

    take: maps rows of the split, (M,) int64, to its pictures, (M, C, H, W) in [0, 1].
    """
    figures = {"confusion": confusion, "accuracy_by_class": accuracy_by_class}
    drawn = {name: pixels(draw(evaluation)) for name, draw in figures.items()}
    return {**drawn, "errors": pixels(errors(evaluation, take))}


@style()
def confusion(evaluation: Evaluation) -> Figure:
    """Part of the samples of each class (row) by answer (column); a row of a class without samples is grey."""
    counts = evaluation.confusion().double()
    shares = (counts / counts.sum(1, keepdim=True)).numpy()
    names, many = short(evaluation.class_names), len(counts) > MOST_NUMBERED
    side = 5.5 if many else max(1.5, 0.42 * len(counts))
    beside = 0.3 if len(counts) > MOST_NAMED else 0.075 * max(map(len, names))  # inches of the longest name
    width = max(4.4, side + beside + 1.6)  # 4.4: of the title
    size = (width + (4 if many else 0), side + (0.2 if _upright(names) else beside) + 1)
    figure = Figure(figsize=size, dpi=DPI, layout="compressed")
    axes, *others = figure.subplots(1, 2 if many else 1, squeeze=False, width_ratios=[width, 4] if many else None)[0]
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="#dddddd")
    # The square root of a share, so that rare confusions among many classes can be seen.
    norm = PowerNorm(0.5 if many else 1, 0, 1)
    drawn = axes.imshow(np.ma.masked_invalid(shares), colours, norm, interpolation="nearest")
    axes.set(xlabel="answer", ylabel="class")
    axes.set_title(f"Answers by class, in % of its pictures (top-1 {evaluation.accuracy():.1%})")
    axes.spines[:].set(visible=True, color="#cccccc")
    _mark_classes(axes, names)
    if not many:
        for row, column in np.argwhere(shares >= 0.005).tolist():
            share = shares[row, column]
            axes.text(
                column, row, f"{share:.0%}".rstrip("%"), ha="center", va="center", fontsize=8,
                color="white" if share > 0.5 else "black",
            )  # fmt: skip
    colourbar = figure.colorbar(drawn, ax=axes, shrink=0.7, aspect=30)
    colourbar.ax.set_yticks([0, 0.01, 0.1, 0.25, 0.5, 1] if many else [0, 0.25, 0.5, 0.75, 1])
    colourbar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    colourbar.outline.set_visible(False)
    for beside in others:
        _list_confusions(beside, counts, short(evaluation.class_names, 20))
    return figure


def _mark_classes(axes: Axes, names: Sequence[str]) -> None:
    """The names of the classes at both sides, or some of their numbers where there are too many."""
    if len(names) > MOST_NAMED:
        step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 10**9) if len(names) <= 12 * step)
        ticks = range(0, len(names), step)
        axes.set(xticks=ticks, yticks=ticks, xlabel="answer (number of the class)", ylabel="class (its number)")
        return
    size = 8 if len(names) <= MOST_NUMBERED else 6
    axes.set_xticks(range(len(names)), names, rotation=0 if _upright(names) else 90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)


def _upright(names: Sequence[str]) -> bool:
    """Whether the names below the matrix have room beside each other."""
    return len(names) > MOST_NAMED or max(map(len, names)) <= 3


def _list_confusions(axes: Axes, counts: Tensor, names: Sequence[str]) -> None:
    """The most frequent confusions in words."""
    wrong = counts.clone().fill_diagonal_(0)
    order = wrong.flatten().argsort(descending=True, stable=True)[:LISTED].tolist()
    places = [divmod(place, len(names)) for place in order if wrong.flatten()[place] > 0]
    axes.set_axis_off()
    axes.set_title("Most frequent confusions", loc="left")
    for line, (row, column) in enumerate(places):
        one, other = (f"{place} {names[place]}" if len(names) > MOST_NAMED else names[place] for place in (row, column))
        share = f"{int(counts[row, column])} of {int(counts[row].sum())}"
        height = 0.98 - line * 0.048
        axes.text(0.17, height, share, transform=axes.transAxes, va="top", ha="right", fontsize=7, color=GREY)
        axes.text(0.2, height, f"{one} → {other}", transform=axes.transAxes, va="top", fontsize=7)


@style()
def accuracy_by_class(evaluation: Evaluation) -> Figure:
    """A bar for each class, the worst at the top; of many classes a curve over all of them, and bars of the worst."""
    counts = evaluation.confusion().double()
    samples = counts.sum(1)
    accuracy = counts.diagonal() / samples
    order = [c for c in accuracy.argsort(stable=True).tolist() if samples[c]]  # NaN comes last
    never, names = set(evaluation.never_predicted()), short(evaluation.class_names)
    labels = [f"{names[c]} ({int(samples[c])})" for c in order]
    texts = ["never predicted" if evaluation.class_names[c] in never else f"{accuracy[c]:.0%}" for c in order]
    values = [float(accuracy[c]) for c in order]
    many = len(order) > MOST_BARS
    shown = LISTED if many else len(order)
    figure = Figure(figsize=(9.5 if many else 6, 1.5 + 0.2 * max(shown, 5)), dpi=DPI, layout="constrained")
    axes, *others = figure.subplots(1, 2 if many else 1, squeeze=False)[0]
    axes.barh(labels[:shown], values[:shown], color=BLUE, height=0.7)
    for place, (value, text) in enumerate(zip(values[:shown], texts, strict=False)):
        free = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(value + 0.01, place, text, va="center", fontsize=8, bbox=free)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.12), xlabel="part of its pictures that is right")
    axes.set_title(
        f"The {shown} worst of {len(order)} classes" if many else "Accuracy by class (number of its pictures)",
        loc="left",
    )
    for curve in others:
        curve.fill_between(range(1, len(values) + 1), values, color=BLUE, alpha=0.3, step="mid")
        curve.step(range(1, len(values) + 1), values, color=BLUE, where="mid")
        curve.set(xlabel="classes, the worst first", xlim=(1, len(values)), ylim=(0, 1.02))
        curve.set_title("Accuracy of all classes", loc="left")
    for each, line in ((axes, axes.axvline), *((curve, curve.axhline) for curve in others)):
        line(
            evaluation.accuracy(), color=ORANGE, linestyle="--", linewidth=1, label=f"top-1 {evaluation.accuracy():.1%}"
        )
        each.tick_params(length=2)
    balanced = evaluation.balanced_accuracy()
    axes.axvline(balanced, color="black", linestyle=":", linewidth=1, label=f"balanced {balanced:.1%}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


@style()
def errors(evaluation: Evaluation, take: Callable[[Tensor], Tensor]) -> Figure:
    """The wrong answers with the highest probabilities: each picture with its class, the answer, and its own name."""
    confidence, answers = evaluation.probabilities.max(1)
    wrong = (answers != evaluation.labels).nonzero().flatten()
    rows = wrong[confidence[wrong].argsort(descending=True, stable=True)][:ERRORS]
    if not len(rows):
        figure = Figure(figsize=(4, 1), dpi=DPI)
        figure.text(0.5, 0.5, f"none of {len(answers)} answers is wrong", ha="center", va="center")
        return figure
    names = short(evaluation.class_names, 18)
    titles = [f"{names[evaluation.labels[r]]}\n→ {names[answers[r]]} {confidence[r]:.0%}" for r in rows.tolist()]
    figure = grid(take(rows), titles, [_name(evaluation, row) for row in rows.tolist()])
    title = f"Surest errors: class → answer and its probability ({len(wrong)} of {len(answers)} are wrong)"
    figure.suptitle(title, y=1 - 0.08 / figure.get_figheight(), va="top", fontsize=10)
    return figure


def _name(evaluation: Evaluation, row: int) -> str:
    """The file of a picture, or its number in the data set."""
    if evaluation.paths is None:
        return f"picture {int(evaluation.index[row])}"
    return short([PurePath(evaluation.paths[row]).name], 26)[0]
