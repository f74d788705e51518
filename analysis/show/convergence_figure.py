"""Figure of how estimates settle with the number of videos."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from static_dynamic.analysis.estimate.bootstrap import MEASURED
from static_dynamic.analysis.show.figures import COLOURS, MARKERS, save

COLUMNS = 5


def draw_convergence(table: pd.DataFrame, path: Path) -> None:
    """Draw both scores of each stage against the number of videos, with bands."""
    groups = list(table.groupby("stage", sort=False))
    columns = min(COLUMNS, len(groups))
    lines = -(-len(groups) // columns)
    figure = Figure(figsize=(max(5.0, 2.5 * columns), 0.9 + 2.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat
    sizes = sorted(table["clusters"].unique())
    for axes in panels[len(groups) :]:
        axes.remove()
    for axes, (stage, found) in zip(panels, groups, strict=False):
        for factor in MEASURED:
            point, low, high = (found[f"score_{factor}{part}"] for part in ("", "_low", "_high"))
            style = {"color": COLOURS[factor], "marker": MARKERS[factor], "markersize": 4, "label": factor}
            axes.plot(found["clusters"], point, **style)
            axes.fill_between(found["clusters"], low, high, color=COLOURS[factor], alpha=0.2, linewidth=0)
        axes.set(title=stage, xscale="log", ylim=(-1, 1.1))
        axes.set_xticks(sizes[::2], [str(size) for size in sizes[::2]])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("videos", fontsize=10)
    figure.supylabel("score", fontsize=10)
    figure.suptitle("Scores from more and more videos (bands: 95 % intervals)", fontsize=11)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside right upper")
    save(figure, path)
