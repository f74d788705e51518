"""Intervals of a stage's scores, shares and mean bits: the symmetric studentised bootstrap over clusters.

Where activations have heavy tails, a few videos decide both a score and how sure of it we seem to be, and an
interval of fixed shape is too short when they are absent. Each replicate is therefore measured in its own
standard error (Hall 1988, "On symmetric bootstrap confidence intervals"; Davison & Hinkley 1997, sections 5.2
and 2.7.2), and the interval is

    2 * estimate - mean(replicates)  -+  q * standard error

with q the quantile of |replicate - mean(replicates)| / (standard error of the replicate), no less than
Student's t(K - 1) for K clusters. bench/coverage.py compares it with the interval of fixed shape.

A score is a ratio of four sums over clusters, s_f = (N_f / n_f) / (Q / n): of products and numbers of the
pairs of factor f, of squares and numbers of all pairs. Its standard error follows from what a cluster adds
to these (the infinitesimal jackknife), so that a replicate costs six numbers a cluster and not one a unit.

Mean bits are no function of so few sums. With t, p, q a cluster's sums of za + zb, za zb and za^2 + zb^2, and
n its pairs, it moves the correlation r of a unit (mean m, variance v, of N pairs) by

    (p - (1 - r) m t - r q / 2) / (N v), less n times the same of all clusters / N

and its bits by r / ((1 - r^2) ln 2) times that. The sum over units is one matrix product a sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from static_dynamic.analysis.estimate.estimator import (
    Moments,
    covariance_and_variance,
    gaussian_bits,
    softmax,
)

# of fewer, too many replicates are nearly all one cluster: Student's t and the spread of the replicates then
FEWEST_CLUSTERS = 8


def cluster_scalars(sums: Moments, whole: Moments) -> NDArray:
    """What each cluster adds to the sums of the scores, summed over units: (clusters, 2 F + 2).

    Columns: for each factor the products of its members about the mean of `whole` (the sums over all
    clusters) and the number of its pairs; then half the squares about the pooled mean, and the number of all
    pairs.
    """
    _, _, mean = covariance_and_variance(whole)
    weight = whole.count / whole.count.sum()
    # means as the sums have them: of rows shifted by one row a factor
    mean = mean - sums.shift  # (F, C)
    grand = (weight[:, None] * (mean + sums.shift)).sum(0) - sums.shift
    count = sums.count
    product = (
        sums.product.sum(-1) - np.einsum("kfc,fc->kf", sums.total, mean) + count * (mean**2).sum(-1)
    )  # (K, F)
    square = (
        sums.square.sum(-1) - 2 * np.einsum("kfc,fc->kf", sums.total, grand) + 2 * count * (grand**2).sum(-1)
    )
    factors = np.stack([product, count], axis=-1).reshape(len(count), -1)
    return np.column_stack([factors, square.sum(-1) / 2, count.sum(-1)])


def scores_of(x: NDArray) -> NDArray:
    """Layer scores (..., F) from sums (..., 2 F + 2) of the columns of `cluster_scalars`."""
    products, counts, square, count = x[..., :-2:2], x[..., 1:-2:2], x[..., -2:-1], x[..., -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (products / counts) / (square / count)


def gradients(x: NDArray) -> NDArray:
    """Derivatives of scores and shares to the sums x (..., J): (..., F + F + 1, J), scores first."""
    s = scores_of(x)
    n_factors = s.shape[-1]
    score = np.zeros((*s.shape, x.shape[-1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        for f in range(n_factors):
            score[..., f, 2 * f] = x[..., -1] / (x[..., 2 * f + 1] * x[..., -2])
            score[..., f, 2 * f + 1] = -s[..., f] / x[..., 2 * f + 1]
            score[..., f, -2] = -s[..., f] / x[..., -2]
            score[..., f, -1] = s[..., f] / x[..., -1]
    share = softmax(np.concatenate([s, np.ones_like(s[..., :1])], axis=-1))  # (..., F + 1)
    slope = share[..., :, None] * (np.eye(n_factors + 1)[:, :n_factors] - share[..., None, :n_factors])
    return np.concatenate([score, slope @ score], axis=-2)


def standard_errors(
    x: NDArray, weights: NDArray, slope_of: Callable[[NDArray], NDArray] = gradients
) -> NDArray:
    """Standard errors of scores and shares in each replicate, (R, F + F + 1), by the infinitesimal jackknife.

    x (clusters, J) of `cluster_scalars`; a score does not change with the scale of x, so that the influences
    of all clusters sum to zero as they are. Another function of such sums has another `slope_of`, its
    derivatives (..., S, J).
    """
    clusters, columns = x.shape
    slope = slope_of(weights @ x)  # (R, S, J)
    second = weights @ (x[:, :, None] * x[:, None]).reshape(clusters, -1)
    variance = np.einsum("rsj,rjk,rsk->rs", slope, second.reshape(-1, columns, columns), slope, optimize=True)
    return np.sqrt(np.maximum(variance, 0) * clusters / max(1, clusters - 1))


def added_bits(sums: Moments, drawn: Moments, r: NDArray, plain: NDArray | None = None) -> NDArray:
    """What each cluster adds to the Gaussian bits of each replicate, summed over units and before the mean is
    taken off: (R, F, clusters).

    Parameters
    ----------
    sums : (clusters, F, C)
        Of the clusters.
    drawn : (R, F, C)
        Of the replicates.
    r : (R, F, C)
        Correlations of the replicates; units of which bits are no finite number add nothing.
    plain : (R, F, C)
        The same as `drawn` has them, where something was added to arctanh(r) since.
    """
    plain = r if plain is None else plain
    _, variance, mean = covariance_and_variance(drawn)
    mean = mean - drawn.shift  # as the sums have it
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = r / ((1 - plain**2) * np.log(2) * variance * drawn.count[..., None])
    scale = np.where(np.isfinite(gaussian_bits(r)) & np.isfinite(scale), scale, 0)
    mean = np.where(scale == 0, 0, mean)
    plain = np.where(scale == 0, 0, plain)
    added = np.empty((*drawn.count.shape, len(sums.count)))
    for f in range(added.shape[1]):
        s, m, c = scale[:, f], mean[:, f], plain[:, f]
        added[:, f] = s @ sums.product[:, f].T
        added[:, f] -= (s * (1 - c) * m) @ sums.total[:, f].T
        added[:, f] -= (s * c / 2) @ sums.square[:, f].T
    return added


def errors_of_bits(added: NDArray, count: NDArray, weights: NDArray) -> NDArray:
    """Standard errors of summed bits (R,) by the infinitesimal jackknife: `added_bits` of one factor (R,
    clusters), its pairs by cluster, (clusters,)."""
    clusters = len(count)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.einsum("rk,rk->r", weights, added) / (weights @ count)
    influence = added - mean[:, None] * count
    variance = np.einsum("rk,rk,rk->r", weights, influence, influence)
    return np.sqrt(variance * clusters / max(1, clusters - 1))


def studentised_interval(
    point: NDArray, replicates: NDArray, x: NDArray, weights: NDArray, level: float
) -> tuple[NDArray, NDArray]:
    """Bounds of the interval of the module's text: point (S,), replicates (R, S), scores and then shares, or
    scores alone.

    Replicates of one cluster, or without pairs of a factor, do not count; NaN where none is left.
    """
    error = standard_errors(x, np.ones((1, len(x))))[0, : len(point)]
    errors = standard_errors(x, weights)[:, : len(point)]
    return bounds(point, replicates, error, errors, len(x), level)


def bounds(
    point: NDArray, replicates: NDArray, error: NDArray, errors: NDArray, clusters: int, level: float
) -> tuple[NDArray, NDArray]:
    """The same from standard errors: of the estimate (S,) and of each replicate (R, S)."""
    alive = np.isfinite(replicates).all(-1)
    if clusters < 2 or not alive.any():
        return np.full_like(point, np.nan), np.full_like(point, np.nan)
    replicates, errors = replicates[alive], errors[alive]
    mean = replicates.mean(0)
    # what rounding leaves of a standard error is none
    measured = errors > 1e-9 * np.maximum(error, 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.where(measured, np.abs(replicates - mean) / errors, np.nan)
    q = np.full(len(point), student_t.ppf((1 + level) / 2, clusters - 1))
    known = measured.any(0) & (clusters >= FEWEST_CLUSTERS)
    q[known] = np.maximum(q[known], np.nanquantile(distance[:, known], level, axis=0))
    if clusters < FEWEST_CLUSTERS:
        error = replicates.std(0) * np.sqrt(clusters / (clusters - 1))
    centre = 2 * point - mean
    return centre - q * error, centre + q * error
