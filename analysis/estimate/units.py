"""Classify a finished run's units at all thresholds, and find the highest-scoring units (``task=units``).

    thresholds.csv, .png    number of units of each class at every threshold
    histograms.png          unit scores of each stage
    top_units.csv, .jpg     highest-scoring units of each class, and frames of the clips that drive them

A unit score is a mean over pairs of (za - m)(zb - m) / v, so each clip contributes a part of it. The clips
that drive a unit are those with the largest parts, whether the unit is above or below its mean for the clip.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import Store

from .estimator import MEASURED, UNIT_CLASSES, classify

# Factors (0 dynamic, 1 static) by whose scores the units of each class are ranked.
DRIVEN_BY = {"dynamic": (0,), "static": (1,), "joint": (0, 1)}
# How the columns part, side and row of `top_units` are aggregated over the pairs of a clip.
TOTALS = {"part": "sum", "side": "mean", "row": "first"}


def counts_at(units: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Count the units of each unit class (dynamic, static, ...) per stage, at one score threshold."""
    index = classify(units["score_dynamic"].to_numpy(), units["score_static"].to_numpy(), threshold)
    named = units[["stage"]].assign(named=pd.Categorical.from_codes(index, UNIT_CLASSES))
    counts = named.groupby("stage", sort=False)["named"].value_counts().unstack(fill_value=0)
    return counts.reindex(columns=list(UNIT_CLASSES), fill_value=0).rename_axis(columns=None)


def sweep_thresholds(units: pd.DataFrame, thresholds: Iterable[float]) -> pd.DataFrame:
    """Count the units of each unit class per stage and score threshold; one column per unit class."""
    parts = [counts_at(units, t).reset_index().assign(threshold=t) for t in thresholds]
    table = pd.concat(parts, ignore_index=True)
    depth = {stage: k for k, stage in enumerate(units["stage"].unique())}
    table = table.sort_values(["stage", "threshold"], key=lambda c: c.map(depth) if c.name == "stage" else c)
    return table[["stage", "threshold", *UNIT_CLASSES]].reset_index(drop=True)


def top_units(
    store: Store, units: pd.DataFrame, stage: str, threshold: float, count: int, clips: int
) -> pd.DataFrame:
    """Find, per class, `count` top-scoring units and, per unit, `clips` clips that contribute most.

    Joint units are ranked by the lower of their two scores. The table has one row per unit and clip: part is
    the clip's fraction of the score (joint units: of the sum of both scores), side the clip's mean activation
    in standard deviations of the unit, row the row number of one of the clip's views.
    """
    # raises UserError if the run lacks the stage
    values = store.activations(stage)
    pairs = store.finished_pairs()
    chosen = units[units["stage"] == stage].set_index("unit")
    index = classify(chosen["score_dynamic"].to_numpy(), chosen["score_static"].to_numpy(), threshold)
    rows = []
    for name, drivers in DRIVEN_BY.items():
        members = chosen[index == UNIT_CLASSES.index(name)]
        score = members[[f"score_{MEASURED[f]}" for f in drivers]].min(axis=1)
        for rank, unit in enumerate(score.nlargest(count).index, start=1):
            z = values[:, unit].astype(np.float64)
            parts = pd.concat([parts_of_clips(z, pairs[pairs["factor"] == f]) for f in drivers])
            parts = parts.groupby("clip", sort=False).agg(TOTALS)
            parts["part"] /= parts["part"].sum()
            about = {"class": name, "unit": unit, "rank": rank}
            about |= {f"score_{f}": members.loc[unit, f"score_{f}"] for f in MEASURED}
            driving = parts.nlargest(clips, "part")
            rows += [about | {"clip": clip, **found} for clip, found in driving.iterrows()]
    columns = ["class", "unit", "rank", "score_dynamic", "score_static", "clip", "part", "side", "row"]
    return pd.DataFrame(rows, columns=columns).astype({"row": int})


def parts_of_clips(z: NDArray, pairs: pd.DataFrame) -> pd.DataFrame:
    """For one factor, return the contribution of each clip to the score of a unit with activations `z`."""
    za, zb = z[pairs["a"]], z[pairs["b"]]
    both = np.concatenate([za, zb])
    mean, variance = both.mean(), both.var()
    table = pairs[["clip"]].assign(
        part=(za - mean) * (zb - mean) / (variance * len(pairs)),
        side=((za + zb) / 2 - mean) / np.sqrt(variance),
        row=pairs["a"],
    )
    return table.groupby("clip", sort=False, as_index=False).agg(TOTALS)
