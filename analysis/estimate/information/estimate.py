"""Measures of what the members of pairs share, beside the paper's scores: ``task=information`` on a run.

    gaussian, copula   bits per unit, and their mean over a stage (`gaussian.py`)
    subspace           bits of a stage in its directions of largest variance; needs 20 videos (`subspace.py`)
    cka                similarity of geometries, invariant to rotations of the units (`cka.py`)
    neighbours         bits of chosen units, without an assumed distribution (`neighbours.py`)

Each measure has an interval (bootstrap over clusters, that is videos; jackknife for neighbours), the p-value
of a permutation test (`permutation.py`), and the number of clusters. All are computed from activations on
disk. bench/information.py measures the coverage of the intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.estimator import MEASURED
from static_dynamic.analysis.estimate.information.cka import stage_cka
from static_dynamic.analysis.estimate.information.gaussian import TRANSFORMS, unit_information
from static_dynamic.analysis.estimate.information.neighbours import neighbour_information
from static_dynamic.analysis.estimate.information.subspace import (
    directions,
    fewest_clusters,
    project,
    split_folds,
    subspace_information,
)
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.pairs import FactorPairs, not_finite, open_finished, pairs_of_factor
from static_dynamic.analysis.estimate.permutation import permute_clusters
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

# If no units are chosen, nearest neighbours are computed for this many units of each factor and stage.
HIGHEST_UNITS = 2


@dataclass(frozen=True)
class InformationEstimate:
    """Tidy tables with one row per factor and measure: ``layers`` of each stage, ``units`` of each unit."""

    layers: pd.DataFrame
    units: pd.DataFrame


def estimate_information(
    run_dir: str | Path,
    n_boot: int = 1000,
    seed: int = 0,
    *,
    n_permutations: int = 200,
    units: Mapping[str, Sequence[int]] | None = None,
    level: float = 0.95,
    progress: bool = False,
) -> InformationEstimate:
    """Estimate all measures of every stage of the run in `run_dir`.

    Parameters
    ----------
    units
        Units whose nearest neighbours are computed, by stage. None: the two units of each stage and factor
        with the highest Gaussian bits.

    Raises
    ------
    UserError
        The folder holds no finished run, nothing can be estimated from it, or it has no such stage or unit.
    """
    store, pairs = open_finished(run_dir)
    require_units(store, units)
    factors = [pairs_of_factor(pairs, f) for f in range(len(MEASURED))]
    names = np.unique(pairs["cluster"].to_numpy())
    weights = bootstrap_weights(len(names), n_boot, seed)
    folds = split_folds(factors, n_permutations, seed)
    plans = [
        FactorPlan(
            name,
            factor,
            weights[:, np.searchsorted(names, factor.names)],
            permute_clusters(factor.cluster, n_permutations, (seed, f)),
            [(fold.pairs[f], fold.orders[f]) for fold in folds],
            seed,
            level,
        )
        for f, (name, factor) in enumerate(zip(MEASURED, factors, strict=True))
    ]
    used = np.unique(np.concatenate([fold.views for fold in folds]))
    views = pd.read_parquet(store.path / "views.parquet")
    group = views.groupby(["style", "order"], dropna=False).ngroup().to_numpy()
    layers, of_units = [], []
    every = sum(store.activations(stage).shape[1] for stage in store.stages) * len(plans)
    bar = tqdm(total=every, desc="information", unit="unit", disable=None if progress else True)
    for stage in store.stages:
        rows = store.activations(stage)
        for block in np.array_split(used, max(1, len(used) // 1024)):
            if not np.isfinite(rows[block]).all():
                raise not_finite(store, stage)
        count = directions(fewest_clusters(factors, folds), rows.shape[1])
        projected = project(rows, [fold.views for fold in folds], group, count)
        about = {"stage": stage, "stream": store.stages[stage]["stream"]}
        for plan in plans:
            layer, unit = plan.estimate(rows, projected, units.get(stage, ()) if units else None)
            layers.append(layer.assign(**about))
            of_units.append(unit.assign(**about))
            bar.update(rows.shape[1])
    bar.close()
    first = ["stage", "stream"]
    both = (pd.concat(parts, ignore_index=True) for parts in (layers, of_units))
    return InformationEstimate(*(t[first + [c for c in t if c not in first]] for t in both))


@dataclass(frozen=True)
class FactorPlan:
    """The pairs of one factor, with the replicates and permutations that all stages share."""

    name: str
    pairs: FactorPairs
    weights: NDArray  # (R, clusters of this factor)
    orders: NDArray  # (P, N) of `permute_clusters`
    folds: Sequence[tuple[NDArray, NDArray]]  # per fold: its pairs, and permuted second members (`Fold`)
    seed: int
    level: float

    def estimate(
        self, rows: NDArray, projected: NDArray, chosen: Sequence[int] | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Estimate all measures of one stage: rows (views, C), `projected` on its directions (views, k)."""
        layers, of_units = {}, {}
        for name, transform in TRANSFORMS.items():
            layers[name], of_units[name] = unit_information(
                rows, self.pairs, self.weights, self.orders, transform, self.level
            )
        layers["subspace"] = subspace_information(projected, self.pairs, self.weights, self.folds, self.level)
        layers["cka"] = stage_cka(rows, self.pairs, self.weights, len(self.orders), self.seed, self.level)
        if chosen is None:
            bits = of_units["gaussian"]
            highest = bits[np.isfinite(bits["plug_in"])].nlargest(HIGHEST_UNITS, "plug_in")
            chosen = highest["unit"].tolist()
        of_units["neighbours"] = pd.DataFrame(
            [{"unit": unit} | self.neighbours(rows[:, unit].astype(np.float64)) for unit in chosen]
        )
        about = {"factor": self.name}
        counts = {
            "clusters": self.pairs.clusters,
            "pairs": len(self.pairs.a),
            "permutations": len(self.orders),
        }
        layer = pd.DataFrame([about | {"measure": m} | found | counts for m, found in layers.items()])
        unit = [table.assign(**about, measure=m) for m, table in of_units.items() if len(table)]
        return layer, pd.concat(unit, ignore_index=True)

    def neighbours(self, values: NDArray) -> dict:
        """Estimate the nearest-neighbour information of one unit (views,)."""
        za, zb = values[self.pairs.a], values[self.pairs.b]
        return neighbour_information(za, zb, self.pairs, len(self.orders), self.seed, self.level)


def require_units(store: Store, units: Mapping[str, Sequence[int]] | None) -> None:
    """Raise UserError if the run lacks one of the stages or units."""
    for stage, chosen in (units or {}).items():
        have = store.activations(stage).shape[1]
        for unit in chosen:
            if not 0 <= unit < have:
                raise UserError(f"{store.path}: {stage} has units 0 to {have - 1}, not {unit} (task.units)")
