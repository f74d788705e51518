"""Text tables of the stages of a run: the identified parts first, then the paper's scores and classes."""

from textwrap import fill

import pandas as pd

from static_dynamic.analysis.estimate.estimator import FACTORS, UNIT_CLASSES
from static_dynamic.analysis.show.parts import ABSENT, LIMITS, OVERLAP, has_parts, kind_cells, part_cells
from static_dynamic.analysis.show.text import align, with_interval

# A note warns if the effective number of videos is below FEWEST_EFFECTIVE, or below LEAST_EFFECTIVE times the
# number of all videos.
FEWEST_EFFECTIVE, LEAST_EFFECTIVE = 10, 0.5
# Notes in a terminal are wrapped at this number of characters.
NOTE_WIDTH = 100


def format_layers(layers: pd.DataFrame, title: str) -> str:
    """Return text tables with a row per stage: parts, units of each kind, the paper's scores and classes."""
    first = layers.iloc[0]
    pairs = f"{first['pairs_dynamic']} dynamic and {first['pairs_static']} static pairs"
    intervals = "no intervals: they need at least two videos"
    if first["clusters"] > 1:
        intervals = f"95 % intervals: for the choice of the {first['clusters']} videos"
    rows = [row for _, row in layers.iterrows()]
    blocks = [f"{title}: {first['clips']} clips, {pairs}\n{intervals}"]
    if has_parts(layers):
        blocks += ["parts of the units' variance (mean over units)", align([part_cells(row) for row in rows])]
        blocks += ["units by kind", align([kind_cells(row) for row in rows])]
    blocks += ["the paper's scores and shares", align([layer_cells(row) for row in rows])]
    blocks += [f"the paper's classes of units (threshold of the unit score: {first['threshold']})"]
    blocks += [align([class_cells(row) | effective_cells(row) for row in rows])]
    notes = [OVERLAP, LIMITS] if has_parts(layers) else [ABSENT]
    return "\n\n".join([*blocks, *(fill(note, NOTE_WIDTH) for note in [*notes, *stage_notes(layers)])])


def layer_cells(row: pd.Series) -> dict[str, object]:
    """Return one stage's row of the table of results, with scores, shares (%) and intervals."""
    cells = {"stage": row["stage"], "units": row["units"]}
    cells |= {f"{f} score": with_interval(row, f"score_{f}", 1, 3) for f in FACTORS[:2]}
    return cells | {f"{f} %": with_interval(row, f"share_{f}", 100, 1) for f in FACTORS}


def class_cells(row: pd.Series) -> dict[str, object]:
    """Return one stage's row of the table of unit classes, with the number of units per unit class."""
    counts = {c: with_interval(row, f"units_{c}", 1, 0) for c in UNIT_CLASSES}
    return {"stage": row["stage"], "units": row["units"]} | counts


def effective_cells(row: pd.Series) -> dict[str, str]:
    """Return the effective numbers of videos and units of a stage; empty for a run of version 0.1.0."""
    names = ("effective_videos", "effective_units")
    return {name.replace("_", " "): f"{row[name]:.1f}" for name in names if name in row}


def stage_notes(layers: pd.DataFrame) -> list[str]:
    """Return warnings about stages whose scores depend on few videos, and about units without intervals.

    The list is empty if there are neither, if all clips are of one video, or in runs of version 0.1.0.
    """
    if "effective_videos" not in layers or layers["clusters"].iloc[0] < 2:
        return []
    videos = layers["clusters"].iloc[0]
    few = layers[layers["effective_videos"] < max(FEWEST_EFFECTIVE, LEAST_EFFECTIVE * videos)]
    unknown = layers[layers["units_few_videos"] > 0]
    found = {
        f"Stages whose scores rest on few of the {videos} videos (in brackets: effective videos)": [
            f"{row['stage']} ({row['effective_videos']:.1f})" for _, row in few.iterrows()
        ],
        "Units without interval, because their variance rests on fewer than three videos": [
            f"{row['units_few_videos']} of {row['units']} in {row['stage']}" for _, row in unknown.iterrows()
        ],
    }
    return [f"{about}: {', '.join(stages)}." for about, stages in found.items() if stages]
