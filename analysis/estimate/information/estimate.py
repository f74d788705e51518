"""Measures of what the members of pairs share, beside the paper's scores: ``task=information`` on a run.

    gaussian, copula   bits per unit, and their mean over a stage (`gaussian.py`)
    subspace           bits of a stage in its directions of largest variance; needs 20 videos (`subspace.py`)
    cka                similarity of geometries, invariant to rotations of the units (`cka.py`)
    neighbours         bits of chosen units, without an assumed distribution (`neighbours.py`)

Each measure has an interval (bootstrap over clusters, that is videos; jackknife for neighbours), the p-value
of a permutation test (`permutation.py`), and the number of clusters. All are computed from activations on
disk. bench/information.py measures the coverage of the intervals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.estimator import MEASURED
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.pairs import FactorPairs, not_finite, open_finished, pairs_of_factor
from static_dynamic.analysis.estimate.permutation import permute_clusters
from static_dynamic.analysis.estimate.tables import RunEstimate
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

from .cka import stage_cka
from .gaussian import TRANSFORMS, unit_information
from .neighbours import neighbour_information
from .subspace import directions, fewest_clusters, project, split_folds, subspace_information

# If no units are chosen, nearest neighbours are computed for this many units of each factor and stage.
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
    """Estimate all measures of every stage of the run in `run_dir`.

    Both tables have one row per factor and measure: ``layers`` of each stage, ``units`` of each unit. `units`
    are the units of each stage whose nearest neighbours are computed. None: the two units of each stage and
    factor with the highest Gaussian bits. Raises UserError if the folder holds no finished run, if nothing
    can be estimated from it, or if it has no such stage or unit.
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
    tables = {}
    every = sum(store.activations(stage).shape[1] for stage in store.stages) * len(plans)
    bar = tqdm(total=every, desc="information", unit="unit", disable=None if progress else True)
    for stage in store.stages:
        rows = store.activations(stage)
        for block in np.array_split(used, max(1, len(used) // 1024)):
            if not np.isfinite(rows[block]).all():
                raise not_finite(store, stage)
        count = directions(fewest_clusters(factors, folds), rows.shape[1])
        projected = project(rows, [fold.views for fold in folds], group, count)
        parts = []
        for plan in plans:
            parts.append(plan.estimate(rows, projected, units.get(stage, ()) if units else None))
            bar.update(rows.shape[1])
        layers, of_units = (pd.concat(part, ignore_index=True) for part in zip(*parts, strict=True))
        tables[stage] = layers, of_units
    bar.close()
    return RunEstimate.join(store, tables)


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
        nearest = []
        for unit in chosen:
            za, zb = (rows[member, unit].astype(np.float64) for member in (self.pairs.a, self.pairs.b))
            found = neighbour_information(za, zb, self.pairs, len(self.orders), self.seed, self.level)
            nearest.append({"unit": unit} | found)
        of_units["neighbours"] = pd.DataFrame(nearest)
        clusters, n_pairs = self.pairs.clusters, len(self.pairs.a)
        counts = {"clusters": clusters, "pairs": n_pairs, "permutations": len(self.orders)}
        layer = [{"factor": self.name, "measure": m} | found | counts for m, found in layers.items()]
        unit = [table.assign(factor=self.name, measure=m) for m, table in of_units.items() if len(table)]
        return pd.DataFrame(layer), pd.concat(unit, ignore_index=True)


def require_units(store: Store, units: Mapping[str, Sequence[int]] | None) -> None:
    """Raise UserError if the run lacks one of the stages or units."""
    for stage, chosen in (units or {}).items():
        have = store.activations(stage).shape[1]
        for unit in chosen:
            if not 0 <= unit < have:
                raise UserError(f"{store.path}: {stage} has units 0 to {have - 1}, not {unit} (task.units)")
