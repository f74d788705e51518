"""Decompose each unit's variance into effects of video, style and frame order, and their interactions.

Factorial views give each unit a balanced table y[video, style, order] with one value per cell. All effects
are random. The expected mean squares (MS) are solved for the variance components (Searle, Casella &
McCulloch, "Variance Components", ch. 4; K videos, S styles, O = 2 orders):

    E MS_vso = v_vso                            E MS_vs = v_vso + O v_vs
    E MS_vo  = v_vso + S v_vo                   E MS_so = v_vso + K v_so
    E MS_v   = v_vso + O v_vs + S v_vo + S O v_v
    E MS_s   = v_vso + O v_vs + K v_so + K O v_s
    E MS_o   = v_vso + S v_vo + K v_so + K S v_o

Estimates are unbiased, and may be negative for components near zero. Every mean square is a function of sums
over videos, so the jackknife over videos (`jackknife.py`) needs no bootstrap. Intervals always contain their
estimate:

    share of a stage      estimate  -+  t(K - 1) * standard error
    component of a unit   The component is a weighted sum of mean squares. The interval of each mean square is
                          that of its logarithm, since mean squares are skewed. The distances from the mean
                          squares to the ends of their intervals are combined like standard errors, with the
                          correlations of the mean squares (MOVER; Zou & Donner 2008).
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import FORWARD, first_altered_order
from static_dynamic.errors import UserError

from .constant import settle
from .intervals import with_bounds
from .jackknife import effective_number, jackknife, student_quantile
from .pairs import not_finite
from .tables import RunEstimate
from .unit_intervals import DF_PER_VIDEO, FEWEST_VIDEOS

COMPONENTS = ("video", "style", "order", "video:style", "video:order", "style:order", "video:style:order")
# To limit memory, this many units are decomposed at a time.
UNITS_AT_A_TIME = 256
# If an effect's mean square is below this fraction of the largest mean square, the unit lacks the effect.
CANCELLATION = 1e-12


def estimate_variance(run_dir: str | Path, *, level: float = 0.95, progress: bool = False) -> RunEstimate:
    """Decompose each stage's variance in a run with pairs=factorial, with intervals by a jackknife.

    ``layers`` has one row per stage and component, ``units`` one row per unit and component. Raises UserError
    if the run is not factorial, if fewer than two clips have all views, or if an activation is not finite.
    """
    store = Store.open(run_dir)
    store.require_finished()
    rows, clusters = complete_table(store)
    tables = {}
    for stage in tqdm(store.stages, desc="variance", unit="stage", disable=None if progress else True):
        found = decompose_stage(store.activations(stage), rows, clusters, level)
        if not np.isfinite(found[1]["variance"]).all():
            raise not_finite(store, stage)
        tables[stage] = found
    return RunEstimate.join(store, tables)


def complete_table(store: Store) -> tuple[NDArray, NDArray]:
    """Return, for the clips that have all views, row numbers (clips, styles, orders) and cluster indices."""
    views = store.views.assign(row=np.arange(len(store.status)))
    views = views[(store.status == DONE) & views["order"].isin((FORWARD, first_altered_order(views)))]
    table = views.pivot(index=["cluster", "clip"], columns=["style", "order"], values="row").dropna()
    styles = views["style"].nunique()
    if table.shape[1] != 2 * styles or styles < 2:
        raise UserError(
            f"{store.path}: variances need every style in both frame orders: run with pairs=factorial"
        )
    if len(table) < 2:
        raise UserError(
            f"{store.path}: variances need two clips that have all views, not {len(table)}: use more clips"
        )
    table = table.sort_index(axis=1)
    clusters = np.unique(table.index.get_level_values("cluster"), return_inverse=True)[1]
    return table.to_numpy(dtype=np.int64).reshape(len(table), styles, 2), clusters


def decompose_stage(
    values: NDArray, rows: NDArray, clusters: NDArray, level: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decompose the variance of one stage; return one table of the stage, and one table of its units."""
    # `levels`: number of styles and number of orders
    units, levels = values.shape[1], rows.shape[1:]
    n_clusters = int(clusters.max()) + 1
    per_unit = []
    total, left_out = np.zeros(len(COMPONENTS)), np.zeros((n_clusters, len(COMPONENTS)))
    for start in range(0, units, UNITS_AT_A_TIME):
        block = values[:, start : start + UNITS_AT_A_TIME][rows].astype(np.float64)  # (clips, S, O, block)
        settle(block)
        # Subtracting one activation from each unit lessens the rounding error of squares.
        block -= block[0, 0, 0].copy()
        terms = table_sums(block)
        # axes: cluster, term of `table_sums`, unit
        sums = np.zeros((n_clusters, *terms.shape[1:]))
        np.add.at(sums, clusters, terms)
        whole = sums.sum(0)
        without = mean_squares(whole - sums, *levels)  # (clusters, 7, block)
        point = components(mean_squares(whole, *levels), whole[0, 0], *levels)  # (7, block)
        bounds = component_bounds(sums, mean_squares(whole, *levels), without, levels, level)
        per_unit.append(np.stack([point, *bounds], axis=-1))
        total += point.sum(-1)
        clips = (whole - sums)[:, 0, 0]
        left_out += np.stack([components(m.sum(-1), k, *levels) for m, k in zip(without, clips, strict=True)])
    index = pd.MultiIndex.from_product([np.arange(units), COMPONENTS], names=["unit", "component"])
    of_units = np.concatenate(per_unit, axis=1).swapaxes(0, 1).reshape(-1, 3)
    unit = pd.DataFrame(of_units, index, ["variance", "variance_low", "variance_high"])
    unit = unit.reset_index().sort_values(["unit", "component"], kind="stable", ignore_index=True)
    variance = unit.groupby("unit")["variance"].transform("sum")
    unit["share"] = (unit["variance"] / variance).where(variance > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, shares = total / total.sum(), left_out / left_out.sum(-1, keepdims=True)
    half = student_quantile(level, n_clusters - 1) * jackknife(share, shares).error
    layer = {"component": COMPONENTS, "variance": total}
    layer |= with_bounds("share", share, share - half, share + half)
    return pd.DataFrame(layer | {"clips": len(rows), "clusters": n_clusters}), unit


def component_bounds(
    sums: NDArray, whole: NDArray, without: NDArray, levels: tuple[int, ...], level: float
) -> tuple[NDArray, NDArray]:
    """Return MOVER intervals of each unit's seven variance components; NaN for units with few videos.

    `sums` (K, terms, C) are of the clusters, `whole` (7, C) the mean squares, `without` (K, 7, C) the mean
    squares without each cluster.
    """
    # what each cluster adds to the mean activation of every combination of style and order
    cells = sums[:, 5:] / sums[:, :1].sum(0)
    spread = sums[:, 1] - 2 * (sums[:, 5:] * cells.sum(0)).sum(1) + sums[:, 0] * (cells.sum(0) ** 2).sum(0)
    videos = effective_number(np.maximum(spread, 0))  # (C,)
    # An effect that a unit lacks in all videos has a mean square of zero up to rounding error.
    absent = whole <= CANCELLATION * whole.max(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = jackknife(np.log(whole), np.log(without)).deviation  # (K, 7, C)
        deviation = np.where(absent, 0, deviation)
        error = np.sqrt((deviation**2).sum(0))
        correlation = np.einsum("kic,kjc->ijc", deviation, deviation) / (error[:, None] * error)
        correlation = np.where(absent[:, None] | absent, 0, correlation)
    reach = student_quantile(level, np.maximum(1, DF_PER_VIDEO * videos - 1)) * error
    # Distance from each mean square to the lower and to the upper end of its interval. Shapes: (7, C).
    below, above = whole * -np.expm1(-reach), whole * np.expm1(reach)
    weights = component_weights(sums[:, 0, 0].sum(), *levels)[..., None]  # (7, 7, 1)
    point = (weights * whole).sum(1)
    ends = []
    for side, rising, falling in ((-1, below, above), (1, above, below)):
        # axes: component, mean square, unit
        distance = weights * np.where(weights > 0, rising, falling)
        squared = np.einsum("ajc,akc,jkc->ac", distance, distance, correlation)
        ends.append(point + side * np.sqrt(np.maximum(squared, 0)))
    low, high = (np.where(videos >= FEWEST_VIDEOS, end, np.nan) for end in ends)
    return low, high


def table_sums(y: NDArray) -> NDArray:
    """Return the contribution of each clip to the sums from which `components` are computed.

    Shapes: y (K, S, O, C) -> (K, 5 + S * O, C). Rows: 1 (to count clips); the sum of squares of all cells;
    the squared mean of the clip; the sums of its squared means by style and by order; the S * O cells.
    """
    terms = [np.ones(y[:, 0, 0].shape), (y**2).sum((1, 2)), y.mean((1, 2)) ** 2]
    terms += [(y.mean(2) ** 2).sum(1), (y.mean(1) ** 2).sum(1)]
    return np.concatenate([np.stack(terms, axis=1), y.reshape(len(y), -1, y.shape[-1])], axis=1)


def mean_squares(sums: NDArray, n_styles: int, n_orders: int) -> NDArray:
    """Return the seven mean squares of each unit, in the order of `COMPONENTS`. Shape: (..., 7, C)."""
    k, squares, by_clip, by_style, by_order = (sums[..., i, :] for i in range(5))
    s, o = n_styles, n_orders
    with np.errstate(invalid="ignore", divide="ignore"):
        cells = sums[..., 5:, :].reshape(*sums.shape[:-2], s, o, sums.shape[-1]) / k[..., None, None, :]
    grand = cells.mean((-3, -2))
    # Squared mean activations, summed over styles, over frame orders, and over (style, order) cells.
    style = (cells.mean(-2) ** 2).sum(-2)
    order = (cells.mean(-3) ** 2).sum(-2)
    both = (cells**2).sum((-3, -2))
    # ANOVA sums of squares (ss): the ss of an interaction excludes the ss of its lower-order effects.
    ss_v = s * o * (by_clip - k * grand**2)
    ss_s = k * o * (style - s * grand**2)
    ss_o = k * s * (order - o * grand**2)
    ss_vs = o * (by_style - s * by_clip) - ss_s
    ss_vo = s * (by_order - o * by_clip) - ss_o
    ss_so = k * (both - s * o * grand**2) - ss_s - ss_o
    ss_vso = squares - k * s * o * grand**2 - ss_v - ss_s - ss_o - ss_vs - ss_vo - ss_so
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [ss_v / (k - 1), ss_s / (s - 1), ss_o / (o - 1)]
        found += [ss_vs / ((k - 1) * (s - 1)), ss_vo / ((k - 1) * (o - 1))]
        found += [ss_so / ((s - 1) * (o - 1)), ss_vso / ((k - 1) * (s - 1) * (o - 1))]
    return np.stack(found, axis=-2)


def component_weights(k: float, s: int, o: int) -> NDArray:
    """Return the matrix (7, 7) that turns mean squares of k clips, s styles, o orders into components."""
    solved = [
        [1, 0, 0, -1, -1, 0, 1],
        [0, 1, 0, -1, 0, -1, 1],
        [0, 0, 1, 0, -1, -1, 1],
        [0, 0, 0, 1, 0, 0, -1],
        [0, 0, 0, 0, 1, 0, -1],
        [0, 0, 0, 0, 0, 1, -1],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    return np.array(solved) / np.array([s * o, k * o, k * s, o, s, k, 1])[:, None]


def components(found: NDArray, k: float, n_styles: int, n_orders: int) -> NDArray:
    """Return the seven variance components from the mean squares `found` (7, ...) of `k` clips."""
    return np.tensordot(component_weights(k, n_styles, n_orders), found, 1)
