"""Mutual information of the two members of pairs for a whole stage: in the few directions in which it varies
most.

Between Gaussian vectors it is -1/2 sum_i log2(1 - rho_i^2) bits, over their canonical correlations rho_i
(Hotelling 1936; Kay 1992, "Feature discovery under contextual supervision using mutual information"). With as
many units as videos every rho is 1, whatever the network does: the number says how many videos there were. No
shrinkage mends that without a choice that decides the result. We therefore project on the principal
components with the largest variance, at most 16 of them and one for every twenty videos. They are chosen
without a look at which views are pairs, and do not depend on how units are rotated. What a style or an order
does to every clip is taken off first (the mean of the views of that style and order): which styles a plan
puts together says nothing of the network.

The directions in which some videos happen to vary most are those in which their pairs happen to agree most.
Directions are therefore those of the other half of the videos: each half is looked at in the directions of
the other, and the stage's number is the mean of both. To either half its directions are given beforehand, so
that intervals hold what they should (bench/information.py).

Nothing that is computed from activations holds more than these (the data processing inequality, Cover &
Thomas, section 2.8), so that the number is a lower bound to what the stage shares, as far as the projections
are Gaussian. It is about those directions alone: a stage may hold more elsewhere. Bias is taken off as in
`gaussian.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from static_dynamic.analysis.estimate.bootstrap import finite_mean, interval
from static_dynamic.analysis.estimate.estimator import IDENTICAL, gaussian_bits
from static_dynamic.analysis.estimate.permutation import FactorPairs, p_value, shuffles

MOST_DIRECTIONS, CLUSTERS_A_DIRECTION = 16, 10
# of the largest; directions of less variance are what rounding leaves
LEAST_VARIANCE = 1e-6
ROWS_AT_A_TIME = 4096


def directions(clusters: int, units: int) -> int:
    """Number of directions; 0 where there are too few clusters for one."""
    return min(MOST_DIRECTIONS, clusters // CLUSTERS_A_DIRECTION, units)


@dataclass(frozen=True)
class Half:
    """Half of the clusters: row numbers of their views, positions of their pairs in each factor, and where
    second members come from in each permutation, (P, pairs)."""

    views: NDArray
    pairs: list[NDArray]
    orders: list[NDArray]


def split(factors: Sequence[FactorPairs], n_permutations: int, seed: int) -> list[Half]:
    """Draw two halves of the clusters; permutations stay within them."""
    names = np.unique(np.concatenate([factor.names for factor in factors]))
    half_of = np.random.default_rng([seed, 3]).permutation(len(names)) % 2
    found = []
    for half in (0, 1):
        views, pairs, orders = [], [], []
        for f, factor in enumerate(factors):
            own = np.flatnonzero(half_of[np.searchsorted(names, factor.names)][factor.cluster] == half)
            views += [factor.a[own], factor.b[own]]
            pairs.append(own)
            orders.append(own[shuffles(factor.cluster[own], n_permutations, (seed, f, half))])
        found.append(Half(np.unique(np.concatenate(views)), pairs, orders))
    return found


def smallest(factors: Sequence[FactorPairs], halves: Sequence[Half]) -> int:
    """Fewest clusters of any factor in any half."""
    return min(
        len(np.unique(factor.cluster[own]))
        for half in halves
        for factor, own in zip(factors, half.pairs, strict=True)
    )


def project(rows: NDArray, halves: Sequence[NDArray], group: NDArray, count: int) -> NDArray:
    """Put the views of each half on the first `count` principal components of the other: (views, at most
    `count`), 0 for views of neither.

    Parameters
    ----------
    rows : (views, C)
        Activations; a block of views is in memory at a time.
    halves
        Row numbers of the views of each.
    group : (views,)
        Numbers styles and orders, whose means, half by half, are taken off.
    """
    if not count:
        return np.zeros((len(rows), 0))
    means = [group_means(rows, half, group) for half in halves]
    found = [components(rows, half, group, mean, count) for half, mean in zip(halves, means, strict=True)]
    count = min(vectors.shape[1] for vectors in found)
    projected = np.zeros((len(rows), count))
    for half, mean, vectors in zip(halves, means, reversed(found), strict=True):
        for block in blocks(half):
            projected[block] = (rows[block] - mean[group[block]]) @ vectors[:, vectors.shape[1] - count :]
    return projected


def blocks(views: NDArray) -> list[NDArray]:
    """Row numbers in parts that fit into memory."""
    return np.array_split(views, max(1, -(-len(views) // ROWS_AT_A_TIME)))


def group_means(rows: NDArray, views: NDArray, group: NDArray) -> NDArray:
    """Mean of the `views` of each group, (groups, C)."""
    total = np.zeros((group.max() + 1, rows.shape[1]))
    for block in blocks(views):
        total += np.eye(len(total))[:, group[block]] @ rows[block]
    return total / np.maximum(1, np.bincount(group[views], minlength=len(total)))[:, None]


def components(rows: NDArray, views: NDArray, group: NDArray, mean: NDArray, count: int) -> NDArray:
    """First principal components of the `views` about the means of their groups, the largest last, (C, at
    most `count`)."""
    units = rows.shape[1]
    covariance = np.zeros((units, units))
    for block in blocks(views):
        # float32: twice as fast, and directions need no more
        centred = (rows[block] - mean[group[block]]).astype(np.float32)
        covariance += centred.T @ centred
    variance, vectors = eigh(covariance, subset_by_index=(units - count, units - 1))
    return vectors[:, variance > LEAST_VARIANCE * variance[-1]] if variance[-1] > 0 else vectors[:, :0]


def subspace_information(
    projected: NDArray,
    pairs: FactorPairs,
    weights: NDArray,
    halves: Sequence[tuple[NDArray, NDArray]],
    level: float,
) -> dict:
    """Bits that the members of one factor's pairs share in the directions of `projected` (views, k), averaged
    over halves of the clusters.

    Parameters
    ----------
    weights : (replicates, clusters of `pairs`)
        How often each replicate drew each cluster.
    halves
        Of each, the positions of its pairs and those of their new second members (`Half`).

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``p``, ``plug_in`` (before the correction) and ``directions``; NaN where
        there is no direction, infinite where a direction is the same in both members.
    """
    k = projected.shape[1]
    if not k:
        return dict.fromkeys(("value", "low", "high", "p", "plug_in"), np.nan) | {"directions": 0}
    parts = [half_bits(projected, pairs, weights, *half) for half in halves]
    bits, drawn, null = (sum(part) / len(halves) for part in zip(*parts, strict=True))
    p = float(p_value(bits, null))
    drawn = np.where(np.isinf(drawn), np.nan, drawn)
    # each half has its own, of half as many clusters
    clusters = pairs.clusters // len(halves)
    low, high = interval(bits, drawn, clusters, level) if np.isfinite(bits) else (bits, bits)
    value = 2 * bits - finite_mean(drawn) if np.isfinite(bits) else bits
    return {"value": value, "low": low, "high": high, "p": p, "plug_in": float(bits), "directions": k}


def half_bits(
    projected: NDArray, pairs: FactorPairs, weights: NDArray, own: NDArray, orders: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Bits of the pairs at positions `own`: as they are (), in each replicate (R,), and with second members
    from each of `orders` (P,)."""
    x, y = projected[pairs.a[own]], projected[pairs.b[own]]
    k, centre = x.shape[1], (x.mean(0) + y.mean(0)) / 2
    x, y = x - centre, y - centre
    z = np.column_stack([np.ones(len(x)), x, y])  # (N, 1 + 2 k)
    clusters, starts = np.unique(pairs.cluster[own], return_index=True)
    second = np.stack([part.T @ part for part in np.split(z, starts[1:])])  # (clusters, ., .)
    flat = weights[:, clusters] @ second.reshape(len(second), -1)
    shuffled = np.repeat(second.sum(0)[None], len(orders), axis=0)
    for moments, order in zip(shuffled, orders, strict=True):
        moments[1 : 1 + k, 1 + k :] = x.T @ (projected[pairs.b[order]] - centre)
        moments[1 + k :, 1 : 1 + k] = moments[1 : 1 + k, 1 + k :].T
    drawn = canonical_bits(flat.reshape(-1, *second.shape[1:]))
    return canonical_bits(second.sum(0)), drawn, canonical_bits(shuffled)


def canonical_bits(second: NDArray) -> NDArray:
    """Bits from the second moments (..., 1 + 2 k, 1 + 2 k) of (1, x, y); NaN where a member does not vary in
    all k directions."""
    n, mean = second[..., :1, :1], second[..., 1:, :1] / second[..., :1, :1]
    covariance = second[..., 1:, 1:] / n - mean * np.swapaxes(mean, -1, -2)
    k = covariance.shape[-1] // 2
    whitened = whiten(covariance[..., :k, :k]) @ covariance[..., :k, k:] @ whiten(covariance[..., k:, k:])
    good = np.isfinite(whitened).all((-1, -2))
    rho = np.linalg.svd(np.where(good[..., None, None], whitened, 0), compute_uv=False)
    rho = np.minimum(rho, 1)
    return np.where(good, gaussian_bits(rho).sum(-1), np.nan)


def whiten(covariance: NDArray) -> NDArray:
    """Inverse square roots (..., k, k); NaN where one is singular."""
    variance, vectors = np.linalg.eigh(covariance)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(variance > IDENTICAL * variance[..., -1:], variance, np.nan) ** -0.5
    return (vectors * scale[..., None, :]) @ np.swapaxes(vectors, -1, -2)
