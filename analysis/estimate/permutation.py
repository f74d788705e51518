"""Permutation test of the paper's scores, in which second members of pairs are permuted between videos.

Within each factor, the second members of all pairs are permuted between clusters (videos). Whole clusters
move and keep the order of their pairs, so every permutation preserves what the pairs of one clip have in
common and what a style does to every clip. A cluster may stay at its own position. If clusters have
different numbers of pairs, the second members are concatenated in the new order of the clusters and matched
with the first members from the start. Every permutation has the same activations as the sample, so means and
variances do not change, and one permutation costs one product per pair and unit.

    p = (1 + number of permutations whose statistic is at least as large) / (1 + number of permutations)

(Davison & Hinkley, "Bootstrap Methods and their Application", 1997, eq. 4.11; never 0, and valid for any
number of permutations). ``p_family`` compares a unit with the largest unit score of its stage in each
permutation (Westfall & Young 1993; Nichols & Holmes 2002). It controls the family-wise error for any
dependence between units. Unlike a false discovery rate, it does not need more permutations for more units.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .moments import Moments, layer_score
from .pairs import FactorPairs

# Scores that differ by less than this count as equal, because correlations are computed in float32.
TIE = 1e-5
# A block has at most this many units and this many pairs, and so stays in the processor's cache.
UNITS_AT_A_TIME, PAIRS_AT_A_TIME = 256, 128


def permute_clusters(cluster: NDArray, n: int, seed: Sequence[int]) -> NDArray:
    """Draw `n` permutations of whole clusters, as indices of second members. Shape: (permutations, pairs).

    `cluster` (N,) has to ascend. If there is only one cluster, the result is empty: (0, N).
    """
    members = np.split(np.arange(len(cluster)), np.flatnonzero(np.diff(cluster)) + 1)
    rng = np.random.default_rng(list(seed))
    orders = np.empty((n if len(members) > 1 else 0, len(cluster)), int)
    for order in orders:
        order[:] = np.concatenate([members[k] for k in rng.permutation(len(members))])
    return orders


def permuted_means(za: NDArray, zb: NDArray, orders: NDArray) -> NDArray:
    """Return means over pairs of za * zb[order] for each order in `orders`. Shape: (permutations, units)."""
    total = np.zeros((len(orders), za.shape[1]))
    buffer = np.empty((PAIRS_AT_A_TIME, za.shape[1]), za.dtype)
    for p, order in enumerate(orders):
        for start in range(0, len(za), PAIRS_AT_A_TIME):
            chosen = order[start : start + PAIRS_AT_A_TIME]
            # mode="clip" writes into the buffer directly. The default mode would write into a copy first.
            second = np.take(zb, chosen, axis=0, out=buffer[: len(chosen)], mode="clip")
            total[p] += np.einsum("ij,ij->j", za[start : start + PAIRS_AT_A_TIME], second)
    return total / len(za)


def p_value(value: ArrayLike, null: NDArray) -> NDArray:
    """Return the p-value of `value` against `null`, the values of all permutations; NaN without permutations.

    If `null` is the largest unit score of each permutation, the result is the family-wise p-value of a unit.
    """
    value = np.asarray(value, float)
    p = (1 + (null >= value - TIE).sum(0)) / (1 + len(null))
    return np.where(np.isnan(value) | np.isnan(null).any(0), np.nan, p if len(null) else np.nan)


def score_p_values(
    rows: NDArray, factors: Sequence[FactorPairs], orders: Sequence[NDArray], m: Moments
) -> tuple[NDArray, NDArray, NDArray]:
    """Return p-values per factor: of the layer score, of each unit score, and of each unit score family-wise.

    Activations `rows` (views, C) are read in blocks of units. `orders` are from `permute_clusters` per
    factor, `m` (F, C) the sums over all pairs. P-values of dead units are NaN.
    """
    _, variance, mean = m.within_factors
    scores = m.unit_scores()  # (F, C)
    total = m.pooled_variance().sum()
    units = rows.shape[1]
    layer = [np.zeros(len(order)) for order in orders]  # per factor, (P,)
    largest = [np.full(len(order), -np.inf) for order in orders]
    p_unit = np.empty((len(factors), units))
    for start in range(0, units, UNITS_AT_A_TIME):
        block = slice(start, start + UNITS_AT_A_TIME)
        values = np.ascontiguousarray(rows[:, block])
        for f, (pairs, order) in enumerate(zip(factors, orders, strict=True)):
            live = variance[f, block] > 0
            scale = np.where(live, variance[f, block], 1) ** -0.5
            z = np.where(live, (values - mean[f, block]) * scale, 0).astype(np.float32)
            null = permuted_means(z[pairs.a], z[pairs.b], order)  # (P, block), unit scores
            layer[f] += layer_score(null @ variance[f, block], total)
            p_unit[f, block] = p_value(scores[f, block], null)
            if live.any():
                largest[f] = np.maximum(largest[f], null[:, live].max(1))
    p_layer = [p_value(score, null) for score, null in zip(m.layer_scores(), layer, strict=True)]
    p_family = [p_value(score, null[:, None]) for score, null in zip(scores, largest, strict=True)]
    return np.array(p_layer), p_unit, np.array(p_family)
