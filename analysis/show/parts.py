"""Describe in words a stage's variance parts (content, motion, appearance, residual) and kinds of units."""

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.altered_orders import FURTHER_ORDERS
from static_dynamic.analysis.estimate.decomposition import PARTS
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS, KINDS
from static_dynamic.analysis.show.text import with_interval

OVERLAP = (
    "The paper's two scores overlap: what survives both a new style and an altered frame order, such as "
    "layout, edges and objects, counts as dynamic and as static. The parts count it once, as content: motion "
    "is only what needs the frame order, and appearance is only what needs the style."
)
LIMITS = (
    "Content still holds the motion that does not need the frame order, such as how much moves, and a style "
    "that disturbs motion lowers the motion part. With few videos, intervals are too narrow for units that "
    "are zero in most views, and if a few videos have much larger activations than the others."
)
NEEDED = "they need clips with two styles in both frame orders, as pairs=factorial and pairs=both have them"
# Message if parts are missing in estimates that this version made.
NO_PARTS = f"There are no parts (content, motion, appearance): {NEEDED}."
# Message if parts are missing in a table of stages, which an earlier version may have written.
ABSENT = f"{NO_PARTS[:-1]}, and a run that was estimated with version 0.2.0 or later."


def has_parts(layers: pd.DataFrame | pd.Series) -> bool:
    """Return whether a table of stages, or the row of one stage, has estimates of the parts.

    A stage has no parts if all its units vary in the clips of one video only.
    """
    return "content" in layers and bool(np.any(pd.notna(layers["content"])))


def part_cells(row: pd.Series) -> dict[str, object]:
    """Return one stage's row of the table of parts (%), with intervals and the p-value of motion."""
    cells = {"stage": row["stage"], "units": row["units"]}
    cells |= {f"{part} %": with_interval(row, part, 100, 1) if has_parts(row) else "-" for part in PARTS}
    p = row.get("p_motion")
    cells["p (motion)"] = "-" if pd.isna(p) else f"{p:.3f}"
    for name in (column.name for column in FURTHER_ORDERS.values() if column.name in row):
        cells[f"{name} %"] = "-" if pd.isna(row[name]) else with_interval(row, name, 100, 1)
    return cells


def kind_cells(row: pd.Series) -> dict[str, object]:
    """Return one stage's table row: number of units per kind, and number of units that carry motion."""
    cells = {"stage": row["stage"], "units": row["units"]}
    cells |= {kind: with_interval(row, f"kind_{kind}", 1, 0) for kind in COUNTED_KINDS}
    cells["unknown"] = int(row["kind_unknown"])
    cells["dead"] = int(row["units"] - sum(row[f"kind_{kind}"] for kind in KINDS[:-1]))
    return cells | {"carry motion": int(row["carries_motion"])}


def headline(stage: pd.Series) -> str:
    """Return sentences on one stage: its parts, the test of motion, and whether motion exceeds appearance.

    Whether motion or appearance is larger rests on the interval of their paired difference.
    """
    if not has_parts(stage):
        return f"{stage.name}: no parts, because no unit varies in the clips of more than one video."
    parts = [f"{part} {percent_with_interval(stage, part)}" for part in PARTS]
    text = f"{stage.name}: {', '.join(parts[:-1])} and {parts[-1]} of the units' variance."
    return " ".join(filter(None, (text, motion_sentence(stage), comparison_sentence(stage))))


def percent_with_interval(row: pd.Series, name: str) -> str:
    """Return a part in whole percent with its interval, as in ``41 % (38 to 44)``."""
    text = with_interval(row, name, 100, 0, " % ({} to {})")
    return text if "%" in text else f"{text} %"


def motion_sentence(stage: pd.Series) -> str:
    """Return a sentence on the test of motion; return empty text if there is no p-value."""
    p = stage.get("p_motion")
    if pd.isna(p):
        return ""
    if p <= 0.05:
        return f"The frame order matters (test of motion: p = {p:.3f})."
    return f"The test of motion finds no dependence on the frame order (p = {p:.2f})."


def comparison_sentence(stage: pd.Series) -> str:
    """Say whether motion or appearance is larger at a stage; return empty text if there is no interval."""
    name = "motion_minus_appearance"
    low, high = stage.get(f"{name}_low"), stage.get(f"{name}_high")
    if pd.isna(low) or pd.isna(high):
        return ""
    difference = f"(motion minus appearance: {with_interval(stage, name, 100, 0, ' % [{}, {}]')})"
    if low > 0:
        return f"The stage follows motion more than appearance {difference}."
    if high < 0:
        return f"The stage follows appearance more than motion {difference}."
    return f"These videos do not decide whether the stage follows motion or appearance more {difference}."
