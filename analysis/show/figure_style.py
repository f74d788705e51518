"""Looks of all figures: colours, markers, hatches, fonts and sizes in print.

Figures have the width of a page of most journals (174 mm) or of one column (85 mm), and text of at least
5.5 points at that width. Colour-blind readers can tell the colours (Okabe and Ito) apart, and markers, line
styles and hatches tell curves and bars apart in grey. No figure uses pyplot, whose state is global.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from static_dynamic.files import atomic_path

# Widths of figures in inches: a page (174 mm) and a column (85 mm).
PAGE, COLUMN = 6.85, 3.35
# Dots per inch of figures that are images.
DPI = 300
STYLE: Any = {
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 6.5,
    "figure.titlesize": 8,
    "figure.labelsize": 7.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "static-dynamic",
}
# Decorator of functions that draw a figure: they use the fonts and lines of `STYLE`.
print_style = rc_context(STYLE)
# Largest number of characters of the label of a tick.
LONGEST = 20
# Approximate width of a character of a tick label, in inches.
CHARACTER = 0.055

COLOURS = {
    "dynamic": "#D55E00",
    "static": "#0072B2",
    "joint": "#009E73",
    "residual": "#999999",
    "dead": "#DDDDDD",
}
# Colours of the sources of variance: strong colours for main effects, lighter colours for interactions.
COMPONENT_COLOURS = {
    "video": "#009E73",
    "style": "#0072B2",
    "order": "#D55E00",
    "video:style": "#56B4E9",
    "video:order": "#E69F00",
    "style:order": "#CC79A7",
    "video:style:order": "#999999",
}
# Colours of variance parts, of motion parts from further altered orders, and of unit kinds.
PART_COLOURS = {
    "content": "#009E73",
    "motion": "#D55E00",
    "appearance": "#0072B2",
    "residual": "#999999",
    "mixed": "#CC79A7",
    "dead or unknown": "#DDDDDD",
    "motion_reshuffled": "#E69F00",
    "motion_direction": "#A0522D",
    "motion_any": "#7A0019",
    "background": "#56B4E9",
    "foreground_motion": "#000000",
}
# Markers and line styles that distinguish the curves of the variance parts in greyscale.
PART_LINES = {
    "content": ("D", "-"),
    "motion": ("o", "-"),
    "appearance": ("s", "--"),
    "residual": ("^", ":"),
    "mixed": ("v", "-."),
    "motion_reshuffled": ("P", ":"),
    "motion_direction": ("<", "-."),
    "motion_any": ("*", "--"),
    "background": ("X", "--"),
    "foreground_motion": ("p", ":"),
}
MARKERS = {"dynamic": "o", "static": "s", "joint": "D", "residual": "^", "dead": "x"}
# Hatch patterns that distinguish the bars of unit classes and of variance sources in greyscale.
HATCHES = {
    "dynamic": "///",
    "static": "\\\\\\",
    "joint": "xxx",
    "dead": "...",
    "video": "xxx",
    "style": "\\\\\\",
    "order": "///",
    "video:style": "ooo",
    "video:order": "---",
    "style:order": "|||",
}
# None keeps matplotlib from writing dates and versions into files, so that equal figures have equal bytes.
NO_DATE = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
# Edges of the histogram bins of unit scores, which are correlations.
SCORE_BINS = np.linspace(-1, 1, 41).tolist()


def part_line(name: str) -> dict:
    """Return colour, marker and line style of the curve for a variance part or a kind of units."""
    marker, line = PART_LINES[name]
    return {"color": PART_COLOURS[name], "marker": marker, "linestyle": line}


def draw_band(axes: Axes, x: ArrayLike, values: NDArray, **style) -> None:
    """Draw a curve with an interval band; the rows of `values` are estimate, lower and upper bound.

    `style`: colour, marker, label and so on of the curve.
    """
    estimate, low, high = values
    axes.plot(x, estimate, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)


def draw_stacked_bars(
    axes: Axes, x: Sequence | NDArray, heights: Mapping[str, ArrayLike], colours: Mapping[str, str]
) -> None:
    """Draw one stacked bar per value of `x`, with a legend; negative values are stacked below zero.

    `heights`: name of a part -> its height in each bar, in percent. Parts of at least 6 % are labelled.
    """
    above, below = np.zeros(len(x)), np.zeros(len(x))
    for name, values in heights.items():
        height = np.asarray(values, float)
        bottom = np.where(height >= 0, above, below)
        style = bar_style(name, colours[name])
        bars = axes.bar(x, height, bottom=bottom, label=name, width=0.75, **style)
        label_bars(axes, bars, [f"{h:.0f}" if h >= 6 else "" for h in height], name, colours[name])
        above += np.maximum(height, 0)
        below += np.minimum(height, 0)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def bar_style(name: str, colour: str) -> dict:
    """Return fill colour and hatch of the bars of `name`, a unit class or a source of variance."""
    return {"facecolor": colour, "edgecolor": "white", "linewidth": 0, "hatch": HATCHES.get(name, "")}


def label_bars(axes: Axes, bars: BarContainer, labels: Sequence[str], name: str, colour: str) -> None:
    """Write a label into the middle of each bar: black on the light bars of dead units, white elsewhere."""
    box = {"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "none"}
    text = "black" if name == "dead" else "white"
    for written in axes.bar_label(bars, labels, label_type="center", color=text, fontsize=6):
        if written.get_text():
            written.set_bbox(box)


def stage_ticks(axes: Axes, stages: Sequence[str], width: float) -> None:
    """Label the positions 0, 1, ... of a panel that is `width` inches wide with the names of stages.

    If the names do not fit side by side, they are rotated; if rotated names do not fit, some are left out.
    """
    fits = CHARACTER * (sum(map(len, stages)) + 2 * len(stages)) <= width
    step = 1 if fits else -(-len(stages) // max(1, int(width / 0.16)))
    shown = range(0, len(stages), step)
    look: dict = {} if fits else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(list(shown), [shorten(stages[k]) for k in shown], **look)


def shorten(name: str) -> str:
    """Shorten a long name of a stage to its two ends, for the label of a tick."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}"


def limit(axes: Axes, estimates: ArrayLike, least: float, most: float) -> None:
    """Limit the y axis to `least` and `most`, or to wider limits that contain all `estimates`.

    Intervals may be much wider than the values that are possible, so they do not widen the axis further.
    """
    values = np.asarray(estimates, float)
    values = values[np.isfinite(values)]
    low, high = axes.get_ylim()
    margin = 0.03 * (most - least)
    low = max(low, min(least, values.min(initial=least) - margin))
    axes.set_ylim(low, min(high, max(most, values.max(initial=most) + margin)))


def title(figure: Figure, text: str) -> None:
    """Write a title above a figure, in lines that fit its width."""
    figure.suptitle(
        "\n".join(fill(line, int(figure.get_figwidth() / CHARACTER / 1.15)) for line in text.split("\n"))
    )


def new_panels(count: int, columns: int, size: tuple[float, float], **shared) -> tuple[Figure, list[Axes]]:
    """Return a figure of `size` (inches) and a list of its `count` panels, arranged in `columns` columns.

    The panels have no upper and no right frame line. Options `shared` go to matplotlib's ``subplots``.
    """
    figure = Figure(figsize=size, layout="constrained")
    panels = list(figure.subplots(-(-count // columns), columns, squeeze=False, **shared).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels[:count]


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file; the same figure always gives the same bytes."""
    with atomic_path(path) as temporary, rc_context(STYLE):
        figure.savefig(temporary, dpi=DPI, metadata=NO_DATE.get(path.suffix))
