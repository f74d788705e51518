"""Figures of runs side by side, in the style of `static_dynamic.analysis.show.figures`: a colour and a marker for each curve."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from static_dynamic.analysis.estimate.bootstrap import MEASURED
from static_dynamic.analysis.estimate.comparison import Comparison
from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.show.figures import COLOURS, RUN_COLOURS, RUN_MARKERS, save
from static_dynamic.errors import UserError
from static_dynamic.models.stage_names import split_stage

FORMATS = ("png", "pdf", "svg")
BINS = np.linspace(-1, 1, 41)


def draw_comparison(comparison: Comparison, folder: Path, form: str) -> None:
    """Draw every figure of a comparison that it has the numbers for, as ``NAME.<form>``."""
    if form not in FORMATS:
        raise UserError(f"task.formats: {form} is not one of {', '.join(FORMATS)}")
    for name, draw in FIGURES.items():
        figure = draw(comparison)
        if figure is not None:
            save(figure, folder / f"{name}.{form}")


def styles_of(curves: list[str]) -> dict[str, dict]:
    """Colour and marker of each curve; seven of each, then both go on at different paces."""
    markers = islice(cycle((*RUN_MARKERS, "*")), len(curves))
    return {
        c: {"color": k, "marker": m} for c, k, m in zip(curves, cycle(RUN_COLOURS), markers, strict=False)
    }


def curve_names(layers: pd.DataFrame) -> list[str]:
    """Every curve, in order."""
    return list(dict.fromkeys(layers["curve"]))


def places(layers: pd.DataFrame) -> list[str] | None:
    """The places that all curves have in common, in order; None where they differ."""
    found = {tuple(split_stage(s)[0] for s in part["stage"]) for _, part in layers.groupby("curve")}
    return list(found.pop()) if len(found) == 1 else None


def curves(comparison: Comparison) -> Figure:
    """Scores over depth, with bands: by place where all networks have the same, else by relative depth."""
    layers = comparison.layers
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    shared = places(layers)
    panels = figure.subplots(1, 2)
    for axes, factor in zip(panels, MEASURED, strict=True):
        for curve, style in styles_of(curve_names(layers)).items():
            part = layers[layers["curve"] == curve]
            x = np.arange(len(part)) if shared else part["depth"].to_numpy()
            axes.plot(x, part[f"score_{factor}"], label=curve, markersize=5, **style)
            low, high = (part[f"score_{factor}_{end}"] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        if shared:
            axes.set_xticks(range(len(shared)), shared, rotation=0 if len(shared) <= 6 else 45)
        else:
            axes.set_xlabel("relative depth")
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(title=f"{factor} score", ylabel="correlation of pairs" if factor == MEASURED[0] else None)
        plain(axes)
    legend(figure, panels[0])
    return figure


def plane(comparison: Comparison) -> Figure:
    """The static-dynamic plane, one point a curve: the paper's shares, and the scores behind them."""
    shown = comparison.layers[comparison.layers["shown"]]
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, kind, scale, unit in zip(panels, ("share", "score"), (100, 1), (" (%)", ""), strict=True):
        for curve, style in styles_of(curve_names(comparison.layers)).items():
            row = shown[shown["curve"] == curve]
            if not len(row):
                continue
            point, errors = point_with_errors(row.iloc[0], kind, scale)
            bars = {"xerr": errors[0], "yerr": errors[1]} if np.isfinite(errors).all() else {}
            axes.errorbar(*point, **bars, linestyle="", label=curve, capsize=2, markersize=8, **style)
        axes.set(xlabel=f"static {kind}{unit}", ylabel=f"dynamic {kind}{unit}")
        plain(axes)
    panels[0].set_title("share of information")
    panels[1].set_title("score (what pairs share)")
    legend(figure, panels[0])
    return figure


def point_with_errors(row: pd.Series, kind: str, scale: float) -> tuple[list[float], np.ndarray]:
    """Static and dynamic value of a row, and how far its intervals reach down and up, (2, 2, 1)."""
    point, errors = [], []
    for factor in ("static", "dynamic"):
        value, low, high = (scale * row[f"{kind}_{factor}{end}"] for end in ("", "_low", "_high"))
        point.append(value)
        errors.append([[max(0.0, value - low)], [max(0.0, high - value)]])
    return point, np.array(errors)


