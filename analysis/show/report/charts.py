"""Charts of a report as inline SVG: this file computes the shapes, ``templates/report.html`` writes them.

A chart has the width of a phone's screen, so its text is readable there; wider pages show several per row.
Every mark shows its numbers under the pointer (``tip``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from static_dynamic.analysis.show.figures import SCORE_BINS
from static_dynamic.analysis.show.text import value_and_bounds, with_interval

# All sizes are in pixels of the SVG's view box.
WIDTH, PLOT_HEIGHT = 350, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 8, 20
# Average width of a character of a label.
LETTER = 6.2
# Largest number of stage labels on the x axis; of more stages, only every second (third, ...) has a label.
MOST_LABELS = 16


@dataclass(frozen=True)
class Shape:
    """One SVG element: tag, attributes, text, and the tooltip that appears under the pointer."""

    tag: str
    attributes: dict
    text: str = ""
    tip: str = ""


@dataclass
class Chart:
    """A chart: title, explanation, shapes in drawing order, and legend as (name, colour)."""

    title: str
    about: str
    height: float
    shapes: list[Shape] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def add(self, tag: str, text: str = "", tip: str = "", **attributes) -> None:
        """Append one shape.

        Names of attributes are written with underscores: ``stroke_width=2``, ``class_="grid"``. Floats are
        rounded to one decimal.
        """
        named = {
            k.rstrip("_").replace("_", "-"): f"{v:.1f}" if isinstance(v, float) else v
            for k, v in attributes.items()
        }
        self.shapes.append(Shape(tag, named, text, tip))


@dataclass(frozen=True)
class Frame:
    """The coordinate system of a chart: it maps data to pixels."""

    chart: Chart
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Return the distance of a value from the left edge in pixels."""
        low, high = self.x_range
        return float(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT))

    def y(self, value: float) -> float:
        """Return the distance of a value from the upper edge in pixels."""
        low, high = self.y_range
        return float(TOP + (high - value) / (high - low) * PLOT_HEIGHT)

    def points(self, xs: ArrayLike, ys: ArrayLike) -> str:
        """Return the attribute ``points`` of a line through data (xs, ys)."""
        pairs = zip(np.asarray(xs), np.asarray(ys), strict=True)
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in pairs)


