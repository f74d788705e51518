"""Print and draw the effects of ablations of chosen sets of units, compared with those of random sets."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from static_dynamic.analysis.show.figure_style import (
    COLOURS,
    PAGE,
    PART_COLOURS,
    draw_band,
    new_panels,
    print_style,
    save,
    title,
)
from static_dynamic.analysis.show.text import align

# Measure -> heading of tables and figures.
HEADINGS = {
    "divergence": "divergence (bits)",
    "top1_kept": "top-1 kept",
    "accuracy": "accuracy",
    "order_bits": "order (bits)",
    "style_bits": "style (bits)",
    "kept": "mask kept",
    "J": "J",
    "F": "F",
    "mIoU": "mIoU",
    "order_change": "change by flow",
    "style_change": "change by style",
}
# Panels per row of the figure.
COLUMNS = 3


def format_ablation(table: pd.DataFrame) -> str:
    """Return a text table of one stage: the measures with each set ablated, and the random sets' mean.

    A star marks p <= 0.05.
    """
    lines = []
    whole = {"set": "(none)", "units": 0}
    for measure, own in table.groupby("measure", sort=False):
        whole[HEADINGS[str(measure)]] = f"{own['whole'].iloc[0]:.3f}"
    for (name, dose, units), own in table.groupby(["set", "dose", "units"], sort=False):
        cells = {"set": f"{name} ({dose:.3g} %)", "units": units}
        for row in own.itertuples():
            star = "*" if row.p <= 0.05 else ""
            cells[HEADINGS[row.measure]] = f"{row.ablated:.3f}{star} ({row.whole + row.random:.3f})"
        lines.append(cells)
    first = table.iloc[0]
    return (
        f"{first['stage']}: predictions with units replaced by {REPLACED[first['replace']]};\n"
        f"in brackets: mean of {first['random_sets']} random sets of equal size and matched variance;\n"
        "*: p <= 0.05 against them, not corrected for the number of sets; "
        f"{first['videos']} videos\n\n{align([whole, *lines])}"
    )


# Value of the option ``task.replace`` -> description of the values that replace the units' activations.
REPLACED = {
    "mean": "their mean over the data set",
    "zero": "zero",
    "clip": "their maps for a clip of another video",
    "order": "their maps for the other order of the clip",
    "style": "their maps for another style of the clip",
}


@print_style
def draw_ablation(table: pd.DataFrame, path: Path, name: str) -> None:
    """Draw, for each measure, effects of chosen and random sets against the percentage of ablated units.

    Curves are sets with several doses, points are single sets; bars reach over the intervals of the effect
    over videos. Bands and grey bars are the central 95 % of the effects of the random sets.
    """
    measures = list(table["measure"].unique())
    rows = -(-len(measures) // COLUMNS)
    figure, panels = new_panels(len(measures), COLUMNS, (PAGE, 2.0 * rows + 0.5))
    for axes, measure in zip(panels, measures, strict=True):
        own = table[table["measure"] == measure]
        for units, rows_of_set in own.groupby("set", sort=False):
            draw_set(axes, str(units), rows_of_set)
        axes.axhline(0, color="0.6", linewidth=0.8)
        axes.set(title=HEADINGS[measure], xscale="log", xlabel="ablated units (%)")
    panels[0].set_ylabel("change of the measure")
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False)
    first = table.iloc[0]
    title(
        figure,
        f"{name}, {first['stage']}, units replaced by {REPLACED[first['replace']]}\n"
        f"bars: 95 % intervals over {first['videos']} videos; shaded: {first['random_sets']} random sets of "
        "equal size and matched variance",
    )
    save(figure, path)


def draw_set(axes: Axes, name: str, table: pd.DataFrame) -> None:
    """Draw the effects of one set for each percentage of ablated units, and the band of its random sets."""
    colour = (COLOURS | PART_COLOURS).get(name.rpartition(" ")[2], "0.3")
    x = np.maximum(table["dose"].to_numpy(float), 1e-2)
    effect = table["effect"].to_numpy()
    low, high = (np.abs(table[f"effect_{end}"].to_numpy() - effect) for end in ("low", "high"))
    bars = np.nan_to_num(np.stack([low, high]))
    several = len(table) > 1
    marker = "o-" if several else {"kind": "s", "class": "^"}.get(name.partition(" ")[0], "D")
    axes.errorbar(x, effect, bars, fmt=marker, label=name, color=colour, capsize=2)
    band = table[["random", "random_low", "random_high"]].to_numpy(float)
    if several:
        draw_band(axes, x, band.T, color=colour, linestyle=":", linewidth=0.8)
    else:
        axes.vlines(x, band[:, 1], band[:, 2], color="0.5", linewidth=5, alpha=0.4)
