"""Check estimated variance parts of hand-made encoders and planted units, whose true parts are known.

`BOUNDS` states what the yardsticks' parts must be on each family of scenes, because it follows from how the
yardsticks and the scenes are made. Planted units are a weighted sum of a scene's velocity and of the place of
its shape, so that their motion part is known:

    y[k, s, forward] = sqrt(2 w) velocity_k + sqrt(1 - w) place_k
    y[k, s, altered] =                        sqrt(1 - w) place_k

with standardised velocity and place has the motion part w, if both are uncorrelated. The yardsticks' units
are mixed in the same way, with weights sqrt(w) and sqrt(1 - w).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import first_altered_order

from .altered_orders import columns_of_parts
from .decomposition import PARTS, decompose
from .estimator import UNIT_CLASSES, estimate_pairs
from .kinds import REPLICATES
from .motion_test import draw_pair_signs
from .order_table import OrderTable

# Weights of the motion signal in units that mix motion and layout.
WEIGHTS = tuple(k / 10 for k in range(11))
# `mixing_curves` mixes motion and layout units of the hand-made encoders on this family of scenes.
MIXED_FAMILY = "sprites"
LEVEL = 0.95


@dataclass(frozen=True)
class Bound:
    """Lower and upper limit between which an estimate for one family of rendered scenes must lie."""

    family: str
    stage: str
    number: str  # column of the table
    least: float
    most: float
    reason: str


EXACT = 1e-6
BOUNDS = (
    *(
        Bound(family, stage, "largest_motion", 0, EXACT, "the stage sees single frames")
        for family in ("flow", "dots", "layout", "sprites", "figures")
        for stage in ("colour", "layout", "edges")
    ),
    Bound("flow", "velocity", "motion", 0.8, np.inf, "only motion is the same in all styles"),
    Bound("flow", "velocity", "appearance", -0.05, 0.05, "the texture does not change the velocity"),
    Bound("dots", "velocity", "motion", 0.6, np.inf, "only motion is the same in all styles"),
    Bound("layout", "layout", "content", 0.9, np.inf, "the shape is the same in all styles and orders"),
    Bound("layout", "velocity", "motion", -0.1, 0.1, "nothing moves"),
    Bound("sprites", "layout", "content", 0.8, np.inf, "the shape's path is the same in all orders"),
    Bound("sprites", "velocity", "motion", 0.8, np.inf, "the velocity is the same in all styles"),
    Bound("sprites", "drift", "motion", 0.6, np.inf, "the shape's path has a direction"),
    Bound("figures", "velocity", "motion", 0.6, np.inf, "only motion shows the figure"),
    Bound("figures", "layout", "content", -0.1, 0.1, "no single frame shows the figure"),
    Bound("planted", "mixture", "error", 0, 0.05, "planted units have the motion part w"),
    Bound("planted", "mixture", "smallest_step", 0, np.inf, "more motion never lowers the estimate"),
    Bound("sprites", "mixture", "smallest_step", 0, np.inf, "more motion never lowers the estimate"),
)


def calibrate(store: Store, scenes: pd.DataFrame, n_flips: int, seed: int) -> pd.DataFrame:
    """Estimate variance parts, unit kinds and the paper's unit classes of each stage on each scene family.

    `scenes` has one row of the calibrated data set's truth per video. Returns one row per family and
    stage; ``largest_motion`` is the largest absolute motion part of a unit.
    """
    whole = table_of(store)
    pairs = store.finished_pairs()
    rows = []
    for family, own in scenes.groupby("family", sort=False):
        names = np.sort(own["video"].to_numpy())
        table = whole.of_videos(names)
        rng = np.random.default_rng([seed, 2])
        multipliers = rng.standard_normal((REPLICATES, table.videos))
        signs = draw_pair_signs(table, n_flips, [seed, 2, 1])
        own_pairs = pairs[pairs["cluster"].isin(names)]
        for stage in store.stages:
            activations = store.activations(stage)
            found = decompose(activations, table, multipliers, signs)
            motion = found.units[PARTS.index("motion")]
            columns = columns_of_parts(found, LEVEL)[0]
            classes = paper_classes(activations, own_pairs)
            rows.append(
                {"family": family, "stage": stage, "units": len(motion), "videos": table.videos}
                | {"largest_motion": np.nanmax(np.abs(motion))}
                | columns
                | classes
            )
    return pd.DataFrame(rows)


def table_of(store: Store) -> OrderTable:
    """Tabulate a finished run's views in forward order and in the altered order of its static pairs."""
    table = OrderTable.of_views(store.views, store.status == DONE, first_altered_order(store.views))
    # `table` is not None, because the calibrated data set has views in an altered order
    assert table is not None
    return table


