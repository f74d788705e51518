"""Decomposition of each unit's variance into video, style, frame order and the interactions of the three.

Factorial views give each unit a balanced table y[video, style, order] with one value per cell. All effects
are random. The expected mean squares (MS) are solved for the variance components (Searle, Casella &
McCulloch, "Variance Components", ch. 4; K videos, S styles, O = 2 orders):

    E MS_vso = v_vso                            E MS_vs = v_vso + O v_vs
    E MS_vo  = v_vso + S v_vo                   E MS_so = v_vso + K v_so
    E MS_v   = v_vso + O v_vs + S v_vo + S O v_v
    E MS_s   = v_vso + O v_vs + K v_so + K O v_s
    E MS_o   = v_vso + S v_vo + K v_so + K S v_o

Estimates are unbiased, and may be negative for components near zero. Every mean square is a function of sums
over videos, so a bootstrap replicate is a weighted sum.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.errors import UserError

from .intervals import bootstrap_weights, interval, with_bounds
from .tables import RunEstimate

COMPONENTS = ("video", "style", "order", "video:style", "video:order", "style:order", "video:style:order")
# To limit memory, this many units are decomposed at a time.
UNITS_AT_A_TIME = 256


def estimate_variance(
    run_dir: str | Path, n_boot: int = 1000, seed: int = 0, *, level: float = 0.95, progress: bool = False
) -> RunEstimate:
    """Decompose the variance of all stages of a pairs=factorial run; intervals are bootstrapped over videos.

    ``layers`` has one row per stage and component, ``units`` one row per unit and component. Raises UserError
    if the run is not factorial, or if fewer than two clips have all views.
    """
    store = Store.open(run_dir)
    store.require_finished()
    rows, clusters = complete_table(store)
    weights = bootstrap_weights(int(clusters.max()) + 1, n_boot, seed)
    tables = {}
    for stage in tqdm(store.stages, desc="variance", unit="stage", disable=None if progress else True):
        tables[stage] = decompose_stage(store.activations(stage), rows, clusters, weights, level)
    return RunEstimate.join(store, tables)


def complete_table(store: Store) -> tuple[NDArray, NDArray]:
    """For clips with all views, return arrays of row numbers (clips, styles, orders) and of clusters."""
    views = pd.read_parquet(store.path / "views.parquet").assign(row=np.arange(len(store.status)))
    views = views[store.status == DONE]
    table = views.pivot(index=["cluster", "clip"], columns=["style", "order"], values="row").dropna()
    styles = views["style"].nunique()
    if table.shape[1] != 2 * styles or styles < 2:
        raise UserError(
            f"{store.path}: variances need every style in both frame orders: run with pairs=factorial"
        )
    if len(table) < 2:
        raise UserError(f"{store.path}: variances need two clips that have all views, not {len(table)}")
    table = table.sort_index(axis=1)
    clusters = np.unique(table.index.get_level_values("cluster"), return_inverse=True)[1]
    return table.to_numpy(dtype=np.int64).reshape(len(table), styles, 2), clusters


def decompose_stage(
    values: NDArray, rows: NDArray, clusters: NDArray, weights: NDArray, level: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Decompose the variance of one stage; return a table of the stage and a table of the stage's units."""
    units = values.shape[1]
    n_clusters = int(clusters.max()) + 1
    per_unit = []
    point_sum, replicate_sum = np.zeros(len(COMPONENTS)), np.zeros((len(weights), len(COMPONENTS)))
    for start in range(0, units, UNITS_AT_A_TIME):
        block = values[:, start : start + UNITS_AT_A_TIME][rows].astype(np.float64)  # (K, S, O, block)
        block -= block[0, 0, 0]  # subtracting one cell's values avoids rounding error in sums of squares
        terms = table_sums(block)
        sums = np.zeros((n_clusters, *terms.shape[1:]))  # shape (clusters, terms of `table_sums`, units)
        np.add.at(sums, clusters, terms)
        point = components(sums.sum(0), *rows.shape[1:])  # (7, block)
        replicates = components(np.tensordot(weights, sums, 1), *rows.shape[1:])  # (R, 7, block)
        per_unit.append(np.stack([point, *interval(point, replicates, n_clusters, level)], axis=-1))
        point_sum += point.sum(-1)
        replicate_sum += replicates.sum(-1)
    index = pd.MultiIndex.from_product([np.arange(units), COMPONENTS], names=["unit", "component"])
    of_units = np.concatenate(per_unit, axis=1).swapaxes(0, 1).reshape(-1, 3)
    unit = pd.DataFrame(of_units, index, ["variance", "variance_low", "variance_high"])
    unit = unit.reset_index().sort_values(["unit", "component"], kind="stable", ignore_index=True)
    total = unit.groupby("unit")["variance"].transform("sum")
    unit["share"] = (unit["variance"] / total).where(total > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        share, shares = point_sum / point_sum.sum(), replicate_sum / replicate_sum.sum(-1, keepdims=True)
    layer = {"component": COMPONENTS, "variance": point_sum}
    layer |= with_bounds("share", share, *interval(share, shares, n_clusters, level))
    return pd.DataFrame(layer | {"clips": len(rows), "clusters": n_clusters}), unit


def table_sums(y: NDArray) -> NDArray:
    """Return the contribution of each clip to the sums from which `components` are computed.

    Shapes: y (K, S, O, C) -> (K, 5 + S * O, C). Rows: 1 (to count clips); the sum of squares of all cells;
    the squared mean of the clip; the sums of its squared means by style and by order; the S * O cells.
    """
    terms = [np.ones(y[:, 0, 0].shape), (y**2).sum((1, 2)), y.mean((1, 2)) ** 2]
    terms += [(y.mean(2) ** 2).sum(1), (y.mean(1) ** 2).sum(1)]
    return np.concatenate([np.stack(terms, axis=1), y.reshape(len(y), -1, y.shape[-1])], axis=1)


def components(sums: NDArray, n_styles: int, n_orders: int) -> NDArray:
    """Return the seven variance components of each unit, in the order of `COMPONENTS`."""
    k, squares, by_clip, by_style, by_order = (sums[..., i, :] for i in range(5))
    s, o = n_styles, n_orders
    cells = sums[..., 5:, :].reshape(*sums.shape[:-2], s, o, sums.shape[-1]) / k[..., None, None, :]
    grand = cells.mean((-3, -2))
    # These are squared mean activations, summed over styles, frame orders, and (style, order) cells.
    style = (cells.mean(-2) ** 2).sum(-2)
    order = (cells.mean(-3) ** 2).sum(-2)
    both = (cells**2).sum((-3, -2))
    # These are ANOVA sums of squares (ss). The ss of an interaction excludes the ss of all lower effects.
    ss_v = s * o * (by_clip - k * grand**2)
    ss_s = k * o * (style - s * grand**2)
    ss_o = k * s * (order - o * grand**2)
    ss_vs = o * (by_style - s * by_clip) - ss_s
    ss_vo = s * (by_order - o * by_clip) - ss_o
    ss_so = k * (both - s * o * grand**2) - ss_s - ss_o
    ss_vso = squares - k * s * o * grand**2 - ss_v - ss_s - ss_o - ss_vs - ss_vo - ss_so
    with np.errstate(invalid="ignore", divide="ignore"):
        ms_v, ms_s, ms_o = ss_v / (k - 1), ss_s / (s - 1), ss_o / (o - 1)
        ms_vs, ms_vo = ss_vs / ((k - 1) * (s - 1)), ss_vo / ((k - 1) * (o - 1))
        ms_so, ms_vso = ss_so / ((s - 1) * (o - 1)), ss_vso / ((k - 1) * (s - 1) * (o - 1))
    return np.stack(
        [
            (ms_v - ms_vs - ms_vo + ms_vso) / (s * o),
            (ms_s - ms_vs - ms_so + ms_vso) / (k * o),
            (ms_o - ms_vo - ms_so + ms_vso) / (k * s),
            (ms_vs - ms_vso) / o,
            (ms_vo - ms_vso) / s,
            (ms_so - ms_vso) / k,
            ms_vso,
        ],
        axis=-2,
    )