def frame(
    title: str,
    about: str,
    y_range: tuple[float, float],
    *,
    labels: Sequence[str] = (),
    x_range: tuple[float, float] | None = None,
) -> Frame:
    """Make an empty chart with axes. The x axis has `labels` at 0, 1, 2 ..., or numbers over `x_range`."""
    step = int(np.ceil(max(1, len(labels)) / MOST_LABELS))
    slots = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    longest = LETTER * max((len(label) for label in labels), default=0)
    # Labels are horizontal if they fit, else slanted; vertical if a slanted first label would be cut off.
    turn = 0 if longest <= slots * step else 45 if 0.71 * longest <= LEFT else 90
    height = TOP + PLOT_HEIGHT + BOTTOM + longest * np.sin(np.radians(turn))
    chart = Chart(title, about, height)
    made = Frame(chart, x_range or (-0.5, len(labels) - 0.5), y_range)
    floor = TOP + PLOT_HEIGHT
    for tick in ticks(*y_range):
        y = made.y(tick)
        chart.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="zero" if tick == 0 else "grid")
        chart.add("text", f"{tick:g}", x=LEFT - 5, y=y + 4, class_="end")
    for k, label in list(enumerate(labels))[::step]:
        x, y = made.x(k), floor + 14
        if turn:
            place = f"rotate(-{turn} {x:.1f} {y - 4:.1f})"
            made.chart.add("text", label, x=x, y=y - 4, class_="end", transform=place, dy=turn / 25)
        else:
            made.chart.add("text", label, x=x, y=y, class_="middle")
    if not labels:
        for tick in ticks(*made.x_range):
            chart.add("text", f"{tick:g}", x=made.x(tick), y=floor + 14.0, class_="middle")
    return made


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers from `low` to `high`."""
    candidates = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(t), 10) for t in candidates if low - 1e-9 <= t <= high + 1e-9]


def stage_curves(
    layers: pd.DataFrame,
    breaks: Sequence[int],
    columns: dict[str, tuple[str, str]],
    title: str,
    about: str,
    *,
    scale: float = 1,
    digits: int = 3,
) -> Chart:
    """Draw curves over stages with their intervals as bands.

    Parameters
    ----------
    breaks
        Rows before which the curves are interrupted.
    columns
        Name of a curve -> its column of `layers` and its colour.
    """
    values = np.array([value_and_bounds(layers, column, scale) for column, _ in columns.values()])
    low, high = min(0.0, np.nanmin(values)), np.nanmax(values)
    pad = 0.04 * (high - low or 1)
    made = frame(title, about, (low - pad * (low < 0), high + pad), labels=list(layers["stage"]))
    spans = list(zip([0, *breaks], [*breaks, len(layers)], strict=True))
    for name, (column, colour) in columns.items():
        for start, end in spans:
            value, lower, upper = value_and_bounds(layers.iloc[start:end], column, scale)
            xs = np.arange(start, end)
            if np.isfinite([value, lower, upper]).all():
                outline = made.points([*xs, *xs[::-1]], [*lower, *upper[::-1]])
                made.chart.add("polygon", points=outline, fill=colour, class_="band")
            made.chart.add("polyline", points=made.points(xs, value), stroke=colour, class_="curve")
        for k, (_, row) in enumerate(layers.iterrows()):
            tip = f"{row['stage']}: {name} {with_interval(row, column, scale, digits, ' ({} to {})')}"
            x, y = made.x(k), made.y(scale * row[column])
            made.chart.add("circle", tip=tip, cx=x, cy=y, r=4, fill=colour)
        made.chart.legend.append((name, colour))
    return made.chart


def stacked_bars(parts: pd.DataFrame, colours: dict[str, str], title: str, about: str) -> Chart:
    """Draw percentages as stacked bars, one per row of `parts`; negative parts hang below zero.

    The index of `parts` names the stages, its columns name the parts of a bar.
    """
    values = parts[list(colours)].to_numpy(float)
    low, high = np.minimum(values, 0).sum(1).min(), np.maximum(values, 0).sum(1).max()
    made = frame(title, about, (min(0.0, low), max(100.0, high)), labels=list(parts.index))
    width = 0.76 * (made.x(1) - made.x(0))
    for k, (stage, row) in enumerate(parts.iterrows()):
        above = below = 0.0
        for name, colour in colours.items():
            value = float(row[name])
            start = above if value > 0 else below
            top, bottom = made.y(max(start, start + value)), made.y(min(start, start + value))
            above, below = above + max(value, 0), below + min(value, 0)
            made.chart.add(
                "rect",
                tip=f"{stage}: {name} {value:.1f} %",
                x=made.x(k) - width / 2,
                y=top,
                width=width,
                height=bottom - top,
                fill=colour,
            )
    made.chart.legend += colours.items()
    return made.chart


def histogram(scores: dict[str, np.ndarray], colours: dict[str, str], title: str, about: str) -> Chart:
    """Draw the percentage of units per bin of the score as one outline per factor."""
    edges = SCORE_BINS
    parts = {
        name: 100 * np.histogram(np.clip(s[np.isfinite(s)], -1, 1), edges)[0] / max(1, len(s))
        for name, s in scores.items()
    }
    bins = range(len(edges) - 1)
    lowest = next((k for k in bins if any(p[k] for p in parts.values())), 0)
    start = min(0.0, edges[lowest])
    shown = [k for k in bins if edges[k] >= start - 1e-9]
    highest = max(1.0, *(p.max() for p in parts.values()))
    made = frame(title, about, (0.0, 1.05 * highest), x_range=(start, 1.0))
    for name, part in parts.items():
        xs = [edges[k + side] for k in shown for side in (0, 1)]
        ys = [part[k] for k in shown for _ in (0, 1)]
        made.chart.add("polyline", points=made.points(xs, ys), stroke=colours[name], class_="curve")
        for k in shown:
            if part[k]:
                x, y = made.x(edges[k]), made.y(part[k])
                tip = f"{name} score {edges[k]:.2f} to {edges[k + 1]:.2f}: {part[k]:.1f} % of units"
                made.chart.add(
                    "rect",
                    tip=tip,
                    fill=colours[name],
                    class_="band",
                    x=x,
                    y=y,
                    width=made.x(edges[k + 1]) - x,
                    height=TOP + PLOT_HEIGHT - y,
                )
        made.chart.legend.append((name, colours[name]))
    return made.chart


def threshold_curves(
    parts: pd.DataFrame, colours: dict[str, str], title: str, about: str, at: float
) -> Chart:
    """Draw the percentage of units per class (columns) over the threshold (index).

    A vertical line marks the threshold `at` that the run uses.
    """
    made = frame(title, about, (0.0, 100.0), x_range=(float(parts.index[0]), float(parts.index[-1])))
    floor = float(TOP + PLOT_HEIGHT)
    made.chart.add("line", x1=made.x(at), x2=made.x(at), y1=float(TOP), y2=floor, class_="threshold")
    for name, colour in colours.items():
        made.chart.add(
            "polyline", points=made.points(parts.index, parts[name]), stroke=colour, class_="curve"
        )
        for threshold, value in list(parts[name].items())[::4]:
            tip = f"threshold {threshold:.2f}: {value:.1f} % of units are {name}"
            made.chart.add("circle", tip=tip, cx=made.x(threshold), cy=made.y(value), r=3, fill=colour)
        made.chart.legend.append((name, colour))
    return made.chart
