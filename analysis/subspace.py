"""Mutual information of the two members of pairs for a whole stage: in the few directions in which it varies
most.

Between Gaussian vectors it is -1/2 sum_i log2(1 - rho_i^2) bits, over their canonical correlations rho_i
(Hotelling 1936; Kay 1992, "Feature discovery under contextual supervision using mutual information"). With as
many units as videos every rho is 1, whatever the network does: the number says how many videos there were. No
shrinkage mends that without a choice that decides the result. We therefore project on the principal
components with the largest variance, at most 16 of them and one for every ten videos. They are chosen
without a look at which views are pairs, and do not depend on how units are rotated. What a style or an order
does to every clip is taken off first (the mean of the views of that style and order): which styles a plan
puts together says nothing of the network.

Nothing that is computed from activations holds more than these (the data processing inequality, Cover &
Thomas, section 2.8), so that the number is a lower bound to what the stage shares, as far as the projections
are Gaussian. It is about those directions alone: a stage may hold more elsewhere. Bias is taken off as in
`gaussian.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from analysis.bootstrap import finite_mean, interval
from analysis.null import FactorPairs, p_value
from analysis.paper import IDENTICAL, gaussian_bits

MOST_DIRECTIONS, CLUSTERS_A_DIRECTION = 16, 10
# of the largest; directions of less variance are what rounding leaves
LEAST_VARIANCE = 1e-6
ROWS_AT_A_TIME = 4096


def directions(clusters: int, units: int) -> int:
    """Number of directions; 0 where there are too few clusters for one."""
    return min(MOST_DIRECTIONS, clusters // CLUSTERS_A_DIRECTION, units)


def project(rows: NDArray, used: NDArray, group: NDArray, count: int) -> NDArray:
    """Put rows (views, C) on the first `count` principal components of those that are `used`: (views, at most
    `count`).

    `group` (views,) numbers styles and orders, whose means are taken off. Views that are not used are 0.
    """
    if not count:
        return np.zeros((len(rows), 0))
    blocks = np.array_split(used, max(1, -(-len(used) // ROWS_AT_A_TIME)))
    units = rows.shape[1]
    mean = np.zeros((group.max() + 1, units))
    for block in blocks:
        mean += np.eye(len(mean))[:, group[block]] @ rows[block]
    mean /= np.maximum(1, np.bincount(group[used], minlength=len(mean)))[:, None]
    covariance = np.zeros((units, units))
    for block in blocks:
        # float32: twice as fast, and directions need no more
        centred = (rows[block] - mean[group[block]]).astype(np.float32)
        covariance += centred.T @ centred
    variance, vectors = eigh(covariance, subset_by_index=(units - count, units - 1))
    vectors = vectors[:, variance > LEAST_VARIANCE * variance[-1]] if variance[-1] > 0 else vectors[:, :0]
    projected = np.zeros((len(rows), vectors.shape[1]))
    for block in blocks:
        projected[block] = (rows[block] - mean[group[block]]) @ vectors
    return projected


def subspace_information(
    projected: NDArray, pairs: FactorPairs, weights: NDArray, orders: NDArray, level: float
) -> dict:
    """Bits that the members of one factor's pairs share in the directions of `projected` (views, k).

    Returns
    -------
    dict
        ``value``, ``low``, ``high``, ``p``, ``plug_in`` (before the correction) and ``directions``; NaN where
        there is no direction, infinite where a direction is the same in both members.
    """
    k = projected.shape[1]
    if not k:
        return dict.fromkeys(("value", "low", "high", "p", "plug_in"), np.nan) | {"directions": 0}
    x, y = projected[pairs.a], projected[pairs.b]
    centre = (x.mean(0) + y.mean(0)) / 2
    x, y = x - centre, y - centre
    z = np.column_stack([np.ones(len(x)), x, y])  # (N, 1 + 2 k)
    second = np.stack([part.T @ part for part in np.split(z, pairs.starts[1:])])  # (clusters, ., .)
    bits = float(canonical_bits(second.sum(0)))
    flat = weights @ second.reshape(len(second), -1)
    drawn = canonical_bits(flat.reshape(-1, *second.shape[1:]))
    shuffled = np.repeat(second.sum(0)[None], len(orders), axis=0)
    for moments, order in zip(shuffled, orders, strict=True):
        moments[1 : 1 + k, 1 + k :] = x.T @ y[order]
        moments[1 + k :, 1 : 1 + k] = moments[1 : 1 + k, 1 + k :].T
    p = float(p_value(bits, canonical_bits(shuffled)))
    drawn = np.where(np.isinf(drawn), np.nan, drawn)
    low, high = interval(bits, drawn, pairs.clusters, level) if np.isfinite(bits) else (bits, bits)
    value = 2 * bits - finite_mean(drawn) if np.isfinite(bits) else bits
    return {"value": value, "low": low, "high": high, "p": p, "plug_in": bits, "directions": k}


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


def used_views(factors: Sequence[FactorPairs]) -> NDArray:
    """Row numbers of the views of any pair."""
    return np.unique(np.concatenate([rows for pairs in factors for rows in (pairs.a, pairs.b)]))
