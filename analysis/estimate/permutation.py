"""What estimates look like where the members of pairs share nothing: pairs broken and made anew.

Within each factor the second members change places between clusters (videos), whole clusters at a time and
pair by pair in their order, so that what the pairs of one clip have in common, and what styles do to every
clip, stays as it was. A cluster may fall on its own place; where clusters have different numbers of pairs,
the blocks follow each other in their new order against the old one. The rows of a factor are only paired
anew, so that its means and variances never change, and a permutation costs one product of two rows a pair.

    p = (1 + number of permutations whose statistic is no smaller) / (1 + number of permutations)

(Davison & Hinkley, "Bootstrap Methods and their Application", 1997, eq. 4.11; never 0, and valid for any
number of permutations). ``p_family`` of a unit compares it with the largest unit of its stage in each
permutation (Westfall & Young 1993; Nichols & Holmes 2002): the chance that any unit of that stage comes so
far where none shares anything. That keeps the family-wise error whatever the units have to do with each
other, and needs no more permutations for more units, as a false discovery rate would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from static_dynamic.analysis.estimate.estimator import (
    Moments,
    covariance_and_variance,
    pooled_variance,
    unit_correlations,
)

# correlations in float32 that differ by less are the same
SAME = 1e-5
# units and pairs at a time: their products stay in the processor's cache
UNITS_AT_A_TIME, PAIRS_AT_A_TIME = 256, 128


@dataclass(frozen=True)
class FactorPairs:
    """The pairs of one factor, in the order of their clusters; all (N,).

    a, b row numbers of the members; cluster 0 .. K - 1 (of this factor) ascending, named by `names`; clip
    numbers; slot, the how-manieth pair of its clip.
    """

    a: NDArray
    b: NDArray
    cluster: NDArray
    clip: NDArray
    slot: NDArray
    names: NDArray

    @property
    def clusters(self) -> int:
        """Number of clusters that have pairs of this factor."""
        return len(self.names)

    @property
    def starts(self) -> NDArray:
        """Where each cluster begins."""
        return np.searchsorted(self.cluster, np.arange(self.clusters))


def pairs_of_factor(pairs: pd.DataFrame, factor: int) -> FactorPairs:
    """The pairs of one factor of a run's table."""
    chosen = pairs[pairs["factor"] == factor].sort_values(["cluster", "clip"], kind="stable")
    names, cluster = np.unique(chosen["cluster"].to_numpy(), return_inverse=True)
    return FactorPairs(
        a=chosen["a"].to_numpy(),
        b=chosen["b"].to_numpy(),
        cluster=cluster,
        clip=np.unique(chosen["clip"].to_numpy(), return_inverse=True)[1],
        slot=chosen.groupby(["cluster", "clip"]).cumcount().to_numpy(),
        names=names,
    )


def shuffles(cluster: NDArray, n: int, seed: Sequence[int]) -> NDArray:
    """Positions of the new second members, (permutations, N): whole clusters in an order that is drawn.

    No permutation where there is one cluster.
    """
    members = np.split(np.arange(len(cluster)), np.flatnonzero(np.diff(cluster)) + 1)
    draw = np.random.default_rng(list(seed))
    orders = np.empty((n if len(members) > 1 else 0, len(cluster)), int)
    for order in orders:
        order[:] = np.concatenate([members[k] for k in draw.permutation(len(members))])
    return orders


def shuffled_means(za: NDArray, zb: NDArray, orders: NDArray) -> NDArray:
    """Mean of za * zb[order] for every order: (N, C) float32, (P, N) -> (P, C) float64."""
    total = np.zeros((len(orders), za.shape[1]))
    buffer = np.empty((PAIRS_AT_A_TIME, za.shape[1]), za.dtype)
    for p, order in enumerate(orders):
        for start in range(0, len(za), PAIRS_AT_A_TIME):
            chosen = order[start : start + PAIRS_AT_A_TIME]
            # a mode other than raise is what writes straight into the buffer
            other = np.take(zb, chosen, axis=0, out=buffer[: len(chosen)], mode="clip")
            total[p] += np.einsum("ij,ij->j", za[start : start + PAIRS_AT_A_TIME], other)
    return total / len(za)


def p_value(value: ArrayLike, null: NDArray) -> NDArray:
    """p of `value` (...) against `null` (permutations, ...); NaN where there is none or either is NaN."""
    value = np.asarray(value, float)
    p = (1 + (null >= value - SAME).sum(0)) / (1 + len(null))
    return np.where(np.isnan(value) | np.isnan(null).any(0), np.nan, p if len(null) else np.nan)


def family_p_value(values: NDArray, largest: NDArray) -> NDArray:
    """p of each value (C,) against the `largest` of all in each permutation (P,)."""
    return p_value(values, np.repeat(largest[:, None], len(values), axis=1))


@dataclass(frozen=True)
class ScoreNull:
    """The paper's scores of one stage over the permutations; factors dynamic, static."""

    layer: NDArray  # (P, F) layer scores
    p_layer: NDArray  # (F,)
    p_unit: NDArray  # (F, C), NaN where dead
    p_family: NDArray  # (F, C)


def score_null(
    rows: NDArray, factors: Sequence[FactorPairs], orders: Sequence[NDArray], m: Moments
) -> ScoreNull:
    """Permute the pairs of one stage: rows (views, C) on disk, `m` the sums over all pairs.

    One block of units is in memory at a time.
    """
    covariance, variance, mean = covariance_and_variance(m)
    scores = unit_correlations(covariance, variance)  # (F, C)
    total = pooled_variance(m, variance, mean).sum()
    n, units = max(map(len, orders)), rows.shape[1]
    broken = np.array([len(order) > 0 for order in orders])  # pairs of one cluster cannot be
    layer = np.where(broken, 0.0, np.nan) * np.ones((n, 1))
    largest = np.where(broken, -np.inf, np.nan) * np.ones((n, 1))
    p_unit = np.full((len(factors), units), np.nan)
    for start in range(0, units if n else 0, UNITS_AT_A_TIME):
        block = slice(start, start + UNITS_AT_A_TIME)
        values = np.ascontiguousarray(rows[:, block])
        for f in np.flatnonzero(broken):
            pairs = factors[f]
            live = variance[f, block] > 0
            scale = np.where(live, variance[f, block], 1) ** -0.5
            z = np.where(live, (values - mean[f, block]) * scale, 0).astype(np.float32)
            null = shuffled_means(z[pairs.a], z[pairs.b], orders[f])  # (P, block), correlations
            layer[:, f] += null @ variance[f, block] / total
            p_unit[f, block] = p_value(scores[f, block], null)
            if live.any():
                largest[:, f] = np.maximum(largest[:, f], null[:, live].max(1))
    return ScoreNull(
        layer=layer,
        p_layer=p_value(covariance.sum(-1) / total, layer),
        p_unit=p_unit,
        p_family=np.stack([family_p_value(scores[f], largest[:, f]) for f in range(len(factors))]),
    )
