"""Every measure of what the members of pairs share, beside the paper's scores: ``task=information`` on a run
folder.

    gaussian, copula   bits by unit, and their mean over a stage (`gaussian.py`)
    subspace           bits of a stage in its largest directions, from 20 videos on (`subspace.py`)
    cka                likeness of geometries, indifferent to rotations of units (`cka.py`)
    neighbours         bits of chosen units, without a form of their distribution (`neighbours.py`)

Each stands with its interval (of a bootstrap over clusters, that is videos; of a jackknife for neighbours),
the p-value of broken pairs (`static_dynamic.analysis.estimate.permutation`), and the number of clusters. Everything is computed from
activations on disk. bench/information.py counts how often the intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.bootstrap import MEASURED, bootstrap_weights
from static_dynamic.analysis.estimate.information.cka import stage_cka
from static_dynamic.analysis.estimate.information.gaussian import TRANSFORMS, unit_information
from static_dynamic.analysis.estimate.information.neighbours import neighbour_information
from static_dynamic.analysis.estimate.information.subspace import (
    directions,
    project,
    smallest,
    split,
    subspace_information,
)
from static_dynamic.analysis.estimate.permutation import FactorPairs, pairs_of_factor, shuffles
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

# of which nearest neighbours are looked at, where none are chosen: the highest of each factor and stage
HIGHEST_UNITS = 2


@dataclass(frozen=True)
class InformationEstimate:
    """Tidy tables: ``layers`` one row a stage, factor and measure; ``units`` one row a unit, factor and
    measure."""

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
    """Estimate all measures of every stage of the extraction in `run_dir`.

    Parameters
    ----------
    units
        Stage -> units whose nearest neighbours are looked at; None: the two of each stage and factor with the
        highest unit scores.

    Raises
    ------
    UserError
        No finished extraction there, one of which nothing can be estimated, or a unit that it has not got.
    """
    store = Store.open(run_dir)
    store.require_finished()
    require_units(store, units)
    pairs = store.finished_pairs()
    factors = [pairs_of_factor(pairs, f) for f in range(len(MEASURED))]
    for name, factor in zip(MEASURED, factors, strict=True):
        if not factor.clusters:
            raise UserError(f"{store.path}: no {name} pair is left: nothing can be estimated")
    names = np.unique(pairs["cluster"].to_numpy())
    weights = bootstrap_weights(len(names), n_boot, seed)
    halves = split(factors, n_permutations, seed)
    plans = [
        FactorPlan(
            name,
            factor,
            weights[:, np.searchsorted(names, factor.names)],
            shuffles(factor.cluster, n_permutations, (seed, f)),
            [(half.pairs[f], half.orders[f]) for half in halves],
            seed,
            level,
        )
        for f, (name, factor) in enumerate(zip(MEASURED, factors, strict=True))
    ]
    used = np.unique(np.concatenate([half.views for half in halves]))
    views = pd.read_parquet(store.path / "views.parquet")
    group = views.groupby(["style", "order"], dropna=False).ngroup().to_numpy()
    layers, of_units = [], []
    every = sum(store.activations(stage).shape[1] for stage in store.stages) * len(plans)
    bar = tqdm(total=every, desc="information", unit="unit", disable=None if progress else True)
    for stage in store.stages:
        rows = store.activations(stage)
        for block in np.array_split(used, max(1, len(used) // 1024)):
            if not np.isfinite(rows[block]).all():
                raise UserError(
                    f"{store.path}: activations of {stage} hold NaN or infinity: remove the folder and run "
                    "again"
                )
        count = directions(smallest(factors, halves), rows.shape[1])
        projected = project(rows, [half.views for half in halves], group, count)
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
    """The pairs of one factor with the replicates and permutations that all stages share."""

    name: str
    pairs: FactorPairs
    weights: NDArray  # (R, clusters of this factor)
    orders: NDArray  # (P, N)
    halves: Sequence[tuple[NDArray, NDArray]]  # of `subspace.split`: positions of pairs, and permuted ones
    seed: int
    level: float

    def estimate(
        self, rows: NDArray, projected: NDArray, chosen: Sequence[int] | None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """All measures of one stage: rows (views, C), `projected` on its directions (views, k)."""
        layers, of_units = {}, {}
        for name, transform in TRANSFORMS.items():
            layers[name], of_units[name] = unit_information(
                rows, self.pairs, self.weights, self.orders, transform, self.level
            )
        layers["subspace"] = subspace_information(
            projected, self.pairs, self.weights, self.halves, self.level
        )
        layers["cka"] = stage_cka(rows, self.pairs, self.weights, len(self.orders), self.seed, self.level)
        if chosen is None:
            found = of_units["gaussian"]
            highest = found[np.isfinite(found["plug_in"])].nlargest(HIGHEST_UNITS, "plug_in")
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
        """The nearest-neighbour estimate of one unit (views,)."""
        za, zb = values[self.pairs.a], values[self.pairs.b]
        return neighbour_information(za, zb, self.pairs, len(self.orders), self.seed, self.level)


def require_units(store: Store, units: Mapping[str, Sequence[int]] | None) -> None:
    """Raise where a stage or a unit is asked for that the run has not got."""
    for stage, chosen in (units or {}).items():
        have = store.activations(stage).shape[1]
        for unit in chosen:
            if not 0 <= unit < have:
                raise UserError(f"{store.path}: {stage} has units 0 to {have - 1}, not {unit} (task.units)")
