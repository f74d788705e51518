"""Figures that compare several runs; each curve (run and pathway) has its own colour and marker."""

from collections.abc import Callable, Iterable
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.comparison import Comparison
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.estimator import MEASURED, UNIT_CLASSES
from static_dynamic.analysis.show.figure_style import (
    COLOURS,
    PAGE,
    SCORE_BINS,
    bar_style,
    draw_band,
    label_bars,
    limit,
    new_panels,
    print_style,
    stage_ticks,
)
from static_dynamic.analysis.show.text import value_and_bounds
from static_dynamic.models.stage_names import split_stage

# Curves take colours, markers and line styles in turn: 7 colours and 8 markers distinguish 56 curves.
# Other figures use the last two colours for dynamic and static, so these two colours are assigned last.
RUN_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#D55E00", "#0072B2")
RUN_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
RUN_LINES = ("-", "--", "-.", ":")


def styles_of(curves: Iterable[str]) -> dict[str, dict]:
    """Assign colours, markers and line styles in the order of the curves; return a dict: curve -> style."""
    looks = zip(dict.fromkeys(curves), cycle(RUN_COLOURS), cycle(RUN_MARKERS), cycle(RUN_LINES), strict=False)
    return {curve: {"color": c, "marker": m, "linestyle": line} for curve, c, m, line in looks}


def shared_places(layers: pd.DataFrame) -> list[str] | None:
    """Return the stage names (without SlowFast's pathway) if all curves have the same stages, else None."""
    found = {tuple(split_stage(s)[0] for s in part["stage"]) for _, part in layers.groupby("curve")}
    return list(found.pop()) if len(found) == 1 else None


@print_style
def parts(comparison: Comparison) -> Figure | None:
    """Draw content, motion, appearance and residual by stage; return None if no run has parts."""
    if comparison.layers["content"].isna().all():
        return None
    figure, panels = new_panels(len(PARTS), 2, (PAGE, 4.6))
    for axes, part in zip(panels, PARTS, strict=True):
        draw_by_depth(axes, comparison.layers, part, 100)
        axes.set(title=part, ylabel="part of the variance (%)")
    add_legend(figure)
    return figure


@print_style
def curves(comparison: Comparison) -> Figure:
    """Draw scores by stage (by relative depth if the runs have different stages), with interval bands."""
    figure, panels = new_panels(2, 2, (PAGE, 2.7))
    for axes, factor in zip(panels, MEASURED, strict=True):
        draw_by_depth(axes, comparison.layers, f"score_{factor}")
        axes.set(title=f"the paper's {factor} score")
    panels[0].set_ylabel("covariance of pairs / pooled variance")
    add_legend(figure)
    return figure


def draw_by_depth(axes: Axes, layers: pd.DataFrame, column: str, scale: float = 1) -> None:
    """Draw a column of `layers` by stage (by relative depth if stages differ), with interval bands."""
    shared = shared_places(layers)
    for curve, style in styles_of(layers["curve"]).items():
        part = layers[layers["curve"] == curve]
        if part[column].isna().all():
            continue  # this run has no parts
        x = np.arange(len(part)) if shared else part["depth"].to_numpy()
        draw_band(axes, x, value_and_bounds(part, column, scale), label=curve, **style)
    if shared:
        stage_ticks(axes, shared, 2.6)
    else:
        axes.set_xlabel("relative depth")
    axes.axhline(0, color="black", linewidth=0.6)
    limit(axes, scale * layers[column], -0.2 * scale, 1.1 * scale)


@print_style
def plane(comparison: Comparison) -> Figure:
    """Draw dynamic against static shares, and dynamic against static scores, with one point per run."""
    shown = comparison.layers[comparison.layers["shown"]]
    figure, panels = new_panels(2, 2, (PAGE, 3.0))
    for axes, kind, scale, unit in zip(panels, ("share", "score"), (100, 1), (" (%)", ""), strict=True):
        for curve, style in styles_of(comparison.layers["curve"]).items():
            row = shown[shown["curve"] == curve]
            if not len(row):
                continue
            (x, y), errors = point_with_errors(row.iloc[0], kind, scale)
            xerr, yerr = errors if np.isfinite(errors).all() else (None, None)
            axes.errorbar(x, y, yerr, xerr, label=curve, capsize=2, markersize=5, **style | {"linestyle": ""})
        axes.set(xlabel=f"static {kind}{unit}", ylabel=f"dynamic {kind}{unit}")
    panels[0].set_title("the paper's shares of dimensions")
    panels[1].set_title("the paper's scores")
    add_legend(figure)
    return figure


def point_with_errors(row: pd.Series, kind: str, scale: float) -> tuple[list[float], NDArray]:
    """Return the static and the dynamic value of a row, and their error bars for ``xerr`` and ``yerr``.

    The shape of the error bars is (2 values, 2 distances: below and above, 1 point).
    """
    values = np.array([value_and_bounds(row, f"{kind}_{factor}", scale) for factor in ("static", "dynamic")])
    value, low, high = values.T
    return value.tolist(), np.maximum(0.0, np.stack([value - low, high - value], axis=1))[..., None]


