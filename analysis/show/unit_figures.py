"""Figures of a run's units: units per class as a function of the threshold, histograms, contact sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.decomposition import BITS
from static_dynamic.analysis.estimate.estimator import MEASURED, UNIT_CLASSES
from static_dynamic.analysis.show.figure_style import (
    COLOURS,
    PART_COLOURS,
    SCORE_BINS,
    part_line,
    print_style,
    save,
    shorten,
)
from static_dynamic.analysis.show.figures import label_panels, stage_panels
from static_dynamic.analysis.show.strips import side_by_side

LINES = {"dynamic": "-", "static": "--", "joint": "-.", "residual": ":"}
# Parts outside of this range are drawn at the ends of the range.
PART_RANGE = (-0.2, 1.2)
# Edges of the histogram bins in percent of the variance.
PART_BINS = [5 * k for k in range(-4, 25)]
# Numbers printed beside a unit if the contact sheet is by class or by kind: name -> table column.
NUMBERS = {"class": {f: f"score_{f}" for f in MEASURED}, "kind": {part: part for part in BITS}}
# Width of a frame on the contact sheet in pixels.
FRAME_WIDTH = 120
# Pixels per inch of the contact sheet.
RESOLUTION = 110
# Clip names on the contact sheet are cut to this number of characters.
NAME_LENGTH = 26


@print_style
def draw_thresholds(sweep: pd.DataFrame, path: Path, threshold: float) -> None:
    """Draw the units per class (%) as a function of the score threshold, one panel per stage."""
    figure, panels = stage_panels(sweep)
    for axes, stage, table in panels:
        total = table[list(UNIT_CLASSES)].sum(axis=1)
        for name, line in LINES.items():
            axes.plot(table["threshold"], 100 * table[name] / total, line, color=COLOURS[name], label=name)
        axes.axvline(threshold, color="black", linewidth=0.6)
        axes.set(
            title=shorten(stage), xlim=(sweep["threshold"].min(), sweep["threshold"].max()), ylim=(0, 100)
        )
    label_panels(figure, "threshold", "units (%)", "Classes of units at each threshold")
    save(figure, path)


@print_style
def draw_histograms(units: pd.DataFrame, path: Path, threshold: float) -> None:
    """Draw histograms of the units' dynamic and static scores, one panel per stage."""
    figure, panels = stage_panels(units)
    for axes, stage, table in panels:
        for factor in MEASURED:
            scores = table[f"score_{factor}"].dropna()
            axes.hist(scores, SCORE_BINS, color=COLOURS[factor], alpha=0.35)
            look: Any = {"color": COLOURS[factor], "linestyle": LINES[factor], "label": factor}
            axes.hist(scores, SCORE_BINS, histtype="step", **look)
        axes.axvline(threshold, color="black", linewidth=0.6)
        axes.set(title=f"{shorten(stage)} ({len(table)} units)", xlim=(-1, 1))
    label_panels(figure, "unit score: correlation of pairs", "units", "Scores of units")
    save(figure, path)


@print_style
def draw_parts(units: pd.DataFrame, path: Path) -> None:
    """Draw histograms of the units' content, motion and appearance parts, one panel per stage."""
    figure, panels = stage_panels(units)
    for axes, stage, table in panels:
        for part in BITS:
            values = 100 * table[part].astype(float).clip(*PART_RANGE).dropna()
            line = part_line(part)["linestyle"]
            axes.hist(values, PART_BINS, color=PART_COLOURS[part], alpha=0.25)
            axes.hist(
                values, PART_BINS, histtype="step", color=PART_COLOURS[part], label=part, linestyle=line
            )
        axes.set(title=f"{shorten(stage)} ({len(table)} units)", xlim=(PART_BINS[0], PART_BINS[-1]))
    label_panels(figure, "part of the unit's variance (%)", "units", "Parts of units")
    save(figure, path)


@print_style
def draw_sheet(
    top: pd.DataFrame, strips: Mapping[int, NDArray], path: Path, title: str, label: str = "class"
) -> None:
    """Draw a contact sheet with one row of pictures per unit: the clips that most affect the unit's score.

    `top`: result of `top_units` (`label` class) or `top_parts` (`label` kind); the column ``row`` is a row
    number in ``views.parquet``. `strips`: row number in ``views.parquet`` -> some frames of this view, (n, H,
    W, 3) uint8.
    """
    numbers = NUMBERS[label]
    groups = list(top.groupby([label, "unit"], sort=False))
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
        values = "\n".join(f"{name} {first[column]:.2f}" for name, column in numbers.items())
        place = {"transform": line[0].transAxes, "ha": "right", "va": "center"}
        text = f"{kind}\nunit {unit}\n{values}"
        line[0].text(-0.02, 0.5, text, fontsize=8, color=(COLOURS | PART_COLOURS)[kind], **place)
    legend = "the clip's fraction (%); its activation minus the unit's mean (standard deviations)"
    if label == "kind":
        legend += "; motion: forward minus altered order"
    figure.suptitle(f"{title}\n{legend}", fontsize=9)
    save(figure, path)
