"""Figures of parts by cell: maps over space, courses over time, and bars per region of masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.decomposition import BITS
from static_dynamic.analysis.show.figure_style import (
    PAGE,
    PART_COLOURS,
    draw_band,
    limit,
    new_panels,
    part_line,
    print_style,
    save,
    shorten,
    stage_ticks,
)
from static_dynamic.analysis.show.figure_style import title as print_title
from static_dynamic.analysis.show.text import align, value_and_bounds, with_interval

# Hatch patterns that tell the bars of regions apart, also in grey.
REGION_HATCHES = ("", "////", "....", "xxxx")


def draw_cells(cells: pd.DataFrame, frame: NDArray | None, folder: Path, title: str) -> list[Path]:
    """Draw the figures that fit the cells of a run; return their paths.

    `cells` is the table ``cells.csv``. `frame` (H, W, 3) uint8 is the mean frame of the network's input.
    """
    if "region" in cells:
        draw_regions(cells, folder / "cells.png", title)
        return [folder / "cells.png"]
    drawn = []
    if cells["row"].max() or cells["column"].max():
        draw_maps(cells, frame, folder / "cells.png", title)
        drawn.append(folder / "cells.png")
    if cells["time"].max():
        draw_courses(cells, folder / "cells_time.png", title)
        drawn.append(folder / "cells_time.png")
    return drawn


@print_style
def draw_maps(cells: pd.DataFrame, frame: NDArray | None, path: Path, title: str) -> None:
    """Draw maps of content, motion and appearance (%), one row per stage, beside the mean frame.

    All maps of a part share one colour scale. Parts are averaged over the time cells of the grid.
    """
    stages = list(cells["stage"].unique())
    first = frame is not None
    figure = Figure(figsize=(PAGE, 0.7 + 1.35 * len(stages)), layout="constrained")
    panels = figure.subplots(len(stages), len(BITS) + first, squeeze=False)
    for k, part in enumerate(BITS, start=first):
        maps = [map_of(cells[cells["stage"] == stage], part) for stage in stages]
        low, high = min(0.0, np.nanmin(maps, initial=0)), max(1.0, np.nanmax(maps, initial=0))
        for axes, values in zip(panels[:, k], maps, strict=True):
            picture = axes.imshow(values, cmap="cividis", vmin=low, vmax=high)
        panels[0, k].set_title(part)
        bar = figure.colorbar(picture, ax=panels[:, k].tolist(), location="bottom", shrink=0.8, aspect=25)
        bar.set_label("part of the variance (%)")
    for stage, line in zip(stages, panels, strict=True):
        for axes in line:
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(shorten(stage))
        if frame is not None:
            line[0].imshow(frame)
    if first:
        panels[0, 0].set_title("mean frame")
    print_title(figure, title)
    save(figure, path)


def map_of(cells: pd.DataFrame, part: str) -> NDArray:
    """Return the map (rows, columns) of a part of one stage in percent, averaged over time cells."""
    return 100 * cells.pivot_table(part, "row", "column", "mean", dropna=False).to_numpy(float)


@print_style
def draw_courses(cells: pd.DataFrame, path: Path, title: str) -> None:
    """Draw content, motion and appearance over time, one panel per stage, with 95 % intervals.

    If the grid has several cells per time step, the curves are means over these cells, without intervals.
    """
    groups = list(cells.groupby("stage", sort=False))
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    figure, panels = new_panels(len(groups), columns, (PAGE, 0.7 + 1.7 * rows), sharex=True, sharey=True)
    for axes, (stage, own) in zip(panels, groups, strict=True):
        several = own["row"].max() or own["column"].max()
        for part in BITS:
            style = part_line(part) | {"label": part}
            if several:
                mean = 100 * own.groupby("time")[part].mean()
                axes.plot(mean.index + 1, mean, **style)
            else:
                draw_band(axes, own["time"] + 1, value_and_bounds(own, part, 100), **style)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set_title(shorten(stage))
        limit(axes, 100 * own[list(BITS)], -20, 110)
    figure.supxlabel("time cell of the clip")
    figure.supylabel("part of the variance (%)")
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=3, frameon=False)
    print_title(figure, title)
    save(figure, path)


@print_style
def draw_regions(cells: pd.DataFrame, path: Path, title: str) -> None:
    """Draw bars of each part per stage and region of the masks, with 95 % intervals over videos."""
    stages, regions = list(cells["stage"].unique()), list(cells["region"].unique())
    figure, panels = new_panels(len(BITS), 1, (PAGE, 0.7 + 1.6 * len(BITS)), sharex=True)
    width = 0.8 / len(regions)
    for axes, part in zip(panels, BITS, strict=True):
        for k, region in enumerate(regions):
            own = cells[cells["region"] == region].set_index("stage").loc[stages]
            value, low, high = value_and_bounds(own, part, 100)
            bars = np.nan_to_num(np.maximum(0, [value - low, high - value]))
            place = np.arange(len(stages)) + width * (k - (len(regions) - 1) / 2)
            look: dict[str, Any] = {
                "hatch": REGION_HATCHES[k % len(REGION_HATCHES)],
                "edgecolor": "white",
                "linewidth": 0,
            }
            look |= {"facecolor": PART_COLOURS[part], "alpha": 1 - 0.5 * k / max(1, len(regions) - 1)}
            errors: dict[str, Any] = {"yerr": bars, "error_kw": {"linewidth": 0.8}, "capsize": 1.5}
            axes.bar(place, value, 0.95 * width, label=region, **look, **errors)
        axes.axhline(0, color="black", linewidth=0.5)
        limit(axes, 100 * cells[part], -20, 110)
        axes.set_ylabel(f"{part} (%)")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    stage_ticks(panels[-1], stages, 5.5)
    print_title(figure, f"{title}; bars: 95 % intervals over videos")
    save(figure, path)


def format_regions(cells: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Return a text table of the parts (%) per stage and region, and of their paired differences."""
    rows = [
        {"stage": row["stage"], "region": row["region"], "videos": row["videos"]}
        | {f"{part} %": "-" if pd.isna(row[part]) else with_interval(row, part, 100, 1) for part in BITS}
        for _, row in cells.iterrows()
    ]
    paired = [
        {"stage": stage, "difference": f"{left} - {right}"}
        | {
            f"{row['part']} %": "-"
            if pd.isna(row["difference"])
            else with_interval(row, "difference", 100, 1)
            for _, row in own.iterrows()
        }
        for (stage, left, right), own in differences.groupby(["stage", "left", "right"], sort=False)
    ]
    return f"{align(rows)}\n\ndifferences between regions, paired by video\n\n{align(paired)}"
