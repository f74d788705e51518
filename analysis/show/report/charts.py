"""Charts of a report as shapes of an inline SVG: geometry here, markup in ``templates/report.html``.

Drawn at the width of a phone, so that text keeps its size there; wider pages show several side by side.
Every mark says its numbers when it is pointed at (``tip``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

WIDTH, PLOT_HEIGHT = 350, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 8, 8, 20
# what a letter of the labels takes, in pixels
LETTER = 6.2
# so many labels of stages are readable side by side; of more, every other one is left out
MOST_LABELS = 16


@dataclass(frozen=True)
class Shape:
    """One SVG element: its tag, attributes, text, and what it says when pointed at."""

    tag: str
    attributes: dict
    text: str = ""
    tip: str = ""


@dataclass
class Chart:
    """A chart: shapes in drawing order, and its legend as (name, colour)."""

    title: str
    about: str
    height: float
    shapes: list[Shape] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def add(self, tag: str, text: str = "", tip: str = "", **attributes) -> None:
        """Draw one shape; ``stroke_width=2`` is the attribute ``stroke-width``, numbers with one decimal."""
        named = {
            k.rstrip("_").replace("_", "-"): f"{v:.1f}" if isinstance(v, float) else v
            for k, v in attributes.items()
        }
        self.shapes.append(Shape(tag, named, text, tip))


@dataclass(frozen=True)
class Frame:
    """Where numbers lie in the picture."""

    chart: Chart
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return float(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT))

    def y(self, value: float) -> float:
        """Pixels from the top."""
        low, high = self.y_range
        return float(TOP + (high - value) / (high - low) * PLOT_HEIGHT)

    def points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        """Points of a line."""
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))


def frame(
    title: str,
    about: str,
    y_range: tuple[float, float],
    *,
    labels: Sequence[str] = (),
    x_range: tuple[float, float] | None = None,
) -> Frame:
    """An empty chart with its axes: `labels` at 0, 1, 2 ..., or numbers over `x_range`."""
    step = int(np.ceil(max(1, len(labels)) / MOST_LABELS))
    slots = (WIDTH - LEFT - RIGHT) / max(1, len(labels))
    longest = LETTER * max((len(label) for label in labels), default=0)
    # level, slanted, or upright where a slanted one would leave the picture
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
    """Round numbers from `low` to `high`."""
    found = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(t), 10) for t in found if low - 1e-9 <= t <= high + 1e-9]


def say(row: pd.Series, name: str, scale: float = 1, digits: int = 3) -> str:
    """A number with its interval in words."""
    value, low, high = (scale * row.get(f"{name}{end}", np.nan) for end in ("", "_low", "_high"))
    interval = f" ({low:.{digits}f} to {high:.{digits}f})" if np.isfinite(low) else ""
    return f"{value:.{digits}f}{interval}"


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
    """Curves over stages with their bands; lines are broken before the rows `breaks`.

    Parameters
    ----------
    columns
        Name of a curve -> its column (``_low`` and ``_high`` are its band) and its colour.
    """
    bands = [f"{c}{end}" for c, _ in columns.values() for end in ("", "_low", "_high")]
    values = scale * layers[[b for b in bands if b in layers]].to_numpy(float)
    low, high = min(0.0, np.nanmin(values)), np.nanmax(values)
    pad = 0.04 * (high - low or 1)
    made = frame(title, about, (low - pad * (low < 0), high + pad), labels=list(layers["stage"]))
    spans = list(zip([0, *breaks], [*breaks, len(layers)], strict=True))
    for name, (column, colour) in columns.items():
        for start, end in spans:
            part = scale * layers.iloc[start:end][[column, f"{column}_low", f"{column}_high"]].to_numpy(float)
            xs = np.arange(start, end)
            if np.isfinite(part).all():
                outline = made.points([*xs, *xs[::-1]], [*part[:, 1], *part[::-1, 2]])
                made.chart.add("polygon", points=outline, fill=colour, class_="band")
            made.chart.add("polyline", points=made.points(xs, part[:, 0]), stroke=colour, class_="curve")
        for k, (_, row) in enumerate(layers.iterrows()):
            tip = f"{row['stage']}: {name} {say(row, column, scale, digits)}"
            x, y = made.x(k), made.y(scale * row[column])
            made.chart.add("circle", tip=tip, cx=x, cy=y, r=4, fill=colour)
        made.chart.legend.append((name, colour))
    return made.chart


def stacked_bars(parts: pd.DataFrame, colours: dict[str, str], title: str, about: str) -> Chart:
    """Percentages as stacked bars: a row of `parts` a stage (its index), a column a part; what is negative
    hangs below zero."""
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
    """Percent of units over bins of their score, an outline for each factor."""
    edges = np.linspace(-1, 1, 41)
    parts = {
        name: 100 * np.histogram(np.clip(s[np.isfinite(s)], -1, 1), edges)[0] / max(1, len(s))
        for name, s in scores.items()
    }
    lowest = next((k for k in range(40) if any(p[k] for p in parts.values())), 0)
    start = min(0.0, edges[lowest])
    highest = max(1.0, *(p.max() for p in parts.values()))
    made = frame(title, about, (0.0, 1.05 * highest), x_range=(start, 1.0))
    for name, part in parts.items():
        shown = [k for k in range(40) if edges[k] >= start - 1e-9]
        xs = [edges[k + side] for k in shown for side in (0, 1)]
        ys = [part[k] for k in shown for _ in (0, 1)]
        made.chart.add("polyline", points=made.points(xs, ys), stroke=colours[name], class_="curve")
        for k in shown:
            if part[k]:
                x, y = made.x(edges[k]), made.y(part[k])
                tip = f"{name} score {edges[k]:.2f} to {edges[k + 1]:.2f}: {part[k]:.1f} % of units"
                height = TOP + PLOT_HEIGHT - y
                attributes = {"x": x, "y": y, "width": made.x(edges[k + 1]) - x, "height": height}
                made.chart.add("rect", tip=tip, fill=colours[name], class_="band", **attributes)
        made.chart.legend.append((name, colours[name]))
    return made.chart


def threshold_curves(
    parts: pd.DataFrame, colours: dict[str, str], title: str, about: str, at: float
) -> Chart:
    """Percent of units by class (columns) over the threshold (index); a mark at the threshold in use."""
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
