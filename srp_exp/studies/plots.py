"""The plots of a study: accuracy over region scale, over parameters, and learning curves.

A plot is made only where it has something to show. Each panel is a picture of its own, so that a page can put them
below each other on a phone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srp_exp.studies.draw import Draw, draw_course, draw_panel, draw_scales, draw_sizes, for_page
from srp_exp.studies.plot_data import Panels, Point, over_epochs, over_parameters, over_scale
from srp_exp.studies.results import StudyResults
from srp_exp.studies.units import Unit, unit_of, unit_of_study

BARS = "Means over the seeds; error bars: 95 % interval, none with one seed."
ASIDE = "Points of several methods are moved aside a little."
BANDS = (
    "Lines: mean over the seeds; bands: from the lowest to the highest of them. "
    "The first quarter of the epochs may lie outside."
)


@dataclass(frozen=True)
class Plot:
    """What a plot shows, how to read it, and its panels: (title, <svg> element) each."""

    title: str
    caption: str
    panels: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Kind:
    """What the plots of one kind share: the prefix of their ids, the axes, how a series is drawn."""

    name: str
    x_label: str
    draw: Draw
    unit: Unit


def plots(results: StudyResults) -> list[Plot]:
    """The plots that the finished runs allow."""
    unit = unit_of_study(results)
    metric, courses = over_epochs(results)
    split, _, measure = metric.partition("/")
    course = unit_of(measure, (p.mean for panel in courses.values() for points in panel.values() for p in points))
    scale = Kind("scale", "mean region scale over depth", draw_scales, unit)
    parameters = Kind("parameters", "parameters (million)", draw_sizes, unit)
    epochs = Kind("epochs", "epoch", draw_course, course)
    every = [
        _plot(scale, f"Test {unit.name} over region scale", BARS, over_scale(results)),
        _plot(parameters, f"Test {unit.name} over parameters", f"{BARS} {ASIDE}", over_parameters(results)),
        _plot(epochs, f"Learning curves: {split} {course.name}", BANDS, courses),
    ]
    return [plot for plot in every if plot.panels]


def _plot(kind: Kind, title: str, caption: str, panels: Panels) -> Plot:
    names = dict.fromkeys(name for series in panels.values() for name in series)
    numbers = {name: number for number, name in enumerate(names)}  # a series looks alike in all panels
    drawn = []
    for place, (panel, series) in enumerate(panels.items()):
        svg = draw_panel(series, numbers, kind.draw, kind.unit, kind.x_label)
        described = f"{title}{f', {panel}' if panel else ''}: {_in_words(series, kind.unit)}"
        drawn.append((panel, for_page(svg, f"{kind.name}-{place}", described)))
    return Plot(title, caption, tuple(drawn))


def _in_words(series: Mapping[str, Sequence[Point]], unit: Unit) -> str:
    """The last point of every series, for someone who cannot see the picture; the tables have the rest."""
    return "; ".join(f"{name} {unit.show(p[-1].mean)} at {p[-1].x:g}".strip() for name, p in series.items())
