"""Figures of one run: profile, unit classes, variance by source, and convergence."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from static_dynamic.analysis.estimate.altered_orders import FURTHER_ORDERS
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.estimator import FACTORS, MEASURED, UNIT_CLASSES
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS
from static_dynamic.analysis.show.figure_style import (
    COLOURS,
    COLUMN,
    COMPONENT_COLOURS,
    MARKERS,
    PAGE,
    bar_style,
    draw_band,
    draw_stacked_bars,
    limit,
    new_panels,
    part_line,
    print_style,
    save,
    shorten,
    stage_ticks,
    title,
)
from static_dynamic.analysis.show.parts import LIMITS, OVERLAP, has_parts
from static_dynamic.analysis.show.text import value_and_bounds

# Largest number of panels per row in figures with one panel per stage.
STAGE_COLUMNS = 4
# Height of a line of a legend in points.
LEGEND_LINE = 10
# Line styles that tell the curves of factors and unit classes apart, besides their markers.
LINES = {"dynamic": "-", "static": "--", "joint": "-.", "residual": ":", "dead": (0, (1, 3))}


@print_style
def draw_profile(layers: pd.DataFrame, path: Path, name: str) -> None:
    """Draw one panel per quantity (parts, unit kinds, scores, ...) over the stages, with 95 % intervals.

    The upper row has the parts of the variance and the kinds of units, the lower row the paper's scores,
    shares and unit classes. Runs without parts have one row of panels only, with the paper's numbers.
    """
    parts = has_parts(layers)
    figure, panels = new_panels(6 if parts else 3, 3, (PAGE, 4.9 if parts else 2.6))
    if parts:
        draw_parts(layers, panels[0], panels[1])
        panels[2].axis("off")
        panels[2].text(0, 1, fill(f"{OVERLAP} {LIMITS}", 40), va="top", fontsize=5.8, linespacing=1.3)
    draw_paper(layers, panels[-3:])
    for axes in panels:
        if axes.axison:
            stage_ticks(axes, list(layers["stage"]), 1.5)
    about = f"{layers['clips'].iloc[0]} clips; bands: 95 % intervals over videos"
    title(figure, f"{name} ({about})")
    save(figure, path)


def draw_parts(layers: pd.DataFrame, parts: Axes, kinds: Axes) -> None:
    """Draw the parts of the units' variance, and the percentage of units of each kind, by stage."""
    x = np.arange(len(layers))
    further = [c.name for c in FURTHER_ORDERS.values() if c.name in layers and layers[c.name].notna().all()]
    for name in (*PARTS, *further):
        draw_band(parts, x, value_and_bounds(layers, name, 100), label=name, **part_line(name))
    parts.axhline(0, color="black", linewidth=0.6)
    parts.set(title="parts of the units' variance", ylabel="part of the variance (%)")
    limit(parts, 100 * layers[[*PARTS, *further]], -20, 110)
    legend_above(parts)
    for name in COUNTED_KINDS:
        percent = value_and_bounds(layers, f"kind_{name}", 100) / layers["units"].to_numpy()
        draw_band(kinds, x, percent, label=name, **part_line(name))
    kinds.set(title="units by kind", ylabel="units (%)", ylim=(-2, 102))
    legend_above(kinds)


def draw_paper(layers: pd.DataFrame, panels: Sequence[Axes]) -> None:
    """Draw the paper's scores, shares and unit classes by stage."""
    scores, shares, classes = panels
    x = np.arange(len(layers))
    for factor in FACTORS:
        style = factor_line(factor) | {"label": factor}
        draw_band(shares, x, value_and_bounds(layers, f"share_{factor}", 100), **style)
        if factor != "residual":
            draw_band(scores, x, value_and_bounds(layers, f"score_{factor}"), **style)
    shares.set(title="the paper's shares of dimensions", ylabel="share (%)", ylim=(0, None))
    scores.set(title="the paper's scores", ylabel="covariance / pooled variance")
    scores.axhline(0, color="black", linewidth=0.6)
    scores.set_ylim(top=max(1.02, scores.get_ylim()[1]))
    legend_above(scores)
    legend_above(shares)
    for name in UNIT_CLASSES:
        percent = value_and_bounds(layers, f"units_{name}", 100) / layers["units"].to_numpy()
        draw_band(classes, x, percent, label=name, **factor_line(name))
    threshold = layers["threshold"].iloc[0]
    classes.set(title=f"the paper's classes (score > {threshold})", ylabel="units (%)", ylim=(-2, 102))
    legend_above(classes)


def factor_line(name: str) -> dict:
    """Return colour, marker and line style of the curve of a factor or of a unit class."""
    return {"color": COLOURS[name], "marker": MARKERS[name], "linestyle": LINES[name]}


