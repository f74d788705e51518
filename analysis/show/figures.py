"""Figures, in one style: colours that colour-blind readers tell apart (Okabe and Ito), no pyplot state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from static_dynamic.analysis.estimate.estimator import FACTORS, UNIT_CLASSES
from static_dynamic.files import atomic_path

COLOURS = {
    "dynamic": "#D55E00",
    "static": "#0072B2",
    "joint": "#009E73",
    "residual": "#999999",
    "dead": "#DDDDDD",
}
# sources of variance: the three effects in full colour, their interactions lighter
COMPONENT_COLOURS = {
    "video": "#009E73",
    "style": "#0072B2",
    "order": "#D55E00",
    "video:style": "#56B4E9",
    "video:order": "#E69F00",
    "style:order": "#CC79A7",
    "video:style:order": "#999999",
}
MARKERS = {"dynamic": "o", "static": "s", "residual": "^"}
# runs side by side, in turn; not first in the colours of dynamic and static
RUN_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#D55E00", "#0072B2")
RUN_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# what a writer would put into a file that differs from day to day
NO_DATE = {".png": {"Software": None}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}


def draw_profile(layers: pd.DataFrame, path: Path, title: str) -> None:
    """Draw a network's profile: shares and raw scores by stage with 95 % bands, classes of units as
    stacked bars."""
    figure = Figure(figsize=(max(12.0, 3 + 0.8 * len(layers)), 4.2), layout="constrained")
    shares, scores, classes = figure.subplots(1, 3)
    x = np.arange(len(layers))
    for factor in FACTORS:
        _curve(shares, x, 100 * _columns(layers, f"share_{factor}"), factor)
        if factor != "residual":
            _curve(scores, x, _columns(layers, f"score_{factor}"), factor)
    shares.set(title="share of information", ylabel="share (%)", ylim=(0, None))
    scores.set(title="score (what pairs share)", ylabel="correlation of pairs")
    scores.axhline(0, color="black", linewidth=0.6)
    scores.set_ylim(top=max(1.02, scores.get_ylim()[1]))
    shares.legend(frameon=False)

    bottom = np.zeros(len(layers))
    for name in UNIT_CLASSES:
        height = 100 * (layers[f"units_{name}"] / layers["units"]).to_numpy()
        bars = classes.bar(x, height, bottom=bottom, color=COLOURS[name], label=name, width=0.75)
        labels = [f"{h:.0f}" if h >= 6 else "" for h in height]
        classes.bar_label(
            bars, labels, label_type="center", color="black" if name == "dead" else "white", fontsize=8
        )
        bottom += height
    classes.set(title=f"units (threshold {layers['threshold'].iloc[0]})", ylabel="units (%)", ylim=(0, 100))
    classes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))

    for axes in (shares, scores, classes):
        axes.set_xticks(x, layers["stage"], rotation=0 if len(layers) <= 4 else 45)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(
        f"{title} ({layers['clips'].iloc[0]} clips; bands: 95 % intervals over videos)", fontsize=11
    )
    save(figure, path)


def draw_classes(row: pd.Series, path: Path, title: str) -> None:
    """Draw the numbers of units by class of one stage, as the original's joint-encoding chart does."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axes = figure.subplots()
    counts = [row[f"units_{name}"] for name in UNIT_CLASSES]
    bars = axes.bar(UNIT_CLASSES, counts, color=[COLOURS[name] for name in UNIT_CLASSES])
    axes.bar_label(bars, padding=3)
    axes.set(title=f"{title} (threshold {row['threshold']})", ylabel="units")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def draw_variance(layers: pd.DataFrame, path: Path, title: str) -> None:
    """Draw the shares of each stage's variance by source, as stacked bars; negative ones hang below zero."""
    stages = list(layers["stage"].unique())
    figure = Figure(figsize=(max(6.5, 2.5 + 0.8 * len(stages)), 4.2), layout="constrained")
    axes = figure.subplots()
    above, below = np.zeros(len(stages)), np.zeros(len(stages))
    for name, colour in COMPONENT_COLOURS.items():
        part = layers[layers["component"] == name].set_index("stage").loc[stages, "share"]
        height = 100 * part.to_numpy()
        bars = axes.bar(
            stages, height, bottom=np.where(height > 0, above, below), color=colour, label=name, width=0.75
        )
        labels = [f"{h:.0f}" if h >= 6 else "" for h in height]
        axes.bar_label(bars, labels, label_type="center", color="white", fontsize=8)
        above += np.maximum(height, 0)
        below += np.minimum(height, 0)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(title=f"{title}: what units vary with", ylabel="share of variance (%)")
    axes.tick_params(axis="x", rotation=0 if len(stages) <= 6 else 45)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the same figure gives the same bytes."""
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "static-dynamic"}):
        figure.savefig(temporary, dpi=160, metadata=NO_DATE.get(path.suffix))


def _curve(axes, x, values, factor: str) -> None:
    point, low, high = values
    axes.plot(x, point, color=COLOURS[factor], marker=MARKERS[factor], label=factor)
    axes.fill_between(x, low, high, color=COLOURS[factor], alpha=0.2, linewidth=0)


def _columns(layers: pd.DataFrame, name: str) -> np.ndarray:
    return layers[[name, f"{name}_low", f"{name}_high"]].to_numpy(float).T
