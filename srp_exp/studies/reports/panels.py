"""The panels of a report, drawn by matplotlib, for a page and as files: the same points give the same bytes.

On a page colours are CSS variables, for light and dark; markers and dashes tell the series apart without colour.
"""

import io
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, TypeAlias

from srp_exp.studies.results import Unit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import Container
    from matplotlib.figure import Figure

GAP = "gap"
"""Series of the baseline without SRP, as conf/srp names it."""

INK = "#010203"
"""Stands for the text's colour on a page."""

COLOURS = (
    "#0072b2", "#d55e00", "#007f5f", "#b0508a", "#8a6d00", "#5b5bd6", "#9c3a2e", "#4a7a1f", "#3d6f86", "#7a4fae",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", "-.", ":")
WIDTH, HEIGHT = 4.6, 3.5
"""Inches of a panel; one in rows is as high as they need."""

ASIDE = 0.015
"""Part of x by which a series is moved aside, so that error bars don't hide each other."""

LABEL = 58
"""Characters in a line of a label in a forest plot."""

MOST_BANDS = 4
"""More learning curves in a panel are drawn without their bands."""

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "srp_exp",  # else the ids of an SVG are random
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name may have dollar signs
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        yield


@dataclass(frozen=True)
class Point:
    """A mean at x, and from where to where its error bar or band goes."""

    x: float
    mean: float
    low: float
    high: float
    label: str = ""


@dataclass(frozen=True)
class Difference:
    """A row of a forest plot: differences of seeds, their mean and its interval (None without one)."""

    label: str
    seeds: Sequence[float]
    mean: float
    interval: tuple[float, float] | None
    bold: bool


@dataclass(frozen=True)
class Picture:
    """A drawn panel: its title, the name of its files, and what it shows, in words."""

    title: str
    name: str
    described: str
    figure: "Figure"

    @property
    def svg(self) -> str:
        """The <svg> element with ids of its own, the page's colours, and a text alternative."""
        text = self._saved("svg", dict.fromkeys(("Date", "Creator", "Format", "Type"))).decode()
        element = text[text.index("<svg") :]
        for mark in ('id="', 'href="#', "url(#"):
            element = element.replace(mark, f"{mark}{self.name}-")
        element = element.replace(INK, "currentColor")
        for number, colour in enumerate(COLOURS):
            element = element.replace(colour, f"var(--series-{number}, {colour})")
        return element.replace("<svg ", f'<svg role="img" aria-label="{escape(self.described)}" ', 1)

    def files(self) -> dict[str, bytes]:
        """As PDF and as PNG."""
        pdf = self._saved("pdf", {"CreationDate": None})
        return {f"{self.name}.pdf": pdf, f"{self.name}.png": self._saved("png", {"Software": None})}

    @_style()
    def _saved(self, format: str, metadata: dict[str, None]) -> bytes:
        file = io.BytesIO()
        look: dict[str, Any] = {"facecolor": "white", "dpi": 200} if format == "png" else {}
        self.figure.savefig(file, format=format, metadata=metadata, **look)
        return file.getvalue()


Panels: TypeAlias = dict[str, dict[str, list[Point]]]
"""Panel -> series -> points in the order of x."""

Draw = Callable[["Axes", str, Sequence[Point], int], "Artist | Container"]
"""Draws a series: name, points in the unit shown, number among the series; returns what stands in the legend."""


@_style()
def draw_panel(
    series: Mapping[str, Sequence[Point]], numbers: Mapping[str, int], draw: Draw, unit: Unit, x_label: str
) -> "Figure":
    """A panel of series; `numbers` decides about the look of each, `unit` scales its values."""
    shown = {name: [_scaled(point, unit.factor) for point in points] for name, points in series.items()}
    figure, axes = _axes(HEIGHT + 0.2 * max(0, math.ceil(len(shown) / 2) - 2))
    handles: list[Any] = [draw(axes, name, points, numbers[name]) for name, points in shown.items()]
    for x, label in dict.fromkeys((p.x, p.label) for points in shown.values() for p in points if p.label):
        axes.text(x, 1, label, transform=axes.get_xaxis_transform(), fontsize=8, rotation=20)
    axes.set(xlabel=x_label, ylabel=unit.name)
    if unit.factor == 100:
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, 0), min(top, 100.5))  # an interval can go beyond what is possible
    if any(shown):  # a grid without methods has a series without a name
        names = ["gap (scale 1)" if name == GAP and draw is draw_scales else name for name in shown]
        figure.legend(handles, names, loc="outside upper left", ncols=2, fontsize=9)
    return figure


