"""The quality card as text and as a contact sheet: one row a clip, one column a style."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from static_dynamic.files import atomic_path
from static_dynamic.stylize.measures import Frame

GOOD, BAD = "black", "#C03000"


def format_styles(styles: pd.DataFrame) -> str:
    """The table of styles for a terminal; the verdict in short, since warnings say it in full."""
    table = styles.copy()
    table["verdict"] = [verdict.partition(" (")[0] for verdict in styles["verdict"]]
    formats = {
        "motion": "{:.2f}",
        "flicker": "{:.2f}",
        "contrast": "{:.2f}",
        "colour": "{:.1f}",
        "texture": "{:.2f}",
    }
    for column, form in formats.items():
        table[column] = [form.format(value) for value in styles[column]]
    return table.reset_index().to_string(index=False)


def format_pairs(pairs: pd.DataFrame) -> str:
    """A triangle of distances for a terminal: colour, texture."""
    cells = pd.Series([f"{c:.1f}, {t:.2f}" for c, t in pairs.to_numpy()], index=pairs.index)
    return cells.unstack("b").fillna("").rename_axis(index=None, columns="style").to_string()


def draw_sheet(path: Path, styles: pd.DataFrame, clips: Sequence[dict[int, Frame]]) -> None:
    """Draw one frame of each clip as it was and in every style, with the measures above."""
    height, width = next(iter(clips[0].values())).shape[:2]
    columns, rows = len(styles), len(clips)
    size = (2.2 * columns, 0.9 + 2.2 * height / width * rows)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for line, pictures in zip(axes, clips, strict=True):
        for cell, picture in zip(line, pictures.values(), strict=True):
            cell.imshow(picture)
            cell.set_axis_off()
    for cell, (style, row) in zip(axes[0], styles.iterrows(), strict=True):
        if style == 0:
            cell.set_title("original", fontsize=8)
            continue
        verdict = textwrap.shorten(row["verdict"].partition(" (")[0], 34, placeholder=" ...")
        cell.set_title(
            f"style {style}: {verdict}\nmotion {row['motion']:.2f}, flicker {row['flicker']:.2f}\n"
            f"colour {row['colour']:.0f}, texture {row['texture']:.2f}",
            fontsize=7,
            color=GOOD if row["verdict"] == "good" else BAD,
        )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100, metadata={"Software": None})
