"""Estimate mutual information between pair members for a whole stage, from its leading components.

Gaussian vectors share -1/2 sum_i log2(1 - rho_i^2) bits, with rho_i their canonical correlations (Hotelling
1936; Kay 1992, "Feature discovery under contextual supervision using mutual information"). With as many units
as videos, every rho is 1 for any network, and the result only says how many videos there were. Shrinkage
would need a choice that decides the result. Activations are therefore projected on the principal components
of largest variance: at most 16, and one per twenty videos. The choice of components does not use which views
are pairs, and is invariant to rotations of the units. The mean of the views of each style and order is
subtracted first: what a style or an order does to every clip says nothing about the network.

Cross-fitting: directions in which some videos happen to vary most are also those in which their pairs happen
to agree most. The videos are divided into two folds. Each fold is projected on the components of the other
fold, and the result is the mean over both folds. So the directions are fixed in advance for each fold, and
intervals have their nominal coverage (bench/information.py).

No function of the activations shares more information than the activations (data processing inequality, Cover
& Thomas, section 2.8). The result is therefore a lower bound on what the stage shares, as far as the
projections are Gaussian. It covers these directions only: a stage may share more in others. The bias of r^2
is corrected as in `gaussian.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from static_dynamic.analysis.estimate.bits import IDENTICAL, gaussian_bits
from static_dynamic.analysis.estimate.intervals import finite_mean, interval
from static_dynamic.analysis.estimate.pairs import FactorPairs
from static_dynamic.analysis.estimate.sign_flips import inflation, p_value

# Use at most 16 principal directions, and at most one direction per 10 clusters of a fold.
MOST_DIRECTIONS, CLUSTERS_PER_DIRECTION = 16, 10
# Principal components whose variance is below this fraction of the largest variance are rounding error.
LEAST_VARIANCE = 1e-6
ROWS_AT_A_TIME = 4096


def n_directions(clusters: int, units: int) -> int:
    """Return the number of principal directions for a fold of `clusters` videos; 0 below ten videos."""
    return min(MOST_DIRECTIONS, clusters // CLUSTERS_PER_DIRECTION, units)


@dataclass(frozen=True)
class Fold:
    """One of the two folds of the cross-fitting, with half of the clusters (videos)."""

    views: NDArray  # row numbers of views
    # one array per factor: indices of this fold's pairs in `FactorPairs`
    pairs: list[NDArray]
    # smaller of two numbers: clusters with dynamic pairs, clusters with static pairs
    clusters: int


def split_folds(factors: Sequence[FactorPairs], seed: int) -> list[Fold]:
    """Divide the clusters at random into two cross-fitting folds."""
    names = np.unique(np.concatenate([factor.names for factor in factors]))
    fold_of = np.random.default_rng([seed, 3]).permutation(len(names)) % 2
    folds = []
    for fold in (0, 1):
        views, pairs, clusters = [], [], []
        for factor in factors:
            own = np.flatnonzero(fold_of[np.searchsorted(names, factor.names)][factor.cluster] == fold)
            views += [factor.a[own], factor.b[own]]
            pairs.append(own)
            clusters.append(len(np.unique(factor.cluster[own])))
        folds.append(Fold(np.unique(np.concatenate(views)), pairs, min(clusters)))
    return folds


def project(rows: NDArray, folds: Sequence[NDArray], group: NDArray, count: int) -> NDArray:
    """Project each fold's activations onto at most `count` principal components of the other fold.

    `rows` (views, C) are activations, `folds` row numbers of views, `group` (views,) the number of each
    view's style and order: group means are subtracted in each fold. Views of no fold become 0.
    """
    if not count:
        return np.zeros((len(rows), 0))
    means = [group_means(rows, fold, group) for fold in folds]
    found = [components(rows, fold, group, mean, count) for fold, mean in zip(folds, means, strict=True)]
    count = min(vectors.shape[1] for vectors in found)
    projected = np.zeros((len(rows), count))
    for fold, mean, vectors in zip(folds, means, reversed(found), strict=True):
        for block in blocks(fold):
            projected[block] = (rows[block] - mean[group[block]]) @ vectors[:, vectors.shape[1] - count :]
    return projected


def blocks(views: NDArray) -> list[NDArray]:
    """Divide row numbers into blocks whose activations fit into memory."""
    return np.array_split(views, max(1, -(-len(views) // ROWS_AT_A_TIME)))


def group_means(rows: NDArray, views: NDArray, group: NDArray) -> NDArray:
    """Return mean activations of each group of views of equal style and order. Shape: (groups, units)."""
    total = np.zeros((group.max() + 1, rows.shape[1]))
    for block in blocks(views):
        total += np.eye(len(total))[:, group[block]] @ rows[block]
    return total / np.maximum(1, np.bincount(group[views], minlength=len(total)))[:, None]


def components(rows: NDArray, views: NDArray, group: NDArray, mean: NDArray, count: int) -> NDArray:
    """Return at most `count` principal components of activations minus group means, in ascending variance."""
    units = rows.shape[1]
    covariance = np.zeros((units, units))
    for block in blocks(views):
        # float32 is twice as fast as float64, and precise enough to find principal components.
        centred = (rows[block] - mean[group[block]]).astype(np.float32)
        covariance += centred.T @ centred
    variance, vectors = eigh(covariance, subset_by_index=(units - count, units - 1))
    return vectors[:, variance > LEAST_VARIANCE * variance[-1]] if variance[-1] > 0 else vectors[:, :0]


def subspace_information(
    projected: NDArray,
    pairs: FactorPairs,
    weights: NDArray,
    signs: NDArray,
    folds: Sequence[NDArray],
    level: float,
) -> dict:
    """Estimate the mutual information in bits between projected activations for one factor's pair members.

    Weights (R, K) are of the clusters of `pairs`, `signs` (P, N) of the pairs, `folds` hold `Fold.pairs`.
    ``plug_in`` is before bias correction. All numbers are NaN without directions, and infinite if both
    members are identical in a direction.
    """
    k = projected.shape[1]
    if not k:
        return dict.fromkeys(("value", "low", "high", "p", "plug_in"), np.nan) | {"directions": 0}
    parts = [fold_bits(projected, pairs, weights, signs, fold) for fold in folds]
    bits, replicates, null = (np.mean(part, axis=0) for part in zip(*parts, strict=True))
    replicates = np.where(np.isinf(replicates), np.nan, replicates)
    # Principal directions are fixed within a fold, so Student's t has the degrees of freedom of one fold.
    clusters = pairs.clusters // len(folds)
    low, high = interval(bits, replicates, clusters, level) if np.isfinite(bits) else (bits, bits)
    value = 2 * bits - finite_mean(replicates) if np.isfinite(bits) else bits
    p = float(p_value(bits, null))
    return {"value": value, "low": low, "high": high, "p": p, "plug_in": float(bits), "directions": k}


def fold_bits(
    projected: NDArray, pairs: FactorPairs, weights: NDArray, signs: NDArray, own: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Return one fold's mutual information in bits, for the sample, each replicate and each sign flip."""
    x, y = projected[pairs.a[own]], projected[pairs.b[own]]
    k, centre = x.shape[1], (x.mean(0) + y.mean(0)) / 2
    x, y = x - centre, y - centre
    z = np.column_stack([np.ones(len(x)), x, y])  # (N, 1 + 2 k)
    clusters, starts = np.unique(pairs.cluster[own], return_index=True)
    second = np.stack([part.T @ part for part in np.split(z, starts[1:])])  # (clusters, 2k+1, 2k+1)
    resampled = weights[:, clusters] @ second.reshape(len(second), -1)
    scale = inflation(pairs, own)
    flipped = np.repeat(second.sum(0)[None], len(signs), axis=0)
    for moments, sign in zip(flipped, signs[:, own], strict=True):
        moments[1 : 1 + k, 1 + k :] = scale * (sign[:, None] * x).T @ y
        moments[1 + k :, 1 : 1 + k] = moments[1 : 1 + k, 1 + k :].T
    replicates = canonical_bits(resampled.reshape(-1, *second.shape[1:]))
    return canonical_bits(second.sum(0)), replicates, canonical_bits(flipped)


def canonical_bits(second: NDArray) -> NDArray:
    """Return the mutual information of x and y in bits, from second moments of (1, x, y); NaN if singular."""
    n, mean = second[..., :1, :1], second[..., 1:, :1] / second[..., :1, :1]
    covariance = second[..., 1:, 1:] / n - mean * np.swapaxes(mean, -1, -2)
    k = covariance.shape[-1] // 2
    whitened = whiten(covariance[..., :k, :k]) @ covariance[..., :k, k:] @ whiten(covariance[..., k:, k:])
    good = np.isfinite(whitened).all((-1, -2))
    rho = np.linalg.svd(np.where(good[..., None, None], whitened, 0), compute_uv=False)
    return np.where(good, gaussian_bits(np.minimum(rho, 1)).sum(-1), np.nan)


def whiten(covariance: NDArray) -> NDArray:
    """Return the inverse square root of each covariance matrix; NaN if the matrix is singular."""
    variance, vectors = np.linalg.eigh(covariance)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(variance > IDENTICAL * variance[..., -1:], variance, np.nan) ** -0.5
    return (vectors * scale[..., None, :]) @ np.swapaxes(vectors, -1, -2)
