"""Figures as all pictures of a run have them: their style and colours, pictures in a grid, rows of histograms.

Colours are blues and one orange, which colour-blind readers tell apart.
"""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from srp_exp.config.visible import visible

Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
"""A picture, (H, W, 3)."""

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#666666"

DPI, _INCHES, _COLUMNS = 110, 1.5, 5
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name may have dollar signs
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@contextmanager
def style() -> Iterator[None]:
    """How all pictures look, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the font lacks it: a box stands for it
        yield


def pixels(figure: Figure) -> Pixels:
    """The figure as it is drawn."""
    with style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(picture: Pixels) -> bytes:
    """The content of a PNG file; the same picture gives the same bytes."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@style()
def histograms(counts: Mapping[str, Sequence[float]], title: str, what: str) -> Figure:
    """A row for each name of `counts`, of values of `what` in equal parts of [0, 1]: the first at the top."""
    rows = np.array([np.asarray(row) / max(1, sum(row)) for row in counts.values()])
    centres = (np.arange(rows.shape[1]) + 0.5) / rows.shape[1]
    figure = Figure(figsize=(6, 1.3 + max(0.22 * len(rows), 0.8)), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    extent = (0, 1, len(rows) - 0.5, -0.5)
    drawn = axes.imshow(rows, "Blues", PowerNorm(0.5, 0), aspect="auto", interpolation="nearest", extent=extent)
    axes.plot(rows @ centres, range(len(rows)), "o", color=ORANGE, markersize=4, clip_on=False)
    axes.set_yticks(range(len(rows)), short(list(counts), 28), fontsize=8)
    axes.set(xlabel=f"{what} (dot: mean)", xlim=(0, 1))
    axes.set_title(title, loc="left")
    axes.spines[:].set(visible=True, color="#cccccc")
    axes.tick_params(length=0)
    shrink = min(1, 4 / figure.get_figheight())
    figure.colorbar(drawn, ax=axes, label="part of the values", format=lambda value, _: f"{value:.0%}", shrink=shrink)
    return figure


def grid(
    images: Tensor, titles: Sequence[str], notes: Sequence[str] = (), columns: int = _COLUMNS, below: float = 0.0
) -> Figure:
    """Pictures (M, C, H, W) in [0, 1], each below its title and above its note; `below` all of them are free inches."""
    width, height, top = _INCHES + 0.2, _INCHES + (0.6 if notes else 0.45), 0.35
    lines = -(-len(images) // columns)
    size = (width * columns + 0.2, height * lines + top + below)
    figure = Figure(figsize=size, dpi=DPI)  # places are given, since finding them for many axes takes seconds
    for place, image in enumerate(images.float().cpu()):
        row, column = divmod(place, columns)
        left, bottom = 0.2 + column * width, below + (lines - row - 1) * height + (0.18 if notes else 0.03)
        axes = figure.add_axes((left / size[0], bottom / size[1], _INCHES / size[0], _INCHES / size[1]))
        axes.set_axis_off()
        rgb = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
        axes.imshow(rgb.permute(1, 2, 0).numpy(), interpolation="nearest", vmin=0, vmax=1)
        axes.set_title(titles[place], fontsize=8, pad=3)
        if notes:
            axes.text(0.5, -0.03, notes[place], fontsize=7, color=GREY, ha="center", va="top", transform=axes.transAxes)
    return figure


def short(names: Sequence[str], most: int = 24) -> list[str]:
    """The names as they can be shown, their middle left out where they are long."""
    shown = [visible(name) for name in names]
    return [name if len(name) <= most else f"{name[: most // 2]}…{name[-(most - most // 2 - 1) :]}" for name in shown]
