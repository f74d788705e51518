"""Every stage of an extraction on disk: the paper's numbers, with intervals from a cluster bootstrap over
videos.

Pairs of one clip share a video and are not independent, so whole clusters (clips of one video) are drawn
again with replacement. A replicate weighs the sums of each cluster, so that it is one row of a matrix
product (float64).

Means and variances that are estimated from few videos make scores lean towards zero, and replicates lean
once more: percentiles of the replicates would miss the truth too often (bench/coverage.py). The interval of a
unit's score is therefore

    2 * estimate - mean(replicates)  -+  t(K - 1) * sqrt(K / (K - 1)) * std(replicates)

with K clusters: bias taken off, and Student's t for the few. Scores, shares and mean bits of a stage take
the shape of their interval from the replicates too (studentised.py). Bits are Gaussian (paper.py), less what
chance adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student_t
from tqdm import tqdm

from static_dynamic.analysis.estimate.estimator import (
    FACTORS,
    UNIT_CLASSES,
    Moments,
    classify,
    covariance_and_variance,
    estimate_moments,
    gaussian_bits,
    pooled_variance,
    softmax,
    unit_correlations,
)
from static_dynamic.analysis.estimate.permutation import pairs_of_factor, score_null, shuffles
from static_dynamic.analysis.estimate.studentised import (
    added_bits,
    bounds,
    cluster_scalars,
    errors_of_bits,
    studentised_interval,
)
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

MEASURED = FACTORS[:2]
# rows held in memory at a time while sums are made, and numbers in a block of replicates x factors x units
ROW_BYTES, REPLICATE_NUMBERS = 64e6, 2e6


@dataclass(frozen=True)
class RunEstimate:
    """Tidy tables of a whole run: ``layers`` one row a stage, ``units`` one row a unit."""

    layers: pd.DataFrame
    units: pd.DataFrame


def estimate_run(
    run_dir: str | Path,
    n_boot: int = 1000,
    seed: int = 0,
    *,
    threshold: float = 0.5,
    level: float = 0.95,
    n_permutations: int = 0,
    progress: bool = False,
) -> RunEstimate:
    """Estimate every stage of the extraction in `run_dir`, with intervals from `n_boot` replicates and, where
    `n_permutations` is not 0, p-values against pairs that are broken (`null.py`).

    Intervals and p-values are NaN where there is one cluster only.

    Raises
    ------
    UserError
        No finished extraction there, or one from which nothing can be estimated.
    """
    store = Store.open(run_dir)
    store.require_finished()
    pairs = store.finished_pairs()
    clusters, pair_cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    for f, name in enumerate(MEASURED):
        if not (pairs["factor"] == f).any():
            raise UserError(f"{store.path}: no {name} pair is left: nothing can be estimated")
    weights = bootstrap_weights(len(clusters), n_boot, seed)
    factors = [pairs_of_factor(pairs, f) for f in range(len(MEASURED))]
    orders = [shuffles(factor.cluster, n_permutations, (seed, f)) for f, factor in enumerate(factors)]
    layers, units = [], []
    for stage in tqdm(store.stages, desc="estimate", unit="stage", disable=None if progress else True):
        sums = cluster_moments(store.activations(stage), pairs, pair_cluster, len(clusters))
        if not np.isfinite(sums.square).all():
            raise UserError(
                f"{store.path}: activations of {stage} hold NaN or infinity: remove the folder and run again"
            )
        layer, unit = estimate_stage(sums, weights, threshold, level)
        if n_permutations:
            null = score_null(store.activations(stage), factors, orders, over_all_clusters(sums))
            for f, name in enumerate(MEASURED):
                layer |= {f"p_{name}": null.p_layer[f]}
                unit = unit.assign(**{f"p_{name}": null.p_unit[f], f"p_family_{name}": null.p_family[f]})
            layer["permutations"] = n_permutations
        about = {"stage": stage, "stream": store.stages[stage]["stream"]}
        layers.append({**about, "clusters": len(clusters), "clips": pairs["clip"].nunique(), **layer})
        units.append(unit.assign(**about))
    columns = ["stage", "stream", "unit"]
    table = pd.concat(units, ignore_index=True)
    return RunEstimate(pd.DataFrame(layers), table[columns + [c for c in table if c not in columns]])


def bootstrap_weights(n_clusters: int, n_boot: int, seed: int) -> NDArray:
    """How often each replicate drew each cluster, (replicates, clusters); no replicate where there is one
    cluster."""
    if n_clusters < 2:
        return np.empty((0, n_clusters))
    draw = np.random.default_rng(seed)
    return draw.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_boot).astype(np.float64)


def cluster_moments(rows: NDArray, pairs: pd.DataFrame, pair_cluster: NDArray, n_clusters: int) -> Moments:
    """Sums over the pairs of each cluster, read block by block: memory grows with clusters x units alone."""
    order = np.lexsort((pairs["factor"], pair_cluster))
    a, b, factor = (pairs[name].to_numpy()[order] for name in ("a", "b", "factor"))
    group = pair_cluster[order] * len(MEASURED) + factor  # (pairs,), ascending
    units = rows.shape[1]
    shift = np.stack([rows[a[np.argmax(factor == f)]] for f in range(len(MEASURED))]).astype(np.float64)
    total, product, square = (np.zeros((n_clusters * len(MEASURED), units)) for _ in range(3))
    size = max(1, int(ROW_BYTES / (16 * units)))
    for start in range(0, len(group), size):
        block = slice(start, start + size)
        za = rows[a[block]] - shift[factor[block]]  # (pairs of the block, C), float64
        zb = rows[b[block]] - shift[factor[block]]
        groups, first = np.unique(group[block], return_index=True)
        total[groups] += np.add.reduceat(za + zb, first)
        square[groups] += np.add.reduceat(za**2 + zb**2, first)
        za *= zb
        product[groups] += np.add.reduceat(za, first)
    shape = (n_clusters, len(MEASURED), units)
    count = np.bincount(group, minlength=shape[0] * shape[1]).reshape(shape[:2]).astype(np.float64)
    return Moments(count, total.reshape(shape), product.reshape(shape), square.reshape(shape), shift)


def estimate_stage(
    sums: Moments, weights: NDArray, threshold: float, level: float
) -> tuple[dict, pd.DataFrame]:
    """Point estimates of one stage from per-cluster sums, and intervals over the replicates that
    `weights` describes."""
    clusters = len(sums.count)
    whole = over_all_clusters(sums)
    point = estimate_moments(whole, threshold)
    units = sums.total.shape[-1]
    numerator = np.zeros((len(weights), len(MEASURED)))
    denominator = np.zeros(len(weights))
    unit_low, unit_high = (np.full((len(MEASURED), units), np.nan) for _ in range(2))
    class_probability = np.full((units, len(UNIT_CLASSES)), np.nan)
    unit_bits, bits_drawn = np.full((len(MEASURED), units), np.nan), np.zeros((len(weights), len(MEASURED)))
    added = np.zeros((len(weights), len(MEASURED), clusters))
    width = max(1, int(REPLICATE_NUMBERS / max(1, len(weights) * len(MEASURED))))
    for start in range(0, units if len(weights) else 0, width):
        block = slice(start, start + width)
        replicates = resample(sums, weights, block)
        covariance, variance, mean = covariance_and_variance(replicates)  # (R, 2, block)
        numerator += covariance.sum(-1)
        denominator += pooled_variance(replicates, variance, mean).sum(-1)
        r = unit_correlations(covariance, variance)
        ends = interval(point.unit_scores[:, block], r, clusters, level)
        unit_low[:, block], unit_high[:, block] = np.clip(ends, -1, 1)
        unit_bits[:, block], drawn = corrected_bits(point.unit_scores[:, block], r)
        bits_drawn += np.nansum(drawn, axis=-1)
        added += added_bits(of_units(sums, block), replicates, r)
        classes = classify(r[:, 0], r[:, 1], threshold)  # (R, block)
        for k in range(len(UNIT_CLASSES)):
            class_probability[block, k] = (classes == k).mean(0)

    with np.errstate(invalid="ignore", divide="ignore"):
        scores = np.column_stack([numerator / denominator[:, None], np.ones(len(weights))])
    shares = softmax(scores)
    layer = {
        "units": units,
        "pairs_dynamic": int(sums.count[:, 0].sum()),
        "pairs_static": int(sums.count[:, 1].sum()),
        "threshold": threshold,
    }
    names = [f"score_{name}" for name in MEASURED] + [f"share_{name}" for name in FACTORS]
    values = np.concatenate([point.scores[: len(MEASURED)], point.shares])
    drawn = np.column_stack([scores[:, : len(MEASURED)], shares])
    scalars = cluster_scalars(sums, whole)
    ends = studentised_interval(values, drawn, scalars, weights, level)
    for name, value, low, high in zip(names, values, *ends, strict=True):
        layer |= {name: value, f"{name}_low": low, f"{name}_high": high}
    weights = np.vstack([np.ones(clusters), weights])
    added = np.concatenate([added_bits(sums, one_replicate(whole), point.unit_scores[None]), added])
    for f, name in enumerate(MEASURED):
        errors = errors_of_bits(added[:, f], sums.count[:, f], weights)
        bits, low, high = stage_bits(
            point.unit_scores[f], unit_bits[f], bits_drawn[:, f], errors, clusters, level
        )
        layer |= {f"bits_{name}": bits, f"bits_{name}_low": low, f"bits_{name}_high": high}
    for f, name in enumerate(FACTORS):
        layer |= {f"dims_{name}": point.dims[f], f"dims_percent_{name}": point.dims_percent[f]}
    layer |= {f"units_{name}": int((point.unit_class == name).sum()) for name in UNIT_CLASSES}

    unit = {"unit": np.arange(units), "class": point.unit_class}
    for f, name in enumerate(MEASURED):
        unit |= {
            f"score_{name}": point.unit_scores[f],
            f"score_{name}_low": unit_low[f],
            f"score_{name}_high": unit_high[f],
            f"bits_{name}": unit_bits[f],
        }
    unit |= {f"share_{name}": point.unit_shares[:, f] for f, name in enumerate(FACTORS)}
    unit |= {f"probability_{name}": class_probability[:, k] for k, name in enumerate(UNIT_CLASSES)}
    return layer, pd.DataFrame(unit)


def corrected_bits(r: NDArray, replicates: NDArray) -> tuple[NDArray, NDArray]:
    """Gaussian bits of units (...), less what chance adds to r^2, and those of the replicates (R, ...).

    The bootstrap tells how much that is; corrected bits may be below zero, and only so average to zero where
    nothing is shared. Replicates in which two members are the same count as the mean of the others.
    """
    bits, drawn = gaussian_bits(r), gaussian_bits(replicates)
    mean = finite_mean(drawn)
    drawn = np.where(np.isfinite(drawn), drawn, mean)
    return np.where(np.isinf(bits), np.inf, 2 * bits - mean), drawn


def stage_bits(
    r: NDArray, corrected: NDArray, drawn: NDArray, errors: NDArray, clusters: int, level: float
) -> tuple[float, float, float]:
    """Mean bits over the live units of a stage, with their interval: unit scores and corrected bits (C,),
    sums over units of the replicates (R,), standard errors of that of the sample and of theirs (1 + R,)."""
    live = ~np.isnan(r)
    if not live.any():
        return np.nan, np.nan, np.nan
    plug_in = gaussian_bits(r[live]).mean()
    if np.isinf(plug_in):
        return np.inf, np.inf, np.inf
    drawn, errors = drawn[:, None] / live.sum(), errors[:, None] / live.sum()
    low, high = bounds(np.array([plug_in]), drawn, errors[0], errors[1:], clusters, level)
    return corrected[live].mean(), low[0], high[0]


def finite_mean(drawn: NDArray) -> NDArray:
    """Mean over the replicates (R, ...) that are finite; NaN where none is."""
    alive = np.isfinite(drawn)
    with np.errstate(invalid="ignore"):
        return np.where(alive, drawn, 0).sum(0) / alive.sum(0)


def over_all_clusters(sums: Moments) -> Moments:
    """Sums over the whole sample, from those of its clusters."""
    return Moments(sums.count.sum(0), sums.total.sum(0), sums.product.sum(0), sums.square.sum(0), sums.shift)


def of_units(sums: Moments, block: slice) -> Moments:
    """The sums of a block of units."""
    total, product, square, shift = (
        x[..., block] for x in (sums.total, sums.product, sums.square, sums.shift)
    )
    return Moments(sums.count, total, product, square, shift)


def one_replicate(whole: Moments) -> Moments:
    """The whole sample in the shape of replicates: (1, F, C)."""
    return Moments(whole.count[None], whole.total[None], whole.product[None], whole.square[None], whole.shift)


def resample(sums: Moments, weights: NDArray, block: slice) -> Moments:
    """Sums of each replicate, (R, F, C), as one matrix product a sum: weights (R, clusters) x sums
    (clusters, F, C)."""

    sums = of_units(sums, block)

    def product(values: NDArray) -> NDArray:
        return (weights @ values.reshape(len(values), -1)).reshape(len(weights), *values.shape[1:])

    return Moments(
        weights @ sums.count, product(sums.total), product(sums.product), product(sums.square), sums.shift
    )


def interval(point: ArrayLike, replicates: NDArray, clusters: int, level: float) -> tuple[NDArray, NDArray]:
    """Bounds of the first interval of the module's text; replicates (R, ...) of which NaN ones do not count.

    NaN where no replicate is a number, and everywhere where there is none.
    """
    alive = ~np.isnan(replicates)
    count = alive.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(alive, replicates, 0).sum(0) / count
        spread = np.sqrt(np.where(alive, (replicates - mean) ** 2, 0).sum(0) / count)
    half = student_t.ppf((1 + level) / 2, clusters - 1) * np.sqrt(clusters / max(1, clusters - 1)) * spread
    return 2 * point - mean - half, 2 * point - mean + half