def classes(comparison: Comparison) -> Figure:
    """Units by class at the shown stage of each curve, as bars beside each other."""
    shown = comparison.layers[comparison.layers["shown"]]
    figure = Figure(figsize=(8.5, 1.4 + 0.5 * len(shown)), layout="constrained")
    axes = figure.subplots()
    names = [f"{row['curve']}, {row['stage']}" for _, row in shown.iterrows()]
    left = np.zeros(len(shown))
    for name in UNIT_CLASSES:
        width = shown[f"percent_{name}"].to_numpy()
        bars = axes.barh(names, width, left=left, color=COLOURS[name], label=name, height=0.7)
        labels = [f"{w:.0f}" if w >= 4 else "" for w in width]
        axes.bar_label(bars, labels, label_type="center", color="black" if name == "dead" else "white")
        left += width
    axes.invert_yaxis()
    axes.set(xlabel=f"units (%), threshold {shown['threshold'].iloc[0]:g}", xlim=(0, 100))
    plain(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    return figure


def histograms(comparison: Comparison) -> Figure:
    """How the scores of units spread, at the shown stage of each curve."""
    figure = Figure(figsize=(10.5, 4.0), layout="constrained")
    panels = figure.subplots(1, 2)
    units = comparison.units
    for axes, factor in zip(panels, MEASURED, strict=True):
        for curve, style in styles_of(curve_names(comparison.layers)).items():
            scores = units.loc[units["curve"] == curve, f"score_{factor}"].dropna()
            if len(scores):
                parts = 100 * np.histogram(scores.clip(-1, 1), BINS)[0] / len(scores)
                axes.stairs(parts, BINS, color=style["color"], label=curve, linewidth=1.6)
        axes.axvline(comparison.layers["threshold"].iloc[0], color="black", linewidth=0.8, linestyle=":")
        axes.set(xlabel=f"{factor} score of a unit", ylabel="units (%)" if factor == MEASURED[0] else None)
        plain(axes)
    legend(figure, panels[0])
    return figure


def sweep(comparison: Comparison) -> Figure:
    """Units by class over the threshold, at the shown stage of each curve."""
    shown = UNIT_CLASSES[:4]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True)
    for axes, name in zip(panels, shown, strict=True):
        for curve, style in styles_of(curve_names(comparison.layers)).items():
            part = comparison.sweep[comparison.sweep["curve"] == curve]
            axes.plot(
                part["threshold"], part[f"percent_{name}"], label=curve, markevery=5, markersize=4, **style
            )
        axes.axvline(comparison.layers["threshold"].iloc[0], color="black", linewidth=0.8, linestyle=":")
        axes.set(title=name, xlabel="threshold", ylim=(0, 100))
        plain(axes)
    panels[0].set_ylabel("units (%)")
    legend(figure, panels[0])
    return figure


def training(comparison: Comparison) -> Figure | None:
    """Scores of the shown stages over training iterations; None where these are not known of two runs."""
    shown = comparison.layers[comparison.layers["shown"]].merge(
        comparison.runs[["run", "network", "iterations"]]
    )
    shown = shown.dropna(subset="iterations").sort_values("iterations", kind="stable")
    if shown["iterations"].nunique() < 2:
        return None
    names = (shown["network"] + " " + shown["reading"] + " " + shown["stage"]).str.split().str.join(" ")
    figure = Figure(figsize=(9.5, 4.0), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, factor in zip(panels, MEASURED, strict=True):
        for curve, style in styles_of(list(dict.fromkeys(names))).items():
            part = shown[names == curve]
            value, low, high = (part[f"score_{factor}{end}"].to_numpy() for end in ("", "_low", "_high"))
            x = part["iterations"].to_numpy(float)
            axes.plot(x, value, label=curve, **style)
            axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.set(title=f"{factor} score", xlabel="training iterations")
        plain(axes)
    legend(figure, panels[0])
    return figure


FIGURES: dict[str, Callable[[Comparison], Figure | None]] = {
    f.__name__: f for f in (curves, plane, classes, histograms, sweep, training)
}


def plain(axes: Axes) -> None:
    """No frame at the top and at the right."""
    axes.spines[["top", "right"]].set_visible(False)


def legend(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, above them."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max((len(label) for label in labels), default=0)
    columns = max(1, min(len(labels), 110 // (longest + 6)))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
