"""Write and print the quality report of a data set's styles: tables, contact sheet and manifest."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from static_dynamic.assets import versions
from static_dynamic.csv_files import write_csv
from static_dynamic.datasets import ClipList
from static_dynamic.files import atomic_path, json_sha256, write_text
from static_dynamic.stylize.flow import Frame
from static_dynamic.stylize.quality import MEASURES, ORIGINAL, Quality, spread

GOOD, BAD = "black", "#C03000"
FORMATS = {name: "{:.1f}" if name == "colour" else "{:.2f}" for name in MEASURES}
IN_EVERY_DIGEST = {
    "name": "style_quality",
    "about": "how good a stylization is: motion kept, appearance changed, flicker; "
    "table, csv and contact sheet",
    "run": "stylize.quality.run",
}
"""Values that version 0.1 hashed with the options; kept, so that folders keep their names."""


def report_folder(cfg: DictConfig, listing: ClipList) -> Path:
    """Return the report's folder, whose name depends on the data set, the listed clips and the options."""
    if cfg.run_dir:
        return Path(cfg.run_dir)
    options = _options(cfg.task) | IN_EVERY_DIGEST
    identity = [str(listing.root.resolve()), str(listing.normal_root), listing.listing_sha256, options]
    return Path(cfg.save_dir) / "style_quality" / f"{listing.name}-{json_sha256(identity)[:8]}"


def write_report(folder: Path, quality: Quality, listing: ClipList, task: DictConfig) -> None:
    """Write a quality report: tables as csv files, contact sheet, and manifest."""
    tables = {
        "styles": quality.styles.reset_index(),
        "pairs": quality.pairs.reset_index(),
        "clips": pd.DataFrame([row for one in quality.measured for row in one.rows]),
    }
    for name, table in tables.items():
        write_csv(folder / f"{name}.csv", table)
    shown = spread(quality.measured, task.sheet_rows)
    draw_sheet(folder / "contact_sheet.png", quality.styles, [one.pictures for one in shown])
    manifest = {
        "dataset": listing.name,
        "root": str(listing.root),
        "listing_sha256": listing.listing_sha256,
        "task": _options(task),
        "clips": quality.chosen,
        "skipped": [*map(list, listing.skipped), *quality.skipped],
        "versions": versions(),
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def format_report(quality: Quality, listing: ClipList, task: DictConfig) -> str:
    """Format the quality report as text for a terminal."""
    counts = f"{len(quality.measured)} clips, {task.frame_pairs} pairs of frames per clip; medians over clips"
    units = "distances between styles (colour in Lab units, texture in octaves)"
    parts = (f"{listing.name}: {counts}", format_styles(quality.styles), units, format_pairs(quality.pairs))
    return "\n\n".join(parts)


def format_styles(styles: pd.DataFrame) -> str:
    """Format the table of styles, with shortened verdicts, because the log states the verdicts in full."""
    table = styles.copy()
    table["verdict"] = [verdict.partition(" (")[0] for verdict in styles["verdict"]]
    for column, form in FORMATS.items():
        table[column] = [form.format(value) for value in styles[column]]
    return table.reset_index().to_string(index=False)


def format_pairs(pairs: pd.DataFrame) -> str:
    """Format a triangular table of distances between styles; each cell holds colour and texture distance."""
    cells = pd.Series([f"{c:.1f}, {t:.2f}" for c, t in pairs.to_numpy()], index=pairs.index)
    return cells.unstack("b").fillna("").rename_axis(index=None, columns="style").to_string()


def draw_sheet(path: Path, styles: pd.DataFrame, clips: Sequence[dict[int, Frame]]) -> None:
    """Draw the contact sheet: one row per clip, one column per style with the quality measures as title."""
    height, width = next(iter(clips[0].values())).shape[:2]
    size = (2.2 * len(styles), 0.9 + 2.2 * height / width * len(clips))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(clips), len(styles), squeeze=False)
    for line, pictures in zip(axes, clips, strict=True):
        for cell, picture in zip(line, pictures.values(), strict=True):
            cell.imshow(picture)
            cell.set_axis_off()
    for cell, (style, row) in zip(axes[0], styles.iterrows(), strict=True):
        if style == ORIGINAL:
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


def _options(task: DictConfig) -> dict:
    return cast(dict, OmegaConf.to_container(task, resolve=True))