@_style()
def draw_forest(rows: Sequence[Difference], smallest: float, unit: Unit, x_label: str) -> "Figure":
    """Differences in rows below each other: a dot for each seed, mean and interval; shaded: less than `smallest`."""
    labels = [textwrap.fill(row.label, LABEL) for row in rows]
    heights = [1 + 0.4 * label.count("\n") for label in labels]
    places = [-sum(heights[: number + 1]) for number in range(len(rows))]
    figure, axes = _axes(0.8 + 0.45 * sum(heights))
    axes.axvspan(-smallest * unit.factor, smallest * unit.factor, color=INK, alpha=0.1, linewidth=0)
    axes.vlines([0] * len(rows), [y - 0.35 for y in places], [y + 0.08 for y in places], color=INK, linewidth=1)
    for y, row, label in zip(places, rows, labels, strict=True):
        mean, (low, high) = row.mean, row.interval or (row.mean, row.mean)
        errors = [[(mean - low) * unit.factor], [(high - mean) * unit.factor]]
        look: dict[str, Any] = {"color": INK, "markersize": 7 if row.bold else 5, "linewidth": 2 if row.bold else 1.2}
        axes.errorbar([mean * unit.factor], [y], xerr=errors, fmt="D" if row.bold else "s", capsize=3, **look)
        seeds = [difference * unit.factor for difference in row.seeds]
        axes.plot(seeds, [y - 0.18] * len(seeds), "o", color=COLOURS[0], markersize=4, alpha=0.7)
        weight = "bold" if row.bold else "normal"
        text = axes.text(0.01, y + 0.2, label, transform=axes.get_yaxis_transform(), fontsize=8, weight=weight)
        text.set_in_layout(False)  # else the axes make room for it beside them
    axes.set(xlabel=x_label, yticks=[], ylim=(places[-1] - 0.5, 0))
    axes.spines["left"].set_visible(False)
    return figure


def draw_scales(axes: "Axes", name: str, points: Sequence[Point], number: int) -> "Artist | Container":
    """As draw_points; the baseline is a line at its mean with a band for the interval."""
    if name != GAP:
        return draw_points(axes, name, points, number)
    for point in points:
        axes.axhspan(point.low, point.high, color=INK, alpha=0.1, linewidth=0)
        line = axes.axhline(point.mean, color=INK, linestyle="--", linewidth=1.2)
    return line


def draw_points(axes: "Axes", name: str, points: Sequence[Point], number: int) -> "Artist | Container":
    """Means with error bars, joined by a line."""
    below, above = [p.mean - p.low for p in points], [p.high - p.mean for p in points]
    return axes.errorbar([p.x for p in points], [p.mean for p in points], (below, above), **_look(number), capsize=3)


def draw_sizes(axes: "Axes", name: str, points: Sequence[Point], number: int) -> "Artist | Container":
    """As draw_points over a logarithmic axis, each series moved aside a little."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    return draw_points(axes, name, [replace(point, x=point.x * (1 + ASIDE * number)) for point in points], number)


def draw_course(axes: "Axes", name: str, points: Sequence[Point], number: int) -> "Artist | Container":
    """A line through the means over whole numbers, the first MOST_BANDS with a band; the axis fits the later half."""
    from matplotlib.ticker import MaxNLocator

    known = axes.get_ylim() if axes.lines else (math.inf, -math.inf)
    look, x = _look(number), [p.x for p in points]
    if number < MOST_BANDS:
        low, high = [p.low for p in points], [p.high for p in points]
        axes.fill_between(x, low, high, color=look["color"], alpha=0.12, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    spacing = max(1, len(x) // 6)
    (line,) = axes.plot(x, [p.mean for p in points], **look, markersize=4, markevery=(number % spacing, spacing))
    late = [p for p in points if p.x >= x[-1] / 2]
    bottom, top = min(p.low for p in late), max(p.high for p in late)
    margin = 0.05 * (top - bottom) or 0.01 * abs(top) or 1.0
    axes.set_ylim(min(known[0], bottom - margin), max(known[1], top + margin))
    return line


def _axes(height: float) -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    for background in (figure.patch, axes.patch):
        background.set_alpha(0)
    return figure, axes


def _scaled(point: Point, factor: float) -> Point:
    return replace(point, mean=point.mean * factor, low=point.low * factor, high=point.high * factor)


def _look(number: int) -> dict[str, Any]:
    """How a series looks; up to 140 look different in colour, up to 28 without it."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
        "linewidth": 1.5,
    }
