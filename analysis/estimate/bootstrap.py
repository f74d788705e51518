"""Static and dynamic scores of every stage of a finished run, with intervals from a bootstrap over videos.

`intervals.py` has the intervals, `permutation.py` the p-values, and `bits.py` the Gaussian bits of units and
stages, which stand beside the paper's scores.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from .bits import bits_influence, bits_standard_errors, corrected_bits, stage_bits
from .estimator import FACTORS, MEASURED, UNIT_CLASSES, append_shares, classify, estimate_moments
from .intervals import bootstrap_weights, cluster_scalars, interval, studentised_interval, with_bounds
from .moments import Moments, layer_score
from .pairs import not_finite, open_finished, pairs_of_factor
from .permutation import permute_clusters, score_p_values
from .tables import RunEstimate


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
    """Estimate the scores of all stages and units of a finished run, as tables ``layers`` and ``units``.

    Intervals come from `n_boot` bootstrap replicates, p-values from `n_permutations` permutations (0: no
    p-values). Both are NaN if all clips are of one video. Raises UserError if the folder holds no finished
    run, or if nothing can be estimated from the run.
    """
    store, pairs = open_finished(run_dir)
    clusters, pair_cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    weights = bootstrap_weights(len(clusters), n_boot, seed)
    factors = [pairs_of_factor(pairs, f) for f in range(len(MEASURED))]
    orders = [permute_clusters(factor.cluster, n_permutations, (seed, f)) for f, factor in enumerate(factors)]
    tables = {}
    for stage in tqdm(store.stages, desc="estimate", unit="stage", disable=None if progress else True):
        rows = store.activations(stage)
        sums = Moments.per_cluster(rows, pairs, pair_cluster, len(clusters))
        if not np.isfinite(sums.square).all():
            raise not_finite(store, stage)
        layer, unit = estimate_stage(sums, weights, threshold, level)
        if n_permutations:
            p_layer, p_unit, p_family = score_p_values(rows, factors, orders, sums.over_clusters())
            for f, name in enumerate(MEASURED):
                layer[f"p_{name}"] = p_layer[f]
                unit[f"p_{name}"], unit[f"p_family_{name}"] = p_unit[f], p_family[f]
            layer["permutations"] = n_permutations
        counts = {"clusters": len(clusters), "clips": pairs["clip"].nunique()}
        tables[stage] = pd.DataFrame([counts | layer]), unit
    return RunEstimate.join(store, tables)


def estimate_stage(
    sums: Moments, weights: NDArray, threshold: float, level: float
) -> tuple[dict, pd.DataFrame]:
    """Estimate the scores of a stage and of all its units, from sums per cluster and bootstrap weights."""
    clusters, measured, units = sums.total.shape
    whole = sums.over_clusters()
    point = estimate_moments(whole, threshold)
    numerator, denominator = np.zeros((len(weights), measured)), np.zeros(len(weights))
    unit_bounds, unit_bits = np.full((2, measured, units), np.nan), np.full((measured, units), np.nan)
    class_probability = np.full((units, len(UNIT_CLASSES)), np.nan)
    # These two arrays hold each replicate's sum of bits over units, and each cluster's influence on the sum.
    bits_sum, influence = np.zeros((len(weights), measured)), np.zeros((len(weights), measured, clusters))
    for block, replicates in sums.replicates(weights):
        covariance, pooled_variance = replicates.score_parts()
        numerator += covariance
        denominator += pooled_variance
        r = replicates.unit_scores()  # (R, F, block)
        bounds = interval(point.unit_scores[:, block], r, clusters, level)
        unit_bounds[:, :, block] = np.clip(bounds, -1, 1)
        unit_bits[:, block], bits = corrected_bits(point.unit_scores[:, block], r)
        bits_sum += np.nansum(bits, axis=-1)
        influence += bits_influence(sums.units(block), replicates, r)
        classes = classify(r[:, 0], r[:, 1], threshold)  # (R, block)
        for k in range(len(UNIT_CLASSES)):
            class_probability[block, k] = (classes == k).mean(0)

    layer = {"units": units} | {f"pairs_{name}": int(whole.count[f]) for f, name in enumerate(MEASURED)}
    layer["threshold"] = threshold
    names = [f"score_{name}" for name in MEASURED] + [f"share_{name}" for name in FACTORS]
    values = np.concatenate([point.scores[:measured], point.shares])
    of_replicates = append_shares(layer_score(numerator, denominator[:, None]))
    bounds = studentised_interval(values, of_replicates, cluster_scalars(sums, whole), weights, level)
    for name, value, low, high in zip(names, values, *bounds, strict=True):
        layer |= with_bounds(name, value, low, high)
    of_sample = bits_influence(sums, whole.one_replicate(), point.unit_scores[None])
    influence = np.concatenate([of_sample, influence])
    for f, name in enumerate(MEASURED):
        errors = bits_standard_errors(influence[:, f], sums.count[:, f], weights)
        mean_bits = stage_bits(point.unit_scores[f], unit_bits[f], bits_sum[:, f], errors, clusters, level)
        layer |= with_bounds(f"bits_{name}", *mean_bits)
    for f, name in enumerate(FACTORS):
        layer |= {f"dims_{name}": point.dims[f], f"dims_percent_{name}": point.dims_percent[f]}
    layer |= {f"units_{name}": int((point.unit_class == name).sum()) for name in UNIT_CLASSES}

    unit = {"unit": np.arange(units), "class": point.unit_class}
    for f, name in enumerate(MEASURED):
        unit |= with_bounds(f"score_{name}", point.unit_scores[f], *unit_bounds[:, f])
        unit[f"bits_{name}"] = unit_bits[f]
    unit |= {f"share_{name}": point.unit_shares[:, f] for f, name in enumerate(FACTORS)}
    unit |= {f"probability_{name}": class_probability[:, k] for k, name in enumerate(UNIT_CLASSES)}
    return layer, pd.DataFrame(unit)