def paper_classes(activations: NDArray, pairs: pd.DataFrame) -> dict[str, float]:
    """Return a stage's dynamic score, static score and number of units per class, estimated from `pairs`."""
    a, b, factor = (pairs[name].to_numpy() for name in ("a", "b", "factor"))
    found = estimate_pairs(activations[a], activations[b], factor)
    counts = {f"units_{name}": int((found.unit_class == name).sum()) for name in UNIT_CLASSES}
    return {"score_dynamic": found.scores[0], "score_static": found.scores[1]} | counts


def mixing_curves(store: Store, scenes: pd.DataFrame) -> pd.DataFrame:
    """Estimate, per weight, the motion part of units that are weighted sums of a motion and a layout signal.

    Returns the columns ``mixture`` (planted, or the family whose yardstick units are mixed), ``weight``,
    ``truth``, and ``motion`` with bounds.
    """
    whole, views = table_of(store), store.views
    planted, measured = (
        whole.of_videos(np.sort(scenes.loc[chosen, "video"].to_numpy()))
        for chosen in (scenes["speed"] > 0, scenes["family"] == MIXED_FAMILY)
    )
    truth = views[["cluster", "order"]].merge(scenes, left_on="cluster", right_on="video", how="left")
    forward = (views["order"] == "forward").to_numpy()[:, None]
    velocity = standardised(truth[["velocity_x", "velocity_y"]].to_numpy(float), planted) * forward
    place = standardised(truth[["x", "y"]].to_numpy(float), planted)
    sources = {
        "planted": (planted, np.sqrt(2) * velocity, place),
        MIXED_FAMILY: (
            measured,
            standardised(store.activations("velocity").astype(float), measured),
            standardised(store.activations("layout").astype(float), measured),
        ),
    }
    rows = []
    for name, (table, motion, content) in sources.items():
        most = 1.0 if name == "planted" else motion_of(table, motion)[0]
        for weight in WEIGHTS:
            mixed = np.sqrt(weight) * motion[:, :, None] + np.sqrt(1 - weight) * content[:, None]
            estimate, low, high = motion_of(table, mixed.reshape(len(mixed), -1))
            rows.append(
                {"mixture": name, "weight": weight, "truth": weight * most}
                | {"motion": estimate, "motion_low": low, "motion_high": high}
            )
    return pd.DataFrame(rows)


def standardised(values: NDArray, table: OrderTable) -> NDArray:
    """Standardise the columns of `values` (views, C) to mean 0 and variance 1 over the views in `table`."""
    # axes: (clip, style) combination, frame order, unit
    kept = values[table.rows[table.kept]]
    return (values - kept.mean((0, 1))) / kept.std((0, 1))


def motion_of(table: OrderTable, units: NDArray) -> tuple[float, float, float]:
    """Return the mean motion part of the units, and its interval bounds. Shape of `units`: (views, C)."""
    nothing = np.zeros((0, table.videos))
    found = decompose(units, table, nothing, draw_pair_signs(table, 0, [0]))
    low, high = found.bounds(found.layer, LEVEL)
    k = PARTS.index("motion")
    return float(found.layer.estimate[k]), float(low[k]), float(high[k])


def check(table: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Compare the estimates with `BOUNDS`; return one row per bound, with column ``holds`` True or False."""
    numbers = table.set_index(["family", "stage"])
    found = dict(mixing_errors(curves))
    rows = []
    for bound in BOUNDS:
        key = (bound.family, bound.stage)
        if bound.stage == "mixture":
            value = found.get((bound.family, bound.number))
        else:
            value = numbers.loc[key, bound.number] if key in numbers.index else None
        # skip bounds of scene families that were not rendered
        if value is not None:
            holds = bound.least <= value <= bound.most
            rows.append({**vars(bound), "estimate": float(value), "holds": bool(holds)})
    return pd.DataFrame(rows)


def mixing_errors(curves: pd.DataFrame) -> Iterator[tuple[tuple[str, str], float]]:
    """For each curve of motion as a function of weight, yield the largest error and the smallest increase."""
    for name, curve in curves.groupby("mixture"):
        yield (str(name), "error"), float((curve["motion"] - curve["truth"]).abs().max())
        yield (str(name), "smallest_step"), float(np.diff(curve["motion"]).min())
