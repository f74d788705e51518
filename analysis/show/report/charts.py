"""Compute the shapes of a report's charts, which ``templates/report.html`` writes as inline SVG.

A chart has the width of a phone's screen, so its text is readable there; wider pages show several per row.
Every mark shows its numbers under the pointer (``tip``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from static_dynamic.analysis.show.figure_style import SCORE_BINS
from static_dynamic.analysis.show.text import value_and_bounds, with_interval

# All sizes in this module are in pixels of the SVG's view box.
WIDTH, PLOT_HEIGHT = 350, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 8, 20
# Distance of the x axis from the chart's upper edge in pixels.
FLOOR = TOP + PLOT_HEIGHT
# Average width of one character of an axis label in pixels.
LETTER = 6.2
# Largest number of stage labels on the x axis; with more stages, every second (third, ...) has a label.
MOST_LABELS = 16
Range = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """One SVG element: tag, attributes, text, and the tooltip that appears under the pointer."""

    tag: str
    attributes: dict
    text: str = ""
    tip: str = ""


class Chart:
    """A chart: title, explanation, shapes in drawing order, legend of (name, colour) tuples, and axes.

    The x axis has `labels` at 0, 1, 2 ..., or numbers over `x_range`. `x` and `y` map data to pixels.
    """

    def __init__(
        self, title: str, about: str, y_range: Range, labels: Sequence[str] = (), x_range: Range | None = None
    ):
        self.title, self.about = title, about
        self.x_range, self.y_range = x_range or (-0.5, len(labels) - 0.5), y_range
        self.shapes: list[Shape] = []
        self.legend: list[tuple[str, str]] = []
        step = int(np.ceil(max(1, len(labels)) / MOST_LABELS))
        slots = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
        longest = LETTER * max((len(label) for label in labels), default=0)
        # Labels are horizontal if they fit, else slanted, or vertical if slanted labels would be cut off.
        turn = 0 if longest <= slots * step else 45 if 0.71 * longest <= LEFT else 90
        self.height = TOP + PLOT_HEIGHT + BOTTOM + longest * np.sin(np.radians(turn))
        for tick in ticks(*y_range):
            y, kind = self.y(tick), "zero" if tick == 0 else "grid"
            self.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_=kind)
            self.add("text", f"{tick:g}", x=LEFT - 5, y=y + 4, class_="end")
        for k, label in list(enumerate(labels))[::step]:
            x, y = self.x(k), FLOOR + 14
            if turn:
                place = f"rotate(-{turn} {x:.1f} {y - 4:.1f})"
                self.add("text", label, x=x, y=y - 4, class_="end", transform=place, dy=turn / 25)
            else:
                self.add("text", label, x=x, y=y, class_="middle")
        for tick in () if labels else ticks(*self.x_range):
            self.add("text", f"{tick:g}", x=self.x(tick), y=FLOOR + 14.0, class_="middle")

    def x(self, value: float) -> float:
        """Convert an x value to the distance from the chart's left edge in pixels."""
        low, high = self.x_range
        return float(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT))

    def y(self, value: float) -> float:
        """Convert a y value to the distance from the chart's upper edge in pixels."""
        low, high = self.y_range
        return float(TOP + (high - value) / (high - low) * PLOT_HEIGHT)

    def points(self, xs: ArrayLike, ys: ArrayLike) -> str:
        """Return the SVG attribute ``points`` of the line through the data (xs, ys)."""
        pairs = zip(np.asarray(xs), np.asarray(ys), strict=True)
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in pairs)

    def add(self, tag: str, text: str = "", tip: str = "", **attributes) -> None:
        """Append an SVG shape with attributes such as ``class_="grid"``; round floats to one decimal."""
        named = {
            k.rstrip("_").replace("_", "-"): f"{v:.1f}" if isinstance(v, float) else v
            for k, v in attributes.items()
        }
        self.shapes.append(Shape(tag, named, text, tip))

    def add_curve(self, xs: ArrayLike, ys: ArrayLike, colour: str) -> None:
        """Append a line in `colour` through the data (xs, ys)."""
        self.add("polyline", points=self.points(xs, ys), stroke=colour, class_="curve")


