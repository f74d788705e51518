"""Every stage of a finished run: the paper's numbers, with intervals from a bootstrap over videos.

`intervals.py` has the intervals, `permutation.py` the p-values, and `bits.py` the Gaussian bits of units and
stages, which stand beside the paper's scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.bits import (
    bits_influence,
    bits_standard_errors,
    corrected_bits,
    stage_bits,
)
from static_dynamic.analysis.estimate.estimator import (
    FACTORS,
    MEASURED,
    UNIT_CLASSES,
    Estimate,
    append_shares,
    classify,
    estimate_moments,
)
from static_dynamic.analysis.estimate.intervals import (
    bootstrap_weights,
    cluster_scalars,
    interval,
    studentised_interval,
)
from static_dynamic.analysis.estimate.moments import Moments, layer_score
from static_dynamic.analysis.estimate.pairs import not_finite, open_finished, pairs_of_factor
from static_dynamic.analysis.estimate.permutation import permute_clusters, score_p_values


@dataclass(frozen=True)
class RunEstimate:
    """Tidy tables of a whole run: ``layers`` has one row per stage, ``units`` one row per unit."""

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
    """Estimate every stage of the run in `run_dir`.

    Intervals come from `n_boot` bootstrap replicates, p-values from `n_permutations` permutations (0: no
    p-values). Both are NaN if all clips are of one video.

    Raises
    ------
    UserError
        The folder holds no finished run, or nothing can be estimated from it.
    """
    store, pairs = open_finished(run_dir)
    clusters, pair_cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    weights = bootstrap_weights(len(clusters), n_boot, seed)
    factors = [pairs_of_factor(pairs, f) for f in range(len(MEASURED))]
    orders = [permute_clusters(factor.cluster, n_permutations, (seed, f)) for f, factor in enumerate(factors)]
    layers, units = [], []
    for stage in tqdm(store.stages, desc="estimate", unit="stage", disable=None if progress else True):
        sums = Moments.per_cluster(store.activations(stage), pairs, pair_cluster, len(clusters))
        if not np.isfinite(sums.square).all():
            raise not_finite(store, stage)
        layer, unit = estimate_stage(sums, weights, threshold, level)
        if n_permutations:
            p = score_p_values(store.activations(stage), factors, orders, sums.over_clusters())
            for f, name in enumerate(MEASURED):
                layer |= {f"p_{name}": p.layer[f]}
                unit = unit.assign(**{f"p_{name}": p.unit[f], f"p_family_{name}": p.family[f]})
            layer["permutations"] = n_permutations
        about = {"stage": stage, "stream": store.stages[stage]["stream"]}
        layers.append({**about, "clusters": len(clusters), "clips": pairs["clip"].nunique(), **layer})
        units.append(unit.assign(**about))
    columns = ["stage", "stream", "unit"]
    table = pd.concat(units, ignore_index=True)
    return RunEstimate(pd.DataFrame(layers), table[columns + [c for c in table if c not in columns]])


@dataclass(frozen=True)
class StageReplicates:
    """What the R bootstrap replicates of one stage give; F measured factors, C units, K clusters."""

    scores: NDArray  # (R, F) layer scores
    unit_low: NDArray  # (F, C) interval of the unit scores
    unit_high: NDArray  # (F, C)
    unit_bits: NDArray  # (F, C) bias-corrected
    class_probability: NDArray  # (C, classes): fraction of the replicates
    bits: NDArray  # (R, F) summed over units
    influence: NDArray  # (R, F, K) of each cluster on the summed bits


def estimate_stage(
    sums: Moments, weights: NDArray, threshold: float, level: float
) -> tuple[dict, pd.DataFrame]:
    """Estimate one stage from per-cluster sums (K, F, C) and bootstrap weights (R, K).

    Returns
    -------
    layer, units
        A row of `RunEstimate.layers`, and the rows of `RunEstimate.units`.
    """
    point = estimate_moments(sums.over_clusters(), threshold)
    replicates = replicate_stage(sums, weights, point, threshold, level)
    return layer_row(sums, weights, point, replicates, threshold, level), unit_rows(point, replicates)


def replicate_stage(
    sums: Moments, weights: NDArray, point: Estimate, threshold: float, level: float
) -> StageReplicates:
    """Compute the replicates of one stage, block by block of units."""
    clusters, measured, units = sums.total.shape
    numerator, denominator = np.zeros((len(weights), measured)), np.zeros(len(weights))
    unit_low, unit_high, unit_bits = (np.full((measured, units), np.nan) for _ in range(3))
    class_probability = np.full((units, len(UNIT_CLASSES)), np.nan)
    bits, influence = np.zeros((len(weights), measured)), np.zeros((len(weights), measured, clusters))
    for block, replicates in sums.replicates(weights):
        covariance, pooled_variance = replicates.score_parts()
        numerator += covariance
        denominator += pooled_variance
        r = replicates.unit_scores()  # (R, F, block)
        ends = interval(point.unit_scores[:, block], r, clusters, level)
        unit_low[:, block], unit_high[:, block] = np.clip(ends, -1, 1)
        unit_bits[:, block], replicate_bits = corrected_bits(point.unit_scores[:, block], r)
        bits += np.nansum(replicate_bits, axis=-1)
        influence += bits_influence(sums.units(block), replicates, r)
        classes = classify(r[:, 0], r[:, 1], threshold)  # (R, block)
        for k in range(len(UNIT_CLASSES)):
            class_probability[block, k] = (classes == k).mean(0)
    scores = layer_score(numerator, denominator[:, None])
    return StageReplicates(scores, unit_low, unit_high, unit_bits, class_probability, bits, influence)


def layer_row(
    sums: Moments,
    weights: NDArray,
    point: Estimate,
    replicates: StageReplicates,
    threshold: float,
    level: float,
) -> dict:
    """Return one row of `RunEstimate.layers`."""
    clusters, _, units = sums.total.shape
    whole = sums.over_clusters()
    row = {
        "units": units,
        "pairs_dynamic": int(sums.count[:, 0].sum()),
        "pairs_static": int(sums.count[:, 1].sum()),
        "threshold": threshold,
    }
    names = [f"score_{name}" for name in MEASURED] + [f"share_{name}" for name in FACTORS]
    values = np.concatenate([point.scores[: len(MEASURED)], point.shares])
    ends = studentised_interval(
        values, append_shares(replicates.scores), cluster_scalars(sums, whole), weights, level
    )
    for name, value, low, high in zip(names, values, *ends, strict=True):
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    # The sample itself goes first: the replicate that contains each cluster once.
    weights = np.vstack([np.ones(clusters), weights])
    of_sample = bits_influence(sums, whole.one_replicate(), point.unit_scores[None])
    influence = np.concatenate([of_sample, replicates.influence])
    for f, name in enumerate(MEASURED):
        errors = bits_standard_errors(influence[:, f], sums.count[:, f], weights)
        bits, low, high = stage_bits(
            point.unit_scores[f], replicates.unit_bits[f], replicates.bits[:, f], errors, clusters, level
        )
        row |= {f"bits_{name}": bits, f"bits_{name}_low": low, f"bits_{name}_high": high}
    for f, name in enumerate(FACTORS):
        row |= {f"dims_{name}": point.dims[f], f"dims_percent_{name}": point.dims_percent[f]}
    return row | {f"units_{name}": int((point.unit_class == name).sum()) for name in UNIT_CLASSES}


def unit_rows(point: Estimate, replicates: StageReplicates) -> pd.DataFrame:
    """Return the rows of `RunEstimate.units` of one stage."""
    columns = {"unit": np.arange(len(point.unit_class)), "class": point.unit_class}
    for f, name in enumerate(MEASURED):
        columns |= {
            f"score_{name}": point.unit_scores[f],
            f"score_{name}_low": replicates.unit_low[f],
            f"score_{name}_high": replicates.unit_high[f],
            f"bits_{name}": replicates.unit_bits[f],
        }
    columns |= {f"share_{name}": point.unit_shares[:, f] for f, name in enumerate(FACTORS)}
    for k, name in enumerate(UNIT_CLASSES):
        columns[f"probability_{name}"] = replicates.class_probability[:, k]
    return pd.DataFrame(columns)
