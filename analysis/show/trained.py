"""Draw and print results of ``task=train_calibrated``: parts in training, differences between conditions."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from static_dynamic.analysis.show.figure_style import (
    PAGE,
    draw_band,
    new_panels,
    print_style,
    save,
    stage_ticks,
    title,
)
from static_dynamic.analysis.show.text import align, value_and_bounds, with_interval

# Label, colour, marker and line style of each condition.
STYLES = {
    "velocity": ("velocity", "#D55E00", "o", "-"),
    "layout": ("layout", "#009E73", "D", "--"),
    "texture": ("texture", "#0072B2", "s", ":"),
    "shortcut": ("velocity, shortcut", "#999999", "^", "--"),
    "static_dropout": ("velocity, shortcut, StaticDropout", "#CC79A7", "v", "-"),
}
TARGETS = ("velocity", "layout", "texture")
DEBIASED = ("velocity", "shortcut", "static_dropout")


@print_style
def draw_training(summary: pd.DataFrame, path: Path) -> None:
    """Draw motion and accuracy by stage and training step, with one row of panels per network.

    `summary` is the table of `summarise`; bands are intervals over seeds. The panels show motion by stage at
    the end of the training, motion of the last stage along the training, and motion and accuracy along the
    training with a shortcut, with and without StaticDropout.
    """
    networks = list(summary["network"].unique())
    figure, panels = new_panels(4 * len(networks), 2, (PAGE, 3.8 * len(networks) + 0.3))
    for k, network in enumerate(networks):
        own = summary[summary["network"] == network]
        stages = list(own["stage"].unique())
        end, last = own[own["step"] == own["step"].max()], own[own["stage"] == stages[-1]]
        by_stage, along, debiased, accurate = panels[4 * k : 4 * k + 4]
        draw_curves(by_stage, end, TARGETS, "stage", "motion")
        stage_ticks(by_stage, stages, 2.6)
        by_stage.set(title=f"{network}: after training", ylabel="motion (% of the variance)")
        draw_curves(along, last, TARGETS, "step", "motion")
        along.set(title=f"along training, {stages[-1]}", xlabel="step", ylabel="motion (%)")
        draw_curves(debiased, last, DEBIASED, "step", "motion")
        debiased.set(title=f"shortcut, {stages[-1]}", xlabel="step", ylabel="motion (%)")
        draw_curves(accurate, last, DEBIASED, "step", "accuracy")
        accurate.set(title="accuracy without shortcut", xlabel="step", ylabel="accuracy (%)", ylim=(0, 102))
    for axes in (panels[0], panels[3]):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    seeds = summary["seeds"].max()
    title(figure, f"mean over {seeds} seeds; bands: 95 % intervals over seeds")
    save(figure, path)


def draw_curves(axes: Axes, table: pd.DataFrame, conditions: tuple[str, ...], x: str, number: str) -> None:
    """Draw one curve with interval band, in percent, for each training condition that `table` has."""
    for condition in conditions:
        rows = table[table["condition"] == condition]
        if len(rows):
            label, colour, marker, line = STYLES[condition]
            position = np.arange(len(rows)) if x == "stage" else rows[x]
            style = {"label": label, "color": colour, "marker": marker, "linestyle": line}
            draw_band(axes, position, value_and_bounds(rows, number, 100), **style)
    axes.axhline(0, color="black", linewidth=0.6)


def format_training(summary: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Return text tables of accuracy and motion after training, and of differences between conditions."""
    end = summary[summary["step"] == summary["step"].max()]
    lines = [
        "after training: accuracy (%) on test videos without shortcut, and motion part (%) of each stage;",
        f"means over {end['seeds'].max()} seeds with 95 % intervals over seeds",
    ]
    for network, own in end.groupby("network", sort=False):
        rows = []
        for condition, stages in own.groupby("condition", sort=False):
            cells = {"network": network, "condition": condition}
            cells["accuracy"] = with_interval(stages.iloc[-1], "accuracy", 100, 0)
            cells |= {row["stage"]: with_interval(row, "motion", 100, 0) for _, row in stages.iterrows()}
            rows.append(cells)
        lines += ["", align(rows)]
    rows = [
        {
            "network": row["network"],
            "difference (left - right)": f"{row['left']} - {row['right']}",
            "of": row["number"],
            "stage": row["stage"],
            "%": with_interval(row, "difference", 100, 0),
        }
        for _, row in differences.iterrows()
    ]
    return "\n".join([*lines, *(["", "paired by seed", "", align(rows)] if rows else [])])
