"""Colours and style of all figures, and the figures of one run.

Colour-blind readers can tell the colours (Okabe and Ito) apart. No figure uses pyplot, whose state is global.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from static_dynamic.analysis.estimate.altered_orders import FURTHER_ORDERS
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.estimator import FACTORS, MEASURED, UNIT_CLASSES
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS
from static_dynamic.analysis.show.parts import LIMITS, OVERLAP, has_parts
from static_dynamic.analysis.show.text import value_and_bounds
from static_dynamic.files import atomic_path

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
# Largest number of panels per row in figures with one panel per stage.
STAGE_COLUMNS = 5


def draw_profile(layers: pd.DataFrame, path: Path, title: str) -> None:
    """Draw one panel per quantity (parts, unit kinds, scores, ...) over the stages, with 95 % intervals.

    The upper row has the parts of the variance and the kinds of units, the lower row the paper's scores,
    shares and unit classes. Runs without parts have one row of panels only, with the paper's numbers.
    """
    parts = has_parts(layers)
    width = max(12.0, 3 + 0.8 * len(layers))
    figure, panels = new_panels(6 if parts else 3, 3, (width, 8.4 if parts else 4.2))
    if parts:
        draw_parts(layers, panels[0], panels[1])
        panels[2].axis("off")
        panels[2].text(0, 1, fill(f"{OVERLAP} {LIMITS}", 48), va="top", fontsize=9, linespacing=1.4)
    draw_paper(layers, panels[-3:])
    for axes in panels:
        if axes.axison:
            axes.set_xticks(np.arange(len(layers)), layers["stage"], rotation=0 if len(layers) <= 4 else 45)
    about = f"{layers['clips'].iloc[0]} clips; bands: 95 % intervals over videos"
    figure.suptitle(f"{title} ({about})", fontsize=11)
    save(figure, path)


def draw_parts(layers: pd.DataFrame, parts: Axes, kinds: Axes) -> None:
    """Draw the parts of the units' variance, and the percentage of units of each kind, by stage."""
    x = np.arange(len(layers))
    further = [c.name for c in FURTHER_ORDERS.values() if c.name in layers and layers[c.name].notna().all()]
    for name in (*PARTS, *further):
        draw_band(parts, x, value_and_bounds(layers, name, 100), label=name, **part_line(name))
    parts.axhline(0, color="black", linewidth=0.6)
    parts.set(title="parts of the units' variance", ylabel="part of the variance (%)")
    parts.legend(frameon=False, fontsize=8)
    for name in COUNTED_KINDS:
        percent = value_and_bounds(layers, f"kind_{name}", 100) / layers["units"].to_numpy()
        draw_band(kinds, x, percent, label=name, **part_line(name))
    kinds.set(title="units by kind", ylabel="units (%)", ylim=(-2, 102))
    kinds.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))


def part_line(name: str) -> dict:
    """Return colour, marker and line style of the curve for a variance part or a kind of units."""
    marker, line = PART_LINES[name]
    return {"color": PART_COLOURS[name], "marker": marker, "linestyle": line, "markersize": 5}


def draw_paper(layers: pd.DataFrame, panels: Sequence[Axes]) -> None:
    """Draw the paper's scores, shares and unit classes by stage."""
    scores, shares, classes = panels
    x = np.arange(len(layers))
    for factor in FACTORS:
        style = {"color": COLOURS[factor], "marker": MARKERS[factor], "label": factor}
        draw_band(shares, x, value_and_bounds(layers, f"share_{factor}", 100), **style)
        if factor != "residual":
            draw_band(scores, x, value_and_bounds(layers, f"score_{factor}"), **style)
    shares.set(title="the paper's shares of dimensions", ylabel="share (%)", ylim=(0, None))
    scores.set(title="the paper's scores", ylabel="covariance of pairs / pooled variance")
    scores.axhline(0, color="black", linewidth=0.6)
    scores.set_ylim(top=max(1.02, scores.get_ylim()[1]))
    shares.legend(frameon=False)
    for name in UNIT_CLASSES:
        percent = value_and_bounds(layers, f"units_{name}", 100) / layers["units"].to_numpy()
        draw_band(classes, x, percent, color=COLOURS[name], marker=MARKERS[name], label=name)
    classes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    threshold = layers["threshold"].iloc[0]
    classes.set(title=f"the paper's unit classes (threshold {threshold})", ylabel="units (%)", ylim=(-2, 102))