@print_style
def classes(comparison: Comparison) -> Figure:
    """Draw the percentage of units per unit class (dynamic, static, ...) as one stacked bar per run."""
    shown = comparison.layers[comparison.layers["shown"]]
    figure, (axes,) = new_panels(1, 1, (PAGE, 1.0 + 0.32 * len(shown)))
    names = shown["curve"] + ", " + shown["stage"]
    left = np.zeros(len(shown))
    for name in UNIT_CLASSES:
        width = shown[f"percent_{name}"].to_numpy()
        style = bar_style(name, COLOURS[name])
        bars = axes.barh(names, width, left=left, label=name, height=0.7, **style)
        label_bars(axes, bars, [f"{w:.0f}" if w >= 4 else "" for w in width], name, COLOURS[name])
        left += width
    axes.invert_yaxis()
    axes.set(xlabel=f"units (%), threshold {shown['threshold'].iloc[0]:g}", xlim=(0, 100))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure


@print_style
def histograms(comparison: Comparison) -> Figure:
    """Draw histograms of the units' scores at the stage that is selected for each curve."""
    figure, panels = new_panels(2, 2, (PAGE, 2.7))
    units = comparison.units
    for axes, factor in zip(panels, MEASURED, strict=True):
        for curve, style in styles_of(comparison.layers["curve"]).items():
            scores = units.loc[units["curve"] == curve, f"score_{factor}"].dropna()
            if len(scores):
                parts = 100 * np.histogram(scores.clip(-1, 1), SCORE_BINS)[0] / len(scores)
                look = {"color": style["color"], "linestyle": style["linestyle"]}
                axes.stairs(parts, SCORE_BINS, label=curve, **look)
        mark_threshold(axes, comparison)
        axes.set(xlabel=f"the paper's {factor} score of a unit")
    panels[0].set_ylabel("units (%)")
    add_legend(figure)
    return figure


@print_style
def sweep(comparison: Comparison) -> Figure:
    """Draw the units per class (%) as a function of the threshold, at the stage selected for each curve."""
    shown = UNIT_CLASSES[:4]
    figure, panels = new_panels(len(shown), len(shown), (PAGE, 2.4), sharey=True)
    for axes, name in zip(panels, shown, strict=True):
        for curve, style in styles_of(comparison.layers["curve"]).items():
            part = comparison.sweep[comparison.sweep["curve"] == curve]
            percent = part[f"percent_{name}"]
            axes.plot(part["threshold"], percent, label=curve, markevery=5, **style)
        mark_threshold(axes, comparison)
        axes.set(title=name, xlabel="threshold", ylim=(0, 100))
    panels[0].set_ylabel("units (%)")
    add_legend(figure)
    return figure


@print_style
def training(comparison: Comparison) -> Figure | None:
    """Draw scores by training iteration; return None if fewer than two different iterations are known."""
    runs = comparison.runs[["run", "network", "iterations"]]
    shown = comparison.layers[comparison.layers["shown"]].merge(runs)
    shown = shown.dropna(subset="iterations").sort_values("iterations", kind="stable")
    if shown["iterations"].nunique() < 2:
        return None
    names = (shown["network"] + " " + shown["reading"] + " " + shown["stage"]).str.split().str.join(" ")
    figure, panels = new_panels(2, 2, (PAGE, 2.7))
    for axes, factor in zip(panels, MEASURED, strict=True):
        for curve, style in styles_of(names).items():
            part = shown[names == curve]
            x = part["iterations"].to_numpy(float)
            draw_band(axes, x, value_and_bounds(part, f"score_{factor}"), label=curve, **style)
        axes.set(title=f"the paper's {factor} score", xlabel="training iterations")
    add_legend(figure)
    return figure


@print_style
def probes(comparison: Comparison) -> Figure | None:
    """Draw the decodability of each variable by stage; return None if no run has probes."""
    table = comparison.probes
    if table.empty:
        return None
    variables = list(dict.fromkeys(table["variable"]))
    columns = min(3, len(variables))
    size = (PAGE, 0.7 + 1.8 * -(-len(variables) // columns))
    figure, panels = new_panels(len(variables), columns, size)
    for axes, variable in zip(panels, variables, strict=True):
        draw_by_depth(axes, table[table["variable"] == variable], "decodability")
        axes.set(title=variable)
    figure.supylabel("decodability (0: chance, 1: no error)")
    add_legend(figure)
    return figure


FIGURES: dict[str, Callable[[Comparison], Figure | None]] = {
    f.__name__: f for f in (parts, curves, plane, classes, histograms, sweep, training, probes)
}


def mark_threshold(axes: Axes, comparison: Comparison) -> None:
    """Draw a dotted vertical line at the score threshold that decides the units' classes."""
    axes.axvline(comparison.layers["threshold"].iloc[0], color="black", linewidth=0.8, linestyle=":")


def add_legend(figure: Figure) -> None:
    """Draw one legend above all panels, in as many columns as the figure's width allows."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    longest = max((len(label) for label in labels), default=0)
    columns = max(1, min(len(labels), 100 // (longest + 8)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