def ticks(low: float, high: float) -> list[float]:
    """Return about five round axis ticks from `low` to `high`."""
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
    lines: Sequence[tuple[str, float, str]] = (),
) -> Chart:
    """Draw curves with interval bands by stage; curves are interrupted before the stage numbers `breaks`.

    `columns`: name of a curve -> column of `layers` with the curve's values, colour of the curve. `lines`:
    labels, scaled values and colours of horizontal dotted lines.
    """
    values = np.array([value_and_bounds(layers, column, scale) for column, _ in columns.values()])
    seen = [*values.ravel(), *(value for _, value, _ in lines)]
    low, high = min(0.0, np.nanmin(seen)), np.nanmax(seen)
    pad = 0.04 * (high - low or 1)
    chart = Chart(title, about, (low - pad * (low < 0), high + pad), labels=list(layers["stage"]))
    spans = list(zip([0, *breaks], [*breaks, len(layers)], strict=True))
    for k, (label, value, colour) in enumerate(lines):
        y = chart.y(value)
        # shift labels to avoid overlap
        right = WIDTH - RIGHT - k * (WIDTH - LEFT - RIGHT) / len(lines)
        tip = f"{label}: {value:.{digits}f}"
        chart.add("line", tip=tip, x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke=colour, class_="reference")
        chart.add("text", label, x=right, y=y - 3, class_="end small")
    for name, (column, colour) in columns.items():
        for start, end in spans:
            value, lower, upper = value_and_bounds(layers.iloc[start:end], column, scale)
            xs = np.arange(start, end)
            if np.isfinite([value, lower, upper]).all():
                outline = chart.points([*xs, *xs[::-1]], [*lower, *upper[::-1]])
                chart.add("polygon", points=outline, fill=colour, class_="band")
            chart.add_curve(xs, value, colour)
        for k, (_, row) in enumerate(layers.iterrows()):
            tip = f"{row['stage']}: {name} {with_interval(row, column, scale, digits, ' ({} to {})')}"
            x, y = chart.x(k), chart.y(scale * row[column])
            chart.add("circle", tip=tip, cx=x, cy=y, r=4, fill=colour)
        chart.legend.append((name, colour))
    return chart


def stacked_bars(parts: pd.DataFrame, colours: dict[str, str], title: str, about: str) -> Chart:
    """Draw one stacked bar of percentages per stage (row of `parts`), with negative values below zero.

    If `parts` has bounds of a value (columns ``NAME_low``, ``NAME_high``), the tooltip shows the interval.
    """
    values = parts[list(colours)].to_numpy(float)
    low, high = np.minimum(values, 0).sum(1).min(), np.maximum(values, 0).sum(1).max()
    chart = Chart(title, about, (min(0.0, low), max(100.0, high)), labels=list(parts.index))
    width = 0.76 * (chart.x(1) - chart.x(0))
    for k, (stage, row) in enumerate(parts.iterrows()):
        above = below = 0.0
        for name, colour in colours.items():
            value = float(row[name])
            start = above if value > 0 else below
            top, bottom = chart.y(max(start, start + value)), chart.y(min(start, start + value))
            above, below = above + max(value, 0), below + min(value, 0)
            left, number = chart.x(k) - width / 2, with_interval(row, name, 1, 1, " ({} to {})")
            tip = f"{stage}: {name} {number} %"
            chart.add("rect", tip=tip, x=left, y=top, width=width, height=bottom - top, fill=colour)
    chart.legend += colours.items()
    return chart


def histogram(scores: dict[str, np.ndarray], colours: dict[str, str], title: str, about: str) -> Chart:
    """Draw one histogram outline per factor: the percentage of units in each bin of scores."""
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
    chart = Chart(title, about, (0.0, 1.05 * highest), x_range=(start, 1.0))
    for name, part in parts.items():
        xs = [edges[k + side] for k in shown for side in (0, 1)]
        ys = [part[k] for k in shown for _ in (0, 1)]
        chart.add_curve(xs, ys, colours[name])
        for k in shown:
            if part[k]:
                x, y = chart.x(edges[k]), chart.y(part[k])
                bar = {"width": chart.x(edges[k + 1]) - x, "height": FLOOR - y}
                tip = f"{name} score {edges[k]:.2f} to {edges[k + 1]:.2f}: {part[k]:.1f} % of units"
                chart.add("rect", "", tip, fill=colours[name], class_="band", x=x, y=y, **bar)
        chart.legend.append((name, colours[name]))
    return chart


def threshold_curves(
    parts: pd.DataFrame, colours: dict[str, str], title: str, about: str, at: float
) -> Chart:
    """Draw the units per class (%) as a function of the threshold; mark the run's threshold `at`."""
    chart = Chart(title, about, (0.0, 100.0), x_range=(float(parts.index[0]), float(parts.index[-1])))
    x = chart.x(at)
    chart.add("line", x1=x, x2=x, y1=float(TOP), y2=float(FLOOR), class_="threshold")
    for name, colour in colours.items():
        chart.add_curve(parts.index, parts[name], colour)
        for threshold, value in list(parts[name].items())[::4]:
            tip = f"threshold {threshold:.2f}: {value:.1f} % of units are {name}"
            chart.add("circle", tip=tip, cx=chart.x(threshold), cy=chart.y(value), r=3, fill=colour)
        chart.legend.append((name, colour))
    return chart
