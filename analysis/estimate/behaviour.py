"""Measure how class predictions change under a new style and under altered frame orders.

The class probabilities p of a view are the softmax of its class scores. Two views of one clip are compared:

    top1_kept   share of comparisons in which the class with the largest score stays the same
    js_bits     Jensen-Shannon divergence of the class probabilities p and q, from 0 to 1 bit:
                H((p + q) / 2) - (H(p) + H(q)) / 2, where H is the entropy in bits
    accuracy    share of views whose class with the largest score is the label of the clip
    contrasted  share of clips that are right with the moving foreground on a new background, and wrong with
                one frame of it there

A new style compares every two styles of a clip, both in the order ``forward``. An altered order compares the
altered and the forward view of one style. Values are averaged over the styles of a clip, then over clips.

The standard error comes from a jackknife that leaves out one video at a time, and t is Student's quantile
with `degrees_of_freedom`. The interval of the divergence is the mean -+ t * standard error, cut at 0 and at 1
bit. A share s near 0 or 1 has a skewed distribution, so its interval is Wilson's: all x with

    (s - x)^2 <= t^2 x (1 - x) / n        n = s (1 - s) / standard error^2, at most the number of comparisons

If all videos have the same share, the standard error is 0, and n is the number of videos.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import rel_entr

from static_dynamic.analysis.run.manifest import LOGITS
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import ALTERED_ORDERS, FORWARD, SWAPPED
from static_dynamic.errors import UserError

from .intervals import with_bounds
from .jackknife import degrees_of_freedom, jackknife, student_quantile

# The table column ``change`` holds one of these values, or the name of an altered frame order. The row
# CONTRASTED has the contrasted accuracy of Li et al. (2023).
NO_CHANGE, NEW_STYLE, CONTRASTED = "none", "new style", "contrasted"
CLIP = ["cluster", "clip"]
# Class probabilities are computed in blocks of this many numbers, to limit memory.
NUMBERS = 2**22
# Standard errors below this value are rounding error and count as 0.
ROUNDING = 1e-12


def estimate_behaviour(run_dir: str | Path, *, level: float = 0.95) -> pd.DataFrame:
    """Estimate how a finished run's class predictions change under a new style and altered frame orders.

    The table has one row per change. The row ``none`` holds the accuracy of forward views. Where labels are
    not known, this row is missing and the accuracy is NaN. Bounds are NaN if all clips are of one video.
    Raises UserError if the run has no class scores.
    """
    store = Store.open(run_dir)
    store.require_finished()
    if LOGITS not in store.names:
        raise UserError(f"{store.path} has no class scores ({why_no_scores(store)}): give another run")
    views = predictions(store)
    forward = views[views["order"] == FORWARD]
    styles = forward.merge(forward, on=CLIP)
    rows = [
        {"change": NO_CHANGE, **counts_of(forward), **accuracy_columns(forward, level)},
        comparison_columns(store, NEW_STYLE, styles[styles["style_x"] < styles["style_y"]], level),
    ]
    for order in sorted(set(views["order"]) - {FORWARD}, key=ALTERED_ORDERS.index):
        altered = views[views["order"] == order]
        compared = comparison_columns(store, order, forward.merge(altered, on=[*CLIP, "style"]), level)
        rows.append(compared | accuracy_columns(altered, level))
    if set(SWAPPED) <= set(views["order"]):
        contrasted = contrast(*(views[views["order"] == order] for order in SWAPPED))
        rows.append({"change": CONTRASTED, **counts_of(contrasted), **accuracy_columns(contrasted, level)})
    of_labels = (NO_CHANGE, CONTRASTED)
    kept = [row["labelled_clips"] if row["change"] in of_labels else row["clips"] for row in rows]
    table = pd.DataFrame(rows, columns=list(rows[1] | accuracy_columns(forward, level)))
    table["labelled_clips"] = table["labelled_clips"].fillna(0).astype(int)
    return table[np.array(kept) > 0].reset_index(drop=True)


def why_no_scores(store: Store) -> str:
    """Return the reason why a run has no class scores."""
    entry = store.manifest.get("class_scores")
    return entry["reason"] if entry else "an earlier version of this program began the run"


def predictions(store: Store) -> pd.DataFrame:
    """Return a table of the views with valid class scores: row number, top-1 class, whether it is correct.

    Scores that are NaN, or all minus infinity, are not valid. ``right`` is NaN where the label is not known.
    """
    scores = store.activations(LOGITS)
    views = store.views[["cluster", "clip", "style", "order", "label"]].assign(row=np.arange(len(scores)))
    views = views[store.status == DONE]
    valid, top = np.empty(len(views), bool), np.empty(len(views), np.int64)
    for block in blocks(len(views), scores.shape[1]):
        of_block = scores[views["row"].to_numpy()[block]]
        valid[block] = ~np.isnan(of_block).any(1) & (of_block > -np.inf).any(1)
        top[block] = np.nan_to_num(of_block, nan=-np.inf, posinf=np.inf, neginf=-np.inf).argmax(1)
    known = (views["label"] >= 0) & store.manifest["class_scores"]["labelled"]
    views = views.assign(top=top, right=np.where(known, views["label"] == top, np.nan))
    return views[valid].drop(columns="label")


def comparison_columns(store: Store, change: str, compared: pd.DataFrame, level: float) -> dict:
    """Return the table columns of one change (for example a new style), computed from pairs of views."""
    same = (compared["top_x"] == compared["top_y"]).to_numpy(float)
    rows = compared["row_x"].to_numpy(), compared["row_y"].to_numpy()
    bits = divergences(store.activations(LOGITS), *rows)
    return {
        "change": change,
        **counts_of(compared),
        **with_bounds("top1_kept", *share_and_bounds(compared, same, level)),
        **with_bounds("js_bits", *mean_and_bounds(compared, bits, level)),
    }


def accuracy_columns(views: pd.DataFrame, level: float) -> dict:
    """Return accuracy, interval and number of clips, computed from the views whose label is known."""
    known = views[views["right"].notna()]
    found = share_and_bounds(known, known["right"].to_numpy(), level)
    return {"labelled_clips": counts_of(known)["clips"], **with_bounds("accuracy", *found)}


def contrast(moving: pd.DataFrame, frozen: pd.DataFrame) -> pd.DataFrame:
    """Count a view as right if its class is right with the moving foreground, and wrong with the frozen one.

    The mean is the contrasted accuracy: how often a network needs the motion of the foreground to be right.
    """
    both = moving.merge(frozen[[*CLIP, "style", "right"]], on=[*CLIP, "style"], suffixes=("", "_frozen"))
    known = both["right"].notna()
    return both.assign(right=np.where(known, (both["right"] == 1) & (both["right_frozen"] == 0), np.nan))


def counts_of(table: pd.DataFrame) -> dict:
    """Return the numbers of distinct clips and videos in `table`."""
    return {"clips": len(table[CLIP].drop_duplicates()), "videos": table["cluster"].nunique()}


def divergences(scores: NDArray, a: NDArray, b: NDArray) -> NDArray:
    """Return, for each i, the Jensen-Shannon divergence (bits) of class probabilities in rows a[i], b[i]."""
    bits = np.empty(len(a))
    for block in blocks(len(a), scores.shape[1]):
        p, q = (probabilities(scores[rows[block]]) for rows in (a, b))
        middle = (p + q) / 2
        bits[block] = (rel_entr(p, middle) + rel_entr(q, middle)).sum(1) / (2 * np.log(2))
    return np.clip(bits, 0, 1)


def probabilities(scores: NDArray) -> NDArray:
    """Return class probabilities in float64: the softmax of `scores`. Both shapes: (views, classes).

    Classes with the score infinity have equal probabilities that add up to 1.
    """
    scores = scores.astype(np.float64)
    top = scores.max(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shifted = np.where(np.isposinf(top), np.where(scores == top, 0.0, -np.inf), scores - top)
    weights = np.exp(shifted)
    return weights / weights.sum(1, keepdims=True)


def mean_and_bounds(table: pd.DataFrame, values: NDArray, level: float) -> tuple[float, float, float]:
    """Average `values` over clips; return the mean and its confidence bounds.

    `values` has one number from 0 to 1 per row of `table`.
    """
    mean, error, t, _ = mean_over_clips(table, values, level)
    low, high = np.clip([mean - t * error, mean + t * error], 0, 1)
    return mean, low, high


def share_and_bounds(table: pd.DataFrame, values: NDArray, level: float) -> tuple[float, float, float]:
    """Average `values` over clips; return the mean and the bounds of Wilson's interval.

    `values` has one number, 0 or 1, per row of `table`.
    """
    share, error, t, videos = mean_over_clips(table, values, level)
    if np.isnan(t):
        return share, np.nan, np.nan
    n = videos if error < ROUNDING else min(len(values), share * (1 - share) / error**2)
    centre = share + t**2 / (2 * n)
    half = t * np.sqrt(share * (1 - share) / n + t**2 / (4 * n**2))
    low, high = np.clip(np.array([centre - half, centre + half]) / (1 + t**2 / n), 0, 1)
    return share, low, high


def mean_over_clips(table: pd.DataFrame, values: NDArray, level: float) -> tuple[float, float, float, int]:
    """Return the mean of `values` over clips, its standard error, Student's quantile, the number of videos.

    The values of the rows of one clip are averaged first. With one video, error and quantile are NaN.
    """
    if not len(table):
        return np.nan, np.nan, np.nan, 0
    clips = table[CLIP].assign(value=values).groupby(CLIP)["value"].mean()
    videos = clips.groupby("cluster").agg(["sum", "count"])
    total, count = videos["sum"].to_numpy(), videos["count"].to_numpy()
    whole = float(np.clip(total.sum() / count.sum(), 0, 1))
    if len(videos) < 2:
        return whole, np.nan, np.nan, 1
    found = jackknife(np.asarray(whole), (total.sum() - total) / (count.sum() - count))
    error = float(found.error)
    df = degrees_of_freedom(found.deviation) if error > ROUNDING else len(videos) - 1
    return whole, error, float(student_quantile(level, df)), len(videos)


def blocks(rows: int, columns: int) -> list[slice]:
    """Return slices of the rows of a matrix of shape (`rows`, `columns`), each small enough for memory."""
    size = max(1, NUMBERS // max(1, columns))
    return [slice(start, start + size) for start in range(0, rows, size)]
