"""The plots of a study: paired differences, accuracy over region scale and over parameters, and learning curves.

Each is made where it has something to show; a panel is a picture of its own, which fits a phone.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from srp_exp.runs.folder.store import Run
from srp_exp.studies.measured import Measured, describe
from srp_exp.studies.reports.panels import (
    GAP,
    Difference,
    Draw,
    Panels,
    Picture,
    Point,
    draw_course,
    draw_forest,
    draw_panel,
    draw_scales,
    draw_sizes,
)
from srp_exp.studies.reports.tables import cell_name, summary
from srp_exp.studies.results import Entry, StudyResults, Unit, unit_of, unit_of_study
from srp_exp.studies.statistics import Mean

FOREST = (
    "Method - baseline. Dots: pairs of runs with the same seed; squares: their mean in a cell, with its 95 % interval; "
    "diamonds: the mean that decides about the statement. Shaded: smaller than the smallest effect that matters."
)
BARS = "Means over the seeds; error bars: 95 % interval, none with one seed."
_MOVED = "Points of several methods are moved aside a little."
BANDS = (
    "Lines: mean over the seeds; bands, of the first four: from the lowest to the highest seed. "
    "The first half of the epochs may lie outside."
)


@dataclass(frozen=True)
class Plot:
    """What a plot shows, how to read it, and its panels."""

    title: str
    caption: str
    panels: tuple[Picture, ...]


@dataclass(frozen=True)
class Kind:
    """What the plots of one kind share: the prefix of their names, the axes, how a series is drawn."""

    name: str
    x_label: str
    draw: Draw
    unit: Unit


def plots(results: StudyResults, measured: Sequence[Measured]) -> list[Plot]:
    """The plots that the finished runs allow, that on which the verdict rests first."""
    unit = unit_of_study(results)
    metric, courses = over_epochs(results)
    split, _, measure = metric.partition("/")
    course = unit_of(measure, (p.mean for panel in courses.values() for points in panel.values() for p in points))
    scale = Kind("scale", "mean region scale over depth", draw_scales, unit)
    parameters = Kind("parameters", "parameters (million)", draw_sizes, unit)
    epochs = Kind("epochs", "epoch", draw_course, course)
    every = [
        Plot("Paired differences", FOREST, forests(measured)),
        _plot(scale, f"Test {unit.name} over region scale", BARS, over_scale(results)),
        _plot(parameters, f"Test {unit.name} over parameters", f"{BARS} {_MOVED}", over_parameters(results)),
        _plot(epochs, f"Learning curves: {split} {course.name}", BANDS, courses),
    ]
    return [plot for plot in every if plot.panels]


def forests(measured: Sequence[Measured]) -> tuple[Picture, ...]:
    """A panel for every metric and smallest effect: the statements about it, and the cells of each."""
    panels: dict[tuple[str, float], list[Measured]] = {}
    for of_statement in measured:
        if of_statement.mean is not None and not of_statement.statement.structural:
            panels.setdefault((of_statement.statement.metric, of_statement.statement.smallest), []).append(of_statement)
    pictures = []
    for number, ((metric, smallest), statements) in enumerate(panels.items()):
        unit = statements[0].unit
        rows = [row for of_statement in statements for row in _differences(of_statement)]
        title = f"{metric}, {'higher' if statements[0].statement.higher_is_better else 'lower'} is better"
        x_label = f"difference of {metric}{f' ({unit.of_difference.strip()})' if unit.of_difference else ''}"
        words = "; ".join(f"{row.label} {unit.show(row.mean, signed=True)}" for row in rows if row.bold)
        figure = draw_forest(rows, smallest, unit, x_label)
        pictures.append(Picture(title, f"differences-{number}", f"Paired differences, {metric}: {words}", figure))
    return tuple(pictures)


def _differences(measured: Measured) -> list[Difference]:
    rows = [_difference(describe(measured), measured.mean, bold=True)] if measured.mean else []
    for cell, alone in measured.parts.items():
        if alone is not None:
            rows.append(_difference(cell_name(cell, measured.statement.where), alone, bold=False))
    return rows


def _difference(label: str, mean: Mean, bold: bool) -> Difference:
    seeds = [float(value) for cell in mean.cells for value in cell] if len(mean.cells) == 1 or not bold else []
    return Difference(label, seeds, float(mean.value), mean.bounds(), bold)


def _plot(kind: Kind, title: str, caption: str, panels: Panels) -> Plot:
    names = dict.fromkeys(name for series in panels.values() for name in series)
    numbers = {name: number for number, name in enumerate(names)}  # a series looks alike in all panels
    drawn = []
    for place, (panel, series) in enumerate(panels.items()):
        figure = draw_panel(series, numbers, kind.draw, kind.unit, kind.x_label)
        described = f"{title}{f', {panel}' if panel else ''}: {_in_words(series, kind.unit)}"
        drawn.append(Picture(panel, f"{kind.name}-{place}", described, figure))
    return Plot(title, caption, tuple(drawn))


def _in_words(series: Mapping[str, Sequence[Point]], unit: Unit) -> str:
    """The last point of every series, for someone who cannot see the picture; the tables have the rest."""
    return "; ".join(f"{name} {unit.show(p[-1].mean)} at {p[-1].x:g}".strip() for name, p in series.items())


SCALES = ("srp", "srp.scale", "srp.scales", "srp.first", "srp.last")
"""Settings that a place on the axis of scales, and its series, tell."""


def over_scale(results: StudyResults) -> Panels:
    """The metric over the mean region scale: one series of fixed scales, and a method each; a panel has all else equal.

    A panel needs two scales; the baseline, if there is one, is the series GAP at scale 1.
    """

    def place(entry: Entry, run: Run, settings: Mapping[str, str]) -> tuple[str, str, Point] | None:
        scale = mean_scale(run.config["srp"])
        others = {key: value for key, value in settings.items() if key not in SCALES and key.startswith("srp")}
        panel = {key: value for key, value in settings.items() if not key.startswith("srp")}
        name = str(run.config["srp"]["name"])  # one scale: a series goes through them; schedules are methods by name
        name = name if name == GAP or "scale" in run.config["srp"] else entry.method or name
        series = GAP if name == GAP else ", ".join(filter(None, [name, _label(others)]))
        return None if scale is None else (_label(panel), series, _point(scale, entry))

    return _with_two_places(_panels(results, place), but_for=GAP)


def over_parameters(results: StudyResults) -> Panels:
    """The metric over millions of parameters, a panel for every data set; a series goes through the backbones."""

    def place(entry: Entry, run: Run, settings: Mapping[str, str]) -> tuple[str, str, Point] | None:
        panel = {key: value for key, value in settings.items() if _group(key) == "dataset"}
        others = {key: value for key, value in settings.items() if _group(key) not in ("dataset", "backbone")}
        count = run.results.get("parameters")
        cell = dict(entry.cell)
        if all(key in cell for key in settings if _group(key) == "backbone"):
            series = ", ".join(filter(None, [entry.method, _label({k: v for k, v in others.items() if k in cell})]))
        else:  # the method names a backbone: it is a point of a series, not a series
            series = _label(others)
        network = str(run.config["backbone"]["name"])
        return None if count is None else (_label(panel), series, _point(count / 1e6, entry, network))

    return _with_two_places(_panels(results, place))


def over_epochs(results: StudyResults) -> tuple[str, Panels]:
    """The metric's name in metrics.jsonl, and its course: the mean and the range over the seeds, a series per method.

    The metric is the study's on the test split, else on validation or training data; or else the top-1 accuracy.
    """
    histories = [run.history for entry in results.entries for run in entry.finished]
    known = {name for history in histories for epoch in history for name in epoch}
    wanted = [f"{split}/{name}" for name in (results.study["metric"], "top1") for split in ("test", "val", "train")]
    metric = next((name for name in wanted if name in known), "")
    panels: Panels = {}
    common = _common([dict(entry.cell) for entry in results.entries])
    for entry in results.entries:
        points = _course(entry.finished, metric)
        if len(points) > 1:
            cell = {axis: value for axis, value in entry.cell if axis not in common}
            panels.setdefault(_label(cell), {})[entry.method] = points
    return metric, panels


def mean_scale(srp: Mapping[str, Any]) -> float | None:
    """Mean region scale over the depth of an srp configuration; 1 for global pooling, None for an unknown schedule."""
    if srp["name"] == GAP:
        return 1.0
    for names in (("scale",), ("first", "last")):
        if all(name in srp for name in names):
            return statistics.fmean(srp[name] for name in names)
    return statistics.fmean(srp["scales"]) if "scales" in srp else None


def _panels(
    results: StudyResults, place: Callable[[Entry, Run, Mapping[str, str]], tuple[str, str, Point] | None]
) -> Panels:
    """Put every entry with a finished run where `place` says: (panel, series, point), or nowhere."""
    settings = [_settings(results, entry) for entry in results.entries]
    common = _common(settings)
    panels: Panels = {}
    for entry, own in zip(results.entries, settings, strict=True):
        runs = entry.finished if entry.values else []
        placed = place(entry, runs[0], {k: v for k, v in own.items() if k not in common}) if runs else None
        if placed is not None:
            panel, series, point = placed
            panels.setdefault(panel, {}).setdefault(series, []).append(point)
    return {
        panel: {name: sorted(points, key=lambda point: point.x) for name, points in series.items()}
        for panel, series in panels.items()
    }


def _settings(results: StudyResults, entry: Entry) -> dict[str, str]:
    """What makes an entry: the overrides of its method and its cell, as setting -> value."""
    changes = [change.partition("=") for change in results.study["methods"].get(entry.method, [])]
    return {**{key.lstrip("+"): value for key, _, value in changes}, **dict(entry.cell)}


def _common(settings: list[dict[str, str]]) -> set[str]:
    """The settings that are the same everywhere."""
    first = settings[0] if settings else {}
    return {key for key, value in first.items() if all(other.get(key) == value for other in settings)}


def _label(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _group(key: str) -> str:
    return key.partition(".")[0]


def _point(x: float, entry: Entry, label: str = "") -> Point:
    values = summary(entry)
    assert values is not None
    mean = float(values.value)
    return Point(x, mean, *(values.bounds() or (mean, mean)), label)


def _with_two_places(panels: Panels, but_for: str | None = None) -> Panels:
    """The panels in which the series, `but_for` one of them, have points at two places at least."""

    def places(series: Mapping[str, Iterable[Point]]) -> int:
        return len({point.x for name, points in series.items() if name != but_for for point in points})

    return {panel: series for panel, series in panels.items() if places(series) > 1}


def _course(runs: Iterable[Run], metric: str) -> list[Point]:
    """Mean, smallest and largest value of the runs in every epoch in which all of them have one."""
    by_run = [{epoch["epoch"]: epoch[metric] for epoch in run.history if metric in epoch} for run in runs]
    points = []
    for epoch in by_run[0] if by_run else ():
        if all(epoch in values for values in by_run):
            values = [of_run[epoch] for of_run in by_run]
            points.append(Point(epoch, statistics.fmean(values), min(values), max(values)))
    return points
