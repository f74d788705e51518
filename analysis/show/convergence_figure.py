"""Figure of the scores as a function of the number of videos."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from static_dynamic.analysis.estimate.estimator import MEASURED
from static_dynamic.analysis.show.figures import COLOURS, MARKERS, draw_band, label_panels, save, stage_panels
from static_dynamic.analysis.show.text import value_and_bounds


def draw_convergence(table: pd.DataFrame, path: Path) -> None:
    """Draw both scores of each stage against the number of videos, with 95 % bands."""
    figure, panels = stage_panels(table, sharey=True)
    sizes = sorted(table["clusters"].unique())
    for axes, stage, part in panels:
        for factor in MEASURED:
            style = {"color": COLOURS[factor], "marker": MARKERS[factor], "markersize": 4, "label": factor}
            draw_band(axes, part["clusters"], value_and_bounds(part, f"score_{factor}"), **style)
        axes.set(title=stage, xscale="log", ylim=(-1, 1.1))
        axes.set_xticks(sizes[::2], [str(size) for size in sizes[::2]])
        axes.minorticks_off()
    label_panels(figure, "videos", "score", "Scores by number of videos (bands: 95 % intervals)")
    save(figure, path)
