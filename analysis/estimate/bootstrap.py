"""Estimate static and dynamic scores of a finished run, with intervals from a bootstrap over videos.

`intervals.py` has the intervals of stages, `unit_intervals.py` those of units and of class counts,
`sign_flips.py` the p-values, and `bits.py` the Gaussian bits, which stand beside the paper's scores.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from .altered_orders import AlteredOrders
from .bits import bits_influence, bits_standard_errors, corrected_bits, stage_bits
from .estimator import FACTORS, MEASURED, UNIT_CLASSES, classify, estimate_moments, require_threshold
from .intervals import bootstrap_weights, with_bounds
from .jackknife import effective_number
from .layer_intervals import MEASURES, LayerSample, total_parts
from .moments import Moments
from .pairs import open_finished, pairs_of_factor, read_sums
from .sign_flips import draw_signs, score_p_values
from .tables import RunEstimate
from .unit_intervals import COUNTED, UnitIntervals, count_bounds, count_classes


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
    """Estimate a finished run's scores: table ``layers`` has one row per stage, ``units`` one per unit.

    Intervals come from `n_boot` bootstrap replicates, p-values from `n_permutations` random sign flips
    (0: no p-values). Both are NaN if all clips are of one video. Raises UserError if the folder holds no
    finished run, if the threshold is not between -1 and 1, or if nothing can be estimated from the run.
    """
    require_threshold(threshold)
    store, pairs = open_finished(run_dir)
    clusters, pair_cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    weights = bootstrap_weights(len(clusters), n_boot, seed)
    factors = [pairs_of_factor(pairs, f, store.views) for f in range(len(MEASURED))]
    signs = [draw_signs(factor, n_permutations, (seed, f)) for f, factor in enumerate(factors)]
    orders = AlteredOrders.of_run(store, n_boot, n_permutations, seed)
    tables = {}
    for stage in tqdm(store.stages, desc="estimate", unit="stage", disable=None if progress else True):
        rows = store.activations(stage)
        sums = read_sums(store, stage, pairs, pair_cluster, len(clusters))
        layer, unit = estimate_stage(sums, weights, threshold, level)
        if n_permutations:
            p_layer, p_unit, p_family = score_p_values(rows, factors, signs, sums.over_clusters())
            for f, name in enumerate(MEASURED):
                layer[f"p_{name}"] = p_layer[f]
                unit[f"p_{name}"], unit[f"p_family_{name}"] = p_unit[f], p_family[f]
            layer["permutations"] = n_permutations
        own_layer, own_unit = orders.columns(rows, level)
        layer, unit = layer | own_layer, unit.assign(**own_unit)
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
    paper = count_classes(classify(point.unit_scores[0], point.unit_scores[1], threshold))
    intervals = UnitIntervals.of(sums)
    # Scores of units that vary only in few videos are near 1 by chance, so these units have NaN bits.
    known = np.where(intervals.few_videos, np.nan, point.unit_scores)  # (F, C)
    unit_bits = np.full((measured, units), np.nan)
    class_probability = np.full((units, len(UNIT_CLASSES)), np.nan)
    # number of units per class in each bootstrap replicate
    counts = np.zeros((len(weights), len(COUNTED)))
    # `bits_sum` sums bits over units, per replicate; `influence` is the influence of each cluster on the sum.
    bits_sum, influence = np.zeros((len(weights), measured)), np.zeros((len(weights), measured, clusters))
    parts = []
    for block, replicates in sums.replicates(weights):
        parts.append(replicates.layer_parts())
        r = replicates.unit_scores()  # (R, F, block)
        calibrated = intervals.calibrate(r, block)
        classes = classify(calibrated[:, 0], calibrated[:, 1], threshold)  # (R, block)
        counts += count_classes(classes)
        for k in range(len(UNIT_CLASSES)):
            class_probability[block, k] = (classes == k).mean(0)
        r = np.where(intervals.few_videos[block], np.nan, r)
        unit_bits[:, block], bits = corrected_bits(known[:, block], r)
        bits_sum += np.nansum(bits, axis=-1)
        influence += bits_influence(sums.units(block), replicates, r)
    class_probability[intervals.few_videos] = np.nan

    layer = {"units": units} | {f"pairs_{name}": int(whole.count[f]) for f, name in enumerate(MEASURED)}
    layer["threshold"] = threshold
    layer["effective_units"] = float(effective_number(whole.pooled_variance()))
    sample = LayerSample.of_parts(sums, total_parts(parts))
    layer["effective_videos"] = float(effective_number(np.maximum(sample.scalars[:, -2], 0)))
    for name, value, low, high in zip(MEASURES, sample.value, *sample.bounds(weights, level), strict=True):
        layer |= with_bounds(name, value, low, high)
    of_sample = bits_influence(sums, whole.one_replicate(), known[None])
    influence = np.concatenate([of_sample, influence])
    for f, name in enumerate(MEASURED):
        errors = bits_standard_errors(influence[:, f], sums.count[:, f], weights)
        mean_bits = stage_bits(known[f], unit_bits[f], bits_sum[:, f], errors, clusters, level)
        layer |= with_bounds(f"bits_{name}", *mean_bits)
    for f, name in enumerate(FACTORS):
        layer |= {f"dims_{name}": point.dims[f], f"dims_percent_{name}": point.dims_percent[f]}
    live = int((point.unit_class != "dead").sum())
    corrected = count_classes(intervals.classes(point.unit_scores, threshold))
    ends = count_bounds(paper, corrected, counts, live, clusters, level)
    for name, count, low, high in zip(COUNTED, paper, *ends, strict=True):
        layer |= with_bounds(f"units_{name}", int(count), low, high)
    layer["units_dead"] = units - live
    layer["units_few_videos"] = int(intervals.few_videos.sum())

    unit = {"unit": np.arange(units), "class": point.unit_class}
    unit_bounds = intervals.bounds(level)
    for f, name in enumerate(MEASURED):
        unit |= with_bounds(f"score_{name}", point.unit_scores[f], *(end[f] for end in unit_bounds))
        unit[f"bits_{name}"] = unit_bits[f]
    unit |= {"effective_videos": intervals.effective_videos, "few_videos": intervals.few_videos}
    unit |= {f"share_{name}": point.unit_shares[:, f] for f, name in enumerate(FACTORS)}
    unit |= {f"probability_{name}": class_probability[:, k] for k, name in enumerate(UNIT_CLASSES)}
    return layer, pd.DataFrame(unit)
