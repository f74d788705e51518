"""Figures of single units: threshold sweep, histograms, contact sheet; colours are those of `figures.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from static_dynamic.analysis.estimate.bootstrap import MEASURED
from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.show.figures import COLOURS, save

COLUMNS = 5
BINS = np.linspace(-1, 1, 41)
LINES = {"dynamic": "-", "static": "--", "joint": "-.", "residual": ":"}
# pixels of a frame on the contact sheet, of the gap between two, and pixels an inch
FRAME_WIDTH, GAP, INCH = 120, 3, 110


def draw_thresholds(sweep: pd.DataFrame, path: Path, threshold: float) -> None:
    """Draw the parts of each class of units against the threshold, stage by stage."""
    figure = _grid_figure(sweep["stage"].nunique())
    for axes, (stage, table) in _panels(figure, sweep):
        total = table[list(UNIT_CLASSES)].sum(axis=1)
        for name, line in LINES.items():
            axes.plot(table["threshold"], 100 * table[name] / total, line, color=COLOURS[name], label=name)
        axes.axvline(threshold, color="black", linewidth=0.6)
        axes.set(title=stage, xlim=(sweep["threshold"].min(), sweep["threshold"].max()), ylim=(0, 100))
    _finish(figure, "threshold", "units (%)", "Classes of units at each threshold")
    save(figure, path)


def draw_histograms(units: pd.DataFrame, path: Path, threshold: float) -> None:
    """Draw how many units have which correlation, stage by stage."""
    figure = _grid_figure(units["stage"].nunique())
    for axes, (stage, table) in _panels(figure, units):
        for factor in MEASURED:
            scores = table[f"score_{factor}"].dropna()
            axes.hist(scores, BINS, color=COLOURS[factor], alpha=0.55, label=factor)
        axes.axvline(threshold, color="black", linewidth=0.6)
        axes.set(title=f"{stage} ({len(table)} units)", xlim=(-1, 1))
    _finish(figure, "correlation of pairs", "units", "Units by what their pairs share")
    save(figure, path)


def draw_sheet(top: pd.DataFrame, strips: Mapping[int, NDArray], path: Path, title: str) -> None:
    """Draw the contact sheet: a row for each unit, a strip of frames for each clip that drives it."""
    groups = list(top.groupby(["class", "unit"], sort=False))
    columns = top.groupby(["class", "unit"]).size().max()
    pictures = {row: _strip(frames) for row, frames in strips.items()}
    height = max(p.shape[0] for p in pictures.values())
    width = max(p.shape[1] for p in pictures.values())
    size = (1.5 + columns * (width + 14) / INCH, 0.5 + len(groups) * (height / INCH + 0.3))
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.02)
    panels = figure.subplots(len(groups), columns, squeeze=False)
    for line, ((name, unit), table) in zip(panels, groups, strict=True):
        for axes in line:
            axes.axis("off")
        for axes, (_, found) in zip(line, table.iterrows(), strict=False):
            axes.imshow(pictures[found["row"]])
            said = f"{_short(found['clip'])}  {100 * found['part']:.0f} %  {found['side']:+.1f} sd"
            axes.set_title(said, fontsize=7, pad=2)
        first = table.iloc[0]
        scores = "\n".join(f"{f} {first[f'score_{f}']:.2f}" for f in MEASURED)
        line[0].text(
            -0.02,
            0.5,
            f"{name}\nunit {unit}\n{scores}",
            transform=line[0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
            color=COLOURS[name],
        )
    figure.suptitle(
        f"{title}\npart of the score that a clip makes; how far from the unit's mean it is", fontsize=9
    )
    save(figure, path)


def _strip(frames: NDArray) -> NDArray:
    height = round(FRAME_WIDTH * frames.shape[1] / frames.shape[2])
    small = [np.asarray(Image.fromarray(f).resize((FRAME_WIDTH, height), Image.LANCZOS)) for f in frames]
    gap = np.full((height, GAP, 3), 255, np.uint8)
    return np.concatenate([part for f in small for part in (f, gap)][:-1], axis=1)


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else f"{name[: most - 3]}..."


def _grid_figure(count: int) -> Figure:
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(5.0, 2.5 * columns), 0.9 + 2.2 * rows), layout="constrained")
    figure.subplots(rows, columns, squeeze=False, sharex=True)
    return figure


def _panels(figure: Figure, table: pd.DataFrame) -> Iterator[tuple[Axes, tuple[str, pd.DataFrame]]]:
    groups = list(table.groupby("stage", sort=False))
    for axes in figure.axes[len(groups) :]:
        axes.remove()
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return zip(figure.axes, groups, strict=True)


def _finish(figure: Figure, x: str, y: str, title: str) -> None:
    figure.supxlabel(x, fontsize=10)
    figure.supylabel(y, fontsize=10)
    figure.suptitle(title, fontsize=11)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside right upper")
