"""Estimate mutual information and CKA between the paired views of a finished run (``task=information``).

    gaussian, copula   bits per unit, and their mean over a stage (`gaussian.py`)
    subspace           bits of a stage in its directions of largest variance; needs 20 videos (`subspace.py`)
    cka                similarity of geometries, invariant to rotations of the units (`cka.py`)
    neighbours         bits of chosen units, without an assumed distribution (`neighbours.py`)

Each measure has an interval (bootstrap over clusters, that is videos; jackknife for neighbours), a p-value
(`sign_flips.py`; for cka and neighbours, second members are permuted between videos), and the number of
clusters. All are computed from activations on disk. bench/information.py measures the coverage of intervals.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.estimator import MEASURED
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.pairs import (
    FactorPairs,
    open_finished,
    pairs_of_factor,
    read_sums,
    style_order_groups,
)
from static_dynamic.analysis.estimate.sign_flips import draw_signs
from static_dynamic.analysis.estimate.tables import RunEstimate
from static_dynamic.analysis.estimate.unit_intervals import FEWEST_VIDEOS, UnitIntervals
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

from .cka import stage_cka
from .gaussian import TRANSFORMS, unit_information
from .neighbours import neighbour_information
from .subspace import n_directions, project, split_folds, subspace_information

# Unless task.units lists units, this many units per factor and stage get a nearest-neighbour estimate.
HIGHEST_UNITS = 2


def estimate_information(
    run_dir: str | Path,
    n_boot: int = 1000,
    seed: int = 0,
    *,
    n_permutations: int = 200,
    units: Mapping[str, Sequence[int]] | None = None,
    level: float = 0.95,
    progress: bool = False,
) -> RunEstimate:
    """Estimate mutual information and CKA for every stage of a finished run.

    Both tables have one row per factor and measure: ``layers`` of each stage, ``units`` of each unit. `units`
    are the units of each stage whose nearest neighbours are computed; if None, two units per stage and
    factor, with the highest Gaussian bits. Raises UserError if the folder holds no finished run, if nothing
    can be estimated from it, or if it has no such stage or unit.
    """
    store, pairs = open_finished(run_dir)
    require_units(store, units)
    factors = [pairs_of_factor(pairs, f, store.views) for f in range(len(MEASURED))]
    names = np.unique(pairs["cluster"].to_numpy())
    all_weights = bootstrap_weights(len(names), n_boot, seed)
    weights = [all_weights[:, np.searchsorted(names, factor.names)] for factor in factors]
    signs = [draw_signs(factor, n_permutations, (seed, f)) for f, factor in enumerate(factors)]
    folds = split_folds(factors, seed)
    group = style_order_groups(store.views)
    tables = {}
    every = sum(store.activations(stage).shape[1] for stage in store.stages) * len(factors)
    bar = tqdm(total=every, desc="information", unit="unit", disable=None if progress else True)
    for stage in store.stages:
        rows = store.activations(stage)
        # `read_sums` raises UserError if an activation is NaN or infinite.
        sums = read_sums(store, stage, pairs, np.searchsorted(names, pairs["cluster"]), len(names))
        few = UnitIntervals.of(sums).few_videos if len(names) >= FEWEST_VIDEOS else None
        count = n_directions(min(fold.clusters for fold in folds), rows.shape[1])
        projected = project(rows, [fold.views for fold in folds], group, count)
        chosen = units.get(stage, ()) if units else None
        parts = []
        for f, name in enumerate(MEASURED):
            of_folds = [fold.pairs[f] for fold in folds]
            found = factor_information(
                rows, few, projected, factors[f], weights[f], signs[f], of_folds, chosen, seed, level
            )
            for table in found:
                table.insert(table.columns.get_loc("measure"), "factor", name)
            parts.append(found)
            bar.update(rows.shape[1])
        layers, of_units = zip(*parts, strict=True)
        tables[stage] = pd.concat(layers), pd.concat(of_units)
    bar.close()
    return RunEstimate.join(store, tables)


def factor_information(
    rows: NDArray,
    few_videos: NDArray | None,
    projected: NDArray,
    pairs: FactorPairs,
    weights: NDArray,
    signs: NDArray,
    folds: Sequence[NDArray],
    chosen: Sequence[int] | None,
    seed: int,
    level: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Estimate, for one factor, a stage's CKA and mutual information, and each unit's mutual information.

    `rows` (views, C) are activations, `few_videos` (C,) tells which units vary in one or two videos only,
    `projected` (views, k) are projections by `project`. Weights (R, K) are of the clusters of `pairs`,
    `signs` (P, N) those of `draw_signs`. `folds` hold `Fold.pairs` of this factor. Nearest neighbours are
    computed for the `chosen` units.
    """
    layers, of_units = {}, {}
    for name, transform in TRANSFORMS.items():
        layers[name], of_units[name] = unit_information(
            rows, pairs, weights, signs, transform, level, few_videos
        )
    layers["subspace"] = subspace_information(projected, pairs, weights, signs, folds, level)
    layers["cka"] = stage_cka(rows, pairs, weights, len(signs), seed, level)
    if chosen is None:
        bits = of_units["gaussian"]
        chosen = bits[np.isfinite(bits["plug_in"])].nlargest(HIGHEST_UNITS, "plug_in")["unit"].tolist()
    nearest = []
    for unit in chosen:
        za, zb = (rows[member, unit].astype(np.float64) for member in (pairs.a, pairs.b))
        nearest.append({"unit": unit} | neighbour_information(za, zb, pairs, len(signs), seed, level))
    of_units["neighbours"] = pd.DataFrame(nearest)
    counts = {"clusters": pairs.clusters, "pairs": len(pairs.a), "permutations": len(signs)}
    layer = pd.DataFrame([{"measure": name} | found | counts for name, found in layers.items()])
    measured = [table.assign(measure=name) for name, table in of_units.items() if len(table)]
    return layer, pd.concat(measured)


def require_units(store: Store, units: Mapping[str, Sequence[int]] | None) -> None:
    """Raise UserError if the run lacks one of the requested stages or units."""
    for stage, chosen in (units or {}).items():
        have = store.activations(stage).shape[1]
        for unit in chosen:
            if not 0 <= unit < have:
                raise UserError(f"task.units: {stage} of {store.path} has units 0 to {have - 1}, not {unit}")