def draw_classes(row: pd.Series, path: Path, title: str) -> None:
    """Draw a bar chart of how many units of one stage are dynamic, static, joint, residual and dead.

    Error bars are 95 % intervals, if `row` has bounds of the numbers.
    """
    figure, (axes,) = new_panels(1, 1, (5, 3.6))
    values = np.stack([value_and_bounds(row, f"units_{name}") for name in UNIT_CLASSES], axis=1)
    axes.bar(UNIT_CLASSES, values[0], color=[COLOURS[name] for name in UNIT_CLASSES])
    for k, (count, low, high) in enumerate(values.T):
        if np.isfinite(low):
            axes.errorbar(k, count, [[count - low], [high - count]], fmt="none", ecolor="black", capsize=2)
        top = np.fmax(count, high)
        axes.annotate(f"{count:.0f}", (k, top), (0, 3), textcoords="offset points", ha="center")
    axes.margins(y=0.1)
    about = "; bars: 95 % intervals over videos" if np.isfinite(values[1]).any() else ""
    axes.set_title(f"{title}\n(threshold {row['threshold']}{about})", fontsize=11)
    axes.set_ylabel("units")
    save(figure, path)


def draw_variance(layers: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the share of the units' variance that each source (video, style, ...) explains, by stage."""
    stages = list(layers["stage"].unique())
    figure, (axes,) = new_panels(1, 1, (max(6.5, 2.5 + 0.8 * len(stages)), 4.2))
    shares = 100 * layers.pivot(index="component", columns="stage", values="share")[stages]
    draw_stacked_bars(axes, stages, {c: shares.loc[c] for c in COMPONENT_COLOURS}, COMPONENT_COLOURS)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(title=f"{title}: sources of the units' variance", ylabel="share of variance (%)")
    axes.tick_params(axis="x", rotation=0 if len(stages) <= 6 else 45)
    save(figure, path)


def draw_convergence(table: pd.DataFrame, path: Path) -> None:
    """Draw each stage's parts and scores as functions of the number of videos, with 95 % intervals.

    The first rows of panels show the parts, if `table` has any, and the last rows the scores.
    """
    groups = list(table.groupby("stage", sort=False))
    columns = min(STAGE_COLUMNS, len(groups))
    rows, blocks = -(-len(groups) // columns), 1 + has_parts(table)
    size = (max(6.0, 2.5 * columns + 1.2), 0.9 + 2.3 * rows * blocks)
    figure, panels = new_panels(rows * columns * blocks, columns, size, sharex=True, sharey=False)
    scores = {f: ("score_" + f, 1, {"color": COLOURS[f], "marker": MARKERS[f]}) for f in MEASURED}
    curves = {part: (part, 100, part_line(part)) for part in PARTS} if blocks == 2 else {}
    sizes = sorted(table["clusters"].unique())
    for block, (shown, label) in enumerate([(curves, "part (%)"), (scores, "the paper's score")][-blocks:]):
        own = panels[block * rows * columns : (block + 1) * rows * columns]
        # The axis limits include all estimates, but wide interval bands (few videos) may exceed the limits.
        values = [scale * table[column] for column, scale, _ in shown.values()]
        least, most = (-20, 110) if shown is curves else (-1, 1.1)
        limits = min(least, 1.1 * np.nanmin(values)), max(most, 1.1 * np.nanmax(values))
        for axes in own[len(groups) :]:
            axes.remove()
        for axes, (stage, part) in zip(own, groups, strict=False):
            for name, (column, scale, style) in shown.items():
                style = style | {"markersize": 4, "label": name}
                draw_band(axes, part["clusters"], value_and_bounds(part, column, scale), **style)
            axes.set(title=stage, xscale="log", ylim=limits)
            axes.set_xticks(sizes[::2], [str(size) for size in sizes[::2]])
            axes.minorticks_off()
        own[0].set_ylabel(label)
        own[min(columns, len(groups)) - 1].legend(
            frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=8
        )
    figure.supxlabel("videos", fontsize=10)
    about = "Parts and scores" if blocks == 2 else "Scores"
    figure.suptitle(f"{about} by number of videos (bands: 95 % intervals)", fontsize=11)
    save(figure, path)


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
    for written in axes.bar_label(bars, labels, label_type="center", color=text, fontsize=8):
        if written.get_text():
            written.set_bbox(box)


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


def stage_panels(table: pd.DataFrame, **shared) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]]]:
    """Make a figure with one panel per stage; return it and a list of (panel, stage, rows of that stage)."""
    groups = list(table.groupby("stage", sort=False))
    columns = min(STAGE_COLUMNS, len(groups))
    size = (max(5.0, 2.5 * columns), 0.9 + 2.2 * -(-len(groups) // columns))
    figure, panels = new_panels(len(groups), columns, size, sharex=True, **shared)
    return figure, [(axes, stage, part) for axes, (stage, part) in zip(panels, groups, strict=True)]


def label_panels(figure: Figure, x: str, y: str, title: str) -> None:
    """Write the axis labels, the title and the legend that all panels of a figure share."""
    figure.supxlabel(x, fontsize=10)
    figure.supylabel(y, fontsize=10)
    figure.suptitle(title, fontsize=11)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside right upper")


def save(figure: Figure, path: Path) -> None:
    """Write a figure to a file; the same figure always gives the same bytes."""
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "static-dynamic"}):
        figure.savefig(temporary, dpi=160, metadata=NO_DATE.get(path.suffix))
