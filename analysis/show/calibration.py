"""Draw and print the calibration: variance parts of hand-made encoders on scenes with known motion."""

from pathlib import Path

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.calibration import MIXED_FAMILY
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS
from static_dynamic.analysis.show.figure_style import PAGE, PART_COLOURS, new_panels, print_style, save
from static_dynamic.analysis.show.parts import part_cells
from static_dynamic.analysis.show.strips import read_frames
from static_dynamic.analysis.show.text import align
from static_dynamic.datasets.calibrated import STYLES

# Family of rendered scenes -> what is the same in all styles of a video.
SHARED = {
    "flow": "velocity of the whole frame",
    "dots": "velocity and coherence of dots",
    "layout": "place and kind of a still shape",
    "sprites": "path, velocity and kind of a shape",
    "figures": "velocity; shape that only motion shows",
}
HATCHES = {"content": "xx", "motion": "//", "appearance": "..", "residual": ""}
CURVES = {
    "planted": ("planted units", "o", "-", "black"),
    MIXED_FAMILY: ("velocity and layout, mixed", "s", "--", "#D55E00"),
}


@print_style
def draw_calibration(table: pd.DataFrame, curves: pd.DataFrame, path: Path) -> None:
    """Draw each encoder's parts as stacked bars (one panel per family), and the motion of mixed units."""
    families = list(dict.fromkeys(table["family"]))
    figure, panels = new_panels(len(families) + 1, 3, (PAGE, 4.6))
    for axes, family in zip(panels, families, strict=False):
        rows = table[table["family"] == family].iloc[::-1]
        y = np.arange(len(rows))
        # ends of the stacked bars below and above 0
        ends = np.zeros((2, len(rows)))
        for part in PARTS:
            values = 100 * rows[part].to_numpy()
            left = np.where(values < 0, *ends)
            axes.barh(
                *(y, values),
                left=left,
                color=PART_COLOURS[part],
                hatch=HATCHES[part],
                edgecolor="white",
                label=part,
            )
            ends += np.stack([np.minimum(values, 0), np.maximum(values, 0)])
        axes.set_yticks(y, rows["stage"])
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set(title=f"{family}\n{SHARED[family]}", xlabel="part of the variance (%)")
    limits = np.array([axes.get_xlim() for axes in panels[:-1]])
    for axes in panels[:-1]:
        axes.set_xlim(limits[:, 0].min(), limits[:, 1].max())
    for name, curve in curves.groupby("mixture"):
        label, marker, line, colour = CURVES[str(name)]
        low, high = curve["motion_low"], curve["motion_high"]
        panels[-1].fill_between(curve["weight"], low, high, color=colour, alpha=0.15, linewidth=0)
        panels[-1].plot(curve["weight"], curve["motion"], marker + line, color=colour, label=label)
    panels[-1].plot([0, 1], [0, 1], ":", color="#777777", label="truth")
    panels[-1].set(title="units that mix motion and content", xlabel="weight of motion", ylabel="motion part")
    panels[-1].set_ylim(top=1.5)
    panels[-1].legend(frameon=False, loc="upper left")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PARTS), frameon=False)
    save(figure, path)


@print_style
def draw_scenes(root: Path, scenes: pd.DataFrame, path: Path) -> None:
    """Draw two frames of one video per family of rendered scenes, in each style."""
    chosen = scenes.groupby("family", sort=False).nth(1)
    frames = len(list((root / f"style_{STYLES[0]}" / chosen["video"].iloc[0]).iterdir()))
    figure, panels = new_panels(len(chosen), 1, (PAGE, 0.95 * len(chosen) + 0.3))
    for axes, (_, scene) in zip(panels, chosen.iterrows(), strict=True):
        strips = [read_frames(root, style, scene["video"], [0, frames // 2]) for style in STYLES]
        gap = np.full((strips[0].shape[1], 3, 3), 255, np.uint8)
        pictures = [part for strip in strips for part in (*strip, gap)]
        axes.imshow(np.concatenate(pictures[:-1], axis=1), interpolation="nearest")
        axes.set_ylabel(scene["family"], rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    panels[0].set_title(f"first and middle frame in styles {', '.join(map(str, STYLES))}")
    save(figure, path)


def format_calibration(table: pd.DataFrame, checked: pd.DataFrame) -> str:
    """Return text tables of each encoder's parts, unit kinds and unit classes, and list violated bounds."""
    parts, kinds = [], []
    for _, row in table.iterrows():
        parts.append({"scenes": row["family"], **part_cells(row)})
        numbers = {name: int(row[f"kind_{name}"]) for name in COUNTED_KINDS}
        classes = {f"paper: {name}": int(row[f"units_{name}"]) for name in UNIT_CLASSES if name != "dead"}
        kinds.append(
            {"scenes": row["family"], "stage": row["stage"], "units": row["units"], **numbers, **classes}
        )
    lines = [
        "parts of the yardsticks' variance on scenes whose motion is known",
        *("", align(parts), ""),
        "numbers of units by kind, and by the paper's classes (the paper's scores count content twice: units",
        "of layout that see single frames are joint)",
        *("", align(kinds), ""),
        f"{checked['holds'].sum()} of {len(checked)} bounds hold",
    ]
    for bound in checked[~checked["holds"]].itertuples():
        lines.append(
            f"BROKEN: {bound.number} of {bound.stage} on {bound.family} is {bound.estimate:.3f}, not between "
            f"{bound.least:g} and {bound.most:g} ({bound.reason})"
        )
    return "\n".join(lines)
