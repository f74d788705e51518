"""Estimate mutual information in bits between paired activations, assuming a Gaussian distribution.

A unit score r gives -1/2 log2(1 - r^2) bits. The estimate is biased upwards because r^2 is too large by
chance; the mean of the bootstrap replicates shows by how much. The interval of the mean bits of a stage is
the studentised one (`intervals.py`), with standard errors from the influence of each cluster. Let t, p, q be
a cluster's sums of za + zb, za zb and za^2 + zb^2, and n the number of pairs. One more copy of the cluster
moves the correlation r of a unit (mean m, variance v, over N pairs) by

    (p - (1 - r) m t - r q / 2) / (N v)  -  n times the sum of this over all clusters / N

and the unit's bits by r / ((1 - r^2) ln 2) times as much. The sum over units is a matrix product.
"""

import numpy as np
from numpy.typing import NDArray

from .intervals import finite_mean, studentised_bounds
from .moments import Moments

# A correlation within this distance of 1 or -1 gives infinite bits: float32 cannot resolve the difference.
IDENTICAL = 1e-9


def gaussian_bits(r: NDArray) -> NDArray:
    """Return the mutual information in bits between two Gaussian variables with correlation `r`."""
    with np.errstate(divide="ignore"):
        return np.where(1 - np.abs(r) < IDENTICAL, np.inf, -0.5 * np.log2(np.maximum(1 - r**2, 0)))


def corrected_bits(r: NDArray, replicates: NDArray) -> tuple[NDArray, NDArray]:
    """Return bias-corrected mutual information in bits, and the uncorrected bits of each bootstrap replicate.

    Shapes: `r` (...), `replicates` (R, ...). Corrected bits can be below zero, so that they average to zero
    if nothing is shared. Replicates with identical members are replaced by the mean of the finite ones.
    """
    bits, bits_of_replicates = gaussian_bits(r), gaussian_bits(replicates)
    mean = finite_mean(bits_of_replicates)
    bits_of_replicates = np.where(np.isfinite(bits_of_replicates), bits_of_replicates, mean)
    return np.where(np.isinf(bits), np.inf, 2 * bits - mean), bits_of_replicates


def stage_bits(
    r: NDArray, corrected: NDArray, replicates: NDArray, errors: NDArray, clusters: int, level: float
) -> tuple[float, float, float]:
    """Return the mean mutual information in bits of the units that vary, and its confidence bounds.

    `r` and `corrected` (C,) are unit scores and corrected bits. `replicates` (R,) are bits summed over units,
    `errors` (1 + R,) the standard errors of such sums: of the sample, then of the replicates.
    """
    live = ~np.isnan(r)
    if not live.any():
        return np.nan, np.nan, np.nan
    plug_in = gaussian_bits(r[live]).mean()
    if np.isinf(plug_in):
        return np.inf, np.inf, np.inf
    replicates, errors = replicates[:, None] / live.sum(), errors[:, None] / live.sum()
    low, high = studentised_bounds(np.array([plug_in]), replicates, errors[0], errors[1:], clusters, level)
    return corrected[live].mean(), low[0], high[0]


def bits_influence(
    sums: Moments, replicates: Moments, r: NDArray, uncorrected: NDArray | None = None
) -> NDArray:
    """Return each cluster's influence on the total bits of all units. Shape: (replicates, factors, clusters).

    Influences are not centred; `bits_standard_errors` subtracts their mean. `sums` (K, F, C) are of the
    clusters, `r` (R, F, C) are correlations of the replicates, `uncorrected` those before rank-bias
    correction, if `r` is corrected. Units whose bits are not finite have no influence.
    """
    uncorrected = r if uncorrected is None else uncorrected
    _, variance, mean = replicates.within_factors
    mean = mean - replicates.shift  # as `sums` are shifted
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = r / ((1 - uncorrected**2) * np.log(2) * variance * replicates.count[..., None])
    finite = np.isfinite(gaussian_bits(r)) & np.isfinite(scale)
    s, m, c = (np.where(finite, x, 0).swapaxes(0, 1) for x in (scale, mean, uncorrected))  # (F, R, C)
    product, total, square = (np.moveaxis(x, 0, -1) for x in (sums.product, sums.total, sums.square))
    return np.swapaxes(s @ product - (s * (1 - c) * m) @ total - (s * c / 2) @ square, 0, 1)


def bits_standard_errors(influence: NDArray, count: NDArray, weights: NDArray) -> NDArray:
    """Return standard errors of a factor's total bits (sum over units), by the infinitesimal jackknife.

    `influence` (1 + R, K) is that of `bits_influence` for the sample and the replicates, `count` (K,) the
    number of pairs per cluster, `weights` (R, K) those of the replicates. The result is (1 + R,).
    """
    clusters = len(count)
    weights = np.vstack([np.ones(clusters), weights])  # row 0 is the sample
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.einsum("rk,rk->r", weights, influence) / (weights @ count)
    centred = influence - mean[:, None] * count
    variance = np.einsum("rk,rk,rk->r", weights, centred, centred)
    return np.sqrt(variance * clusters / max(1, clusters - 1))
