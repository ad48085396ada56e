"""What the plots of a study show, as points: the metric over region scale, over parameters, and over epochs.

A panel holds what may be compared; within it a series is one way to train. Only finished runs count.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from srp_exp.studies.results import Entry, StudyResults
from srp_exp.studies.store import Run, State
from srp_exp.studies.tables import summary

GAP = "gap"
"""Series of the baseline without SRP, as conf/srp names it."""

SCALES = ("srp", "srp.scale", "srp.scales", "srp.first", "srp.last")
"""Settings that a place on the axis of scales, and its series, tell."""


@dataclass(frozen=True)
class Point:
    """A mean at x, and from where to where its error bar or band goes."""

    x: float
    mean: float
    low: float
    high: float
    label: str = ""


Panels: TypeAlias = dict[str, dict[str, list[Point]]]
"""Panel -> series -> points in the order of x."""


def over_scale(results: StudyResults) -> Panels:
    """The metric over the mean region scale, a series for every choice of conf/srp; a panel has all else equal.

    A panel needs two scales; the baseline, if there is one, is the series GAP at scale 1.
    """

    def place(entry: Entry, run: Run, settings: Mapping[str, str]) -> tuple[str, str, Point] | None:
        scale = mean_scale(run.config["srp"])
        others = {key: value for key, value in settings.items() if key not in SCALES and key.startswith("srp")}
        panel = {key: value for key, value in settings.items() if not key.startswith("srp")}
        name = str(run.config["srp"]["name"])
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
    histories = [run.history for entry in results.entries for run in _finished(entry)]
    known = {name for history in histories for epoch in history for name in epoch}
    wanted = [f"{split}/{name}" for name in (results.study["metric"], "top1") for split in ("test", "val", "train")]
    metric = next((name for name in wanted if name in known), "")
    panels: Panels = {}
    common = _common([dict(entry.cell) for entry in results.entries])
    for entry in results.entries:
        points = _course(_finished(entry), metric)
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
        runs = _finished(entry) if entry.values else []
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


def _finished(entry: Entry) -> list[Run]:
    return [run for run in entry.runs.values() if run.state == State.finished]


def _point(x: float, entry: Entry, label: str = "") -> Point:
    values = summary(entry)
    assert values is not None
    low = values.mean if values.low is None else values.low
    high = values.mean if values.high is None else values.high
    return Point(x, values.mean, low, high, label)


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
