"""Find the units with the largest content, motion or appearance, and the clips that contribute most.

The task is ``task=units``.

A part is a mean of products over pairs of views of a clip (`decomposition.py`), so each clip contributes a
fraction of it. The clips that drive a unit are those with the largest fractions.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import first_altered_order

from .decomposition import BITS
from .kinds import KINDS
from .order_table import OrderTable

COLUMNS = ["kind", "unit", "rank", *BITS, "clip", "part", "side", "row"]


def top_parts(store: Store, units: pd.DataFrame, stage: str, count: int, clips: int) -> pd.DataFrame:
    """Find, per kind, `count` units with the largest part and, per unit, `clips` clips that contribute most.

    The table has one row per unit and clip, and no rows if the run has no parts: part is the clip's fraction
    of the unit's part, side is the clip's mean activation (kind motion: mean of forward minus altered order)
    in standard deviations of the unit, row is the row number of one of the clip's views.
    """
    # raises UserError if the run lacks the stage
    values = store.activations(stage)
    table = OrderTable.of_views(store.views, store.status == DONE, first_altered_order(store.views))
    rows = []
    chosen = units[units["stage"] == stage].set_index("unit")
    if table is None or "kind" not in units:
        return pd.DataFrame(columns=COLUMNS).astype({"row": int})
    for kind in BITS:
        members = chosen[chosen["kind"] == kind]
        for rank, unit in enumerate(members[kind].astype(float).nlargest(count).index, start=1):
            found = fractions_of_clips(values, table, int(unit), kind, store.views)
            about = {"kind": kind, "unit": unit, "rank": rank} | {p: members.loc[unit, p] for p in BITS}
            rows += [about | own for own in found.nlargest(clips, "part").to_dict("records")]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"row": int})


def fractions_of_clips(
    values: NDArray, table: OrderTable, unit: int, part: str, views: pd.DataFrame
) -> pd.DataFrame:
    """Return each clip's fraction of a unit's part, mean activation, and the row number of one view."""
    y = table.read(values, slice(unit, unit + 1))[0][..., 0]  # (K, S, 2)
    kept = table.kept[..., None]
    z = np.where(kept, y - y.sum(0, where=kept) / np.maximum(1, kept.sum(0)), 0)
    own = z.prod(2).sum(1)  # same style, other order
    d = ((z.sum(1) ** 2) - (z**2).sum(1)).sum(1) / 2
    b = z[..., 0].sum(1) * z[..., 1].sum(1) - own
    styles = table.kept.sum(1)
    # `own` has fewer terms (one per clip and style) than `d` and `b` (`pairs` terms), so it is scaled up.
    pairs = (styles * (styles - 1)).sum()
    t = own * pairs / styles.sum()
    fraction = {"content": b, "motion": d - b, "appearance": t - b}[part]
    shown = z[..., 0] - z[..., 1] if part == "motion" else z.mean(2)
    deviation = np.sqrt((z**2).sum() / (2 * styles.sum()))
    row = table.rows[np.arange(len(z)), table.kept.argmax(1), 0]
    return pd.DataFrame(
        {
            "clip": views["clip"].to_numpy()[row],
            "part": fraction / fraction.sum(),
            "side": shown.sum(1) / styles / deviation,
            "row": row,
        }
    )


def kinds_of(units: pd.DataFrame) -> list[dict]:
    """Return, per stage, the number of units of each kind and the number of units that carry motion."""
    rows = []
    for stage, table in units.groupby("stage", sort=False):
        counts = table["kind"].value_counts()
        row = {"stage": stage} | {kind: int(counts.get(kind, 0)) for kind in KINDS}
        rows.append(row | {"carry motion": int(table["carries_motion"].sum())})
    return rows