def legend_above(axes: Axes) -> None:
    """Draw the legend of a panel between its title and its axes, so that it hides no data."""
    lines = axes.get_legend_handles_labels()
    place: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.98), "borderaxespad": 0.1}
    axes.legend(*lines, frameon=False, ncols=2, handlelength=2.4, columnspacing=1, **place)
    axes.set_title(axes.get_title(), pad=4 + LEGEND_LINE * -(-len(lines[0]) // 2))


@print_style
def draw_classes(row: pd.Series, path: Path, name: str) -> None:
    """Draw a bar chart of how many units of one stage are dynamic, static, joint, residual and dead.

    Error bars are 95 % intervals, if `row` has bounds of the numbers.
    """
    figure, (axes,) = new_panels(1, 1, (COLUMN, 2.4))
    values = np.stack([value_and_bounds(row, f"units_{own}") for own in UNIT_CLASSES], axis=1)
    for own, value in zip(UNIT_CLASSES, values[0], strict=True):
        axes.bar(own, value, **bar_style(own, COLOURS[own]))
    for k, (count, low, high) in enumerate(values.T):
        if np.isfinite(low):
            axes.errorbar(k, count, [[count - low], [high - count]], fmt="none", ecolor="black", capsize=2)
        top = np.fmax(count, high)
        axes.annotate(f"{count:.0f}", (k, top), (0, 3), textcoords="offset points", ha="center")
    axes.margins(y=0.1)
    about = "; bars: 95 % intervals over videos" if np.isfinite(values[1]).any() else ""
    title(figure, f"{name}\n(threshold {row['threshold']}{about})")
    axes.set_ylabel("units")
    save(figure, path)


@print_style
def draw_variance(layers: pd.DataFrame, path: Path, name: str) -> None:
    """Draw the share of the units' variance that each source (video, style, ...) explains, by stage."""
    stages = list(layers["stage"].unique())
    figure, (axes,) = new_panels(1, 1, (PAGE, 2.9))
    shares = 100 * layers.pivot(index="component", columns="stage", values="share")[stages]
    draw_stacked_bars(axes, stages, {c: shares.loc[c] for c in COMPONENT_COLOURS}, COMPONENT_COLOURS)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(ylabel="share of variance (%)")
    stage_ticks(axes, stages, 5)
    title(figure, f"{name}: sources of the units' variance")
    save(figure, path)


@print_style
def draw_convergence(table: pd.DataFrame, path: Path) -> None:
    """Draw each stage's parts and scores as functions of the number of videos, with 95 % intervals.

    The first rows of panels show the parts, if `table` has any, and the last rows the scores.
    """
    groups = list(table.groupby("stage", sort=False))
    columns = min(STAGE_COLUMNS, len(groups))
    rows, blocks = -(-len(groups) // columns), 1 + has_parts(table)
    size = (PAGE, 0.6 + 1.5 * rows * blocks)
    figure, panels = new_panels(rows * columns * blocks, columns, size, sharex=True, sharey=False)
    scores = {f: ("score_" + f, 1, factor_line(f)) for f in MEASURED}
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
                style = style | {"label": name}
                draw_band(axes, part["clusters"], value_and_bounds(part, column, scale), **style)
            axes.set(title=shorten(stage), xscale="log", ylim=limits)
            axes.set_xticks(sizes[::2], [str(size) for size in sizes[::2]])
            axes.minorticks_off()
        own[0].set_ylabel(label)
        own[min(columns, len(groups)) - 1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.supxlabel("videos")
    about = "Parts and scores" if blocks == 2 else "Scores"
    title(figure, f"{about} by number of videos (bands: 95 % intervals)")
    save(figure, path)


def stage_panels(table: pd.DataFrame, **shared) -> tuple[Figure, list[tuple[Axes, str, pd.DataFrame]]]:
    """Make a figure with one panel per stage; return it and a list of (panel, stage, rows of that stage)."""
    groups = list(table.groupby("stage", sort=False))
    columns = min(STAGE_COLUMNS, len(groups))
    size = (PAGE, 0.6 + 1.5 * -(-len(groups) // columns))
    figure, panels = new_panels(len(groups), columns, size, sharex=True, **shared)
    return figure, [(axes, stage, part) for axes, (stage, part) in zip(panels, groups, strict=True)]


def label_panels(figure: Figure, x: str, y: str, text: str) -> None:
    """Write the axis labels, the title and the legend that all panels of a figure share."""
    figure.supxlabel(x)
    figure.supylabel(y)
    title(figure, text)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=4)
