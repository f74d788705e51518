"""Figures of single units: units per class against the threshold, score histograms, contact sheet."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import MEASURED, UNIT_CLASSES
from static_dynamic.analysis.show.figures import COLOURS, SCORE_BINS, label_panels, save, stage_panels
from static_dynamic.analysis.show.strips import side_by_side

LINES = {"dynamic": "-", "static": "--", "joint": "-.", "residual": ":"}
# Width of a frame on the contact sheet in pixels.
FRAME_WIDTH = 120
# Pixels per inch of the contact sheet.
RESOLUTION = 110
# Clip names on the contact sheet are cut to this number of characters.
NAME_LENGTH = 26


def draw_thresholds(sweep: pd.DataFrame, path: Path, threshold: float) -> None:
    """Draw the percentage of units per unit class against the score threshold, one panel per stage."""
    figure, panels = stage_panels(sweep)
    for axes, stage, table in panels:
        total = table[list(UNIT_CLASSES)].sum(axis=1)
        for name, line in LINES.items():
            axes.plot(table["threshold"], 100 * table[name] / total, line, color=COLOURS[name], label=name)
        axes.axvline(threshold, color="black", linewidth=0.6)
        axes.set(title=stage, xlim=(sweep["threshold"].min(), sweep["threshold"].max()), ylim=(0, 100))
    label_panels(figure, "threshold", "units (%)", "Classes of units at each threshold")
    save(figure, path)


def draw_histograms(units: pd.DataFrame, path: Path, threshold: float) -> None:
    """Draw histograms of the units' dynamic and static scores, one panel per stage."""
    figure, panels = stage_panels(units)
    for axes, stage, table in panels:
        for factor in MEASURED:
            scores = table[f"score_{factor}"].dropna()
            axes.hist(scores, SCORE_BINS, color=COLOURS[factor], alpha=0.55, label=factor)
        axes.axvline(threshold, color="black", linewidth=0.6)
        axes.set(title=f"{stage} ({len(table)} units)", xlim=(-1, 1))
    label_panels(figure, "unit score: correlation of pairs", "units", "Scores of units")
    save(figure, path)


def draw_sheet(top: pd.DataFrame, strips: Mapping[int, NDArray], path: Path, title: str) -> None:
    """Draw the contact sheet, with one row of pictures per unit: the clips that most affect the unit's score.

    `top`: result of `top_units`; the column ``row`` is a row number in ``views.parquet``.
    `strips`: row number in ``views.parquet`` -> some frames of this view, (n, H, W, 3) uint8.
    """
    groups = list(top.groupby(["class", "unit"], sort=False))
    columns = max(len(table) for _, table in groups)
    pictures = {row: side_by_side(frames, width=FRAME_WIDTH) for row, frames in strips.items()}
    height = max(p.shape[0] for p in pictures.values())
    width = max(p.shape[1] for p in pictures.values())
    size = (1.5 + columns * (width + 14) / RESOLUTION, 0.5 + len(groups) * (height / RESOLUTION + 0.3))
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.02))
    panels = figure.subplots(len(groups), columns, squeeze=False)
    for line, ((kind, unit), table) in zip(panels, groups, strict=True):
        for axes in line:
            axes.axis("off")
        for axes, (_, clip) in zip(line, table.iterrows(), strict=False):
            axes.imshow(pictures[clip["row"]])
            name = clip["clip"]
            short = name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 3]}..."
            heading = f"{short}  {100 * clip['part']:.0f} %  {clip['side']:+.1f} sd"
            axes.set_title(heading, fontsize=7, pad=2)
        first = table.iloc[0]
        scores = "\n".join(f"{f} {first[f'score_{f}']:.2f}" for f in MEASURED)
        place = {"transform": line[0].transAxes, "ha": "right", "va": "center"}
        label = f"{kind}\nunit {unit}\n{scores}"
        line[0].text(-0.02, 0.5, label, fontsize=8, color=COLOURS[kind], **place)
    legend = "the clip's part of the score (%); its activation minus the unit's mean (standard deviations)"
    figure.suptitle(f"{title}\n{legend}", fontsize=9)
    save(figure, path)
