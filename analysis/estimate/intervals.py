"""Confidence intervals from a bootstrap over clusters (a cluster is all clips of one video).

Pairs of one video are not independent. A replicate therefore draws whole clusters (all clips of one video)
with replacement, as many as there are. With few clusters, the estimated means and variances bias
scores towards zero, and bias the replicates again: percentiles of the replicates would miss the truth too
often (bench/coverage.py). Both intervals below correct this bias. For K clusters:

`interval`, for units, has a fixed shape:

    2 * estimate - mean(replicates)  -+  t(K - 1) * sqrt(K / (K - 1)) * std(replicates)

`studentised_bounds`, for the scores and shares of a stage, is the symmetric studentised bootstrap:

    2 * estimate - mean(replicates)  -+  q * standard error

where q is the quantile of |replicate - mean(replicates)| / (standard error of the replicate), but at least
Student's t(K - 1). With heavy-tailed activations a few videos decide both a score and its apparent precision,
and an interval of fixed shape is too short if these videos are missing (Hall 1988, "On symmetric bootstrap
confidence intervals"; Davison & Hinkley 1997, sections 5.2 and 2.7.2). If one video has much larger
activations than the rest, replicates with and without it differ too much for any quantile. The interval is
therefore at least t(df) times the jackknife's standard error to each side, where few effective videos give
few degrees of freedom df (`jackknife.py`). Bounds stay within the range that the activations allow
(`score_range`).

A layer score is a ratio of four sums over clusters, s_f = (N_f / n_f) / (Q / n): products and number of the
pairs of factor f, squares and number of all pairs. Its standard error follows from the terms of each cluster
(infinitesimal jackknife), so one replicate needs six numbers per cluster instead of six per cluster and unit.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimator import append_shares
from .jackknife import degrees_of_freedom, student_quantile
from .moments import Moments, layer_score

# Below 8 clusters, replicates have no useful standard error, and intervals use t * std of the replicates.
FEWEST_CLUSTERS = 8


def bootstrap_weights(n_clusters: int, n_boot: int, seed: int | list[int]) -> NDArray:
    """Draw bootstrap weights (replicates, clusters); with a single cluster, there are 0 replicates."""
    if n_clusters < 2:
        return np.empty((0, n_clusters))
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_boot).astype(np.float64)


def finite_mean(replicates: NDArray) -> NDArray:
    """Return the mean over the finite bootstrap replicates; NaN if no replicate is finite."""
    finite = np.isfinite(replicates)
    with np.errstate(invalid="ignore"):
        return np.where(finite, replicates, 0).sum(0) / finite.sum(0)


def interval(point: ArrayLike, replicates: NDArray, clusters: int, level: float) -> tuple[NDArray, NDArray]:
    """Return the bounds of the bias-corrected Student's t interval; NaN if all replicates are NaN."""
    point, alive = np.asarray(point), ~np.isnan(replicates)
    count = alive.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(alive, replicates, 0).sum(0) / count
        spread = np.sqrt(np.where(alive, (replicates - mean) ** 2, 0).sum(0) / count)
    half = student_quantile(level, clusters - 1) * np.sqrt(clusters / max(1, clusters - 1)) * spread
    return 2 * point - mean - half, 2 * point - mean + half


def with_bounds(name: str, value: Any, low: Any, high: Any) -> dict:
    """Return three table columns: an estimate, and the lower and the upper bound of the interval."""
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def cluster_scalars(sums: Moments, whole: Moments) -> NDArray:
    """Return the contribution of each cluster to the sums over units that define the layer scores.

    Columns (K, 2 F + 2): for each factor, the products of its members about the mean of `whole` (the sums
    over all clusters) and the number of its pairs; then half the squares about the pooled mean, and the
    number of all pairs.
    """
    weight = whole.count / whole.count.sum()
    # `sums` are sums of activations minus `shift`, so `shift` is subtracted from the means, too.
    mean = whole.within_factors.mean - sums.shift  # (F, C)
    grand = (weight[:, None] * (mean + sums.shift)).sum(0) - sums.shift
    count = sums.count
    about_mean, about_grand = (np.einsum("kfc,fc->kf", sums.total, m) for m in (mean, grand))
    product = sums.product.sum(-1) - about_mean + count * (mean**2).sum(-1)  # (K, F)
    square = sums.square.sum(-1) - 2 * about_grand + 2 * count * (grand**2).sum(-1)
    factors = np.stack([product, count], axis=-1).reshape(len(count), -1)
    return np.column_stack([factors, square.sum(-1) / 2, count.sum(-1)])


def gradients(x: NDArray) -> NDArray:
    """Return derivatives of scores and shares with respect to `x`, the sum of all `cluster_scalars`."""
    products, counts, square, count = x[..., :-2:2], x[..., 1:-2:2], x[..., -2:-1], x[..., -1:]
    f = np.arange(counts.shape[-1])
    score = np.zeros((*counts.shape, x.shape[-1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        s = layer_score(products / counts, square / count)
        score[..., f, 2 * f] = count / (counts * square)
        score[..., f, 2 * f + 1] = -s / counts
        score[..., -2] = -s / square
        score[..., -1] = s / count
    share = append_shares(s)[..., len(f) :]  # (..., F + 1)
    slope = share[..., :, None] * (np.eye(len(f) + 1)[:, :-1] - share[..., None, :-1])
    return np.concatenate([score, slope @ score], axis=-2)


def standard_errors(x: NDArray, weights: NDArray, signs: Sequence[float] = (1,)) -> NDArray:
    """Return standard errors of scores and shares for each replicate, by the infinitesimal jackknife.

    Shapes: `cluster_scalars` x (K, J), weights (R, K) -> (R, S). Scores do not change with the scale of x,
    so the influences of all clusters sum to zero and no mean has to be subtracted. With several `signs`, x
    concatenates the scalars of as many runs, and the errors are those of the sum of signs times scores.
    """
    clusters, columns = x.shape
    parts = np.split(weights @ x, len(signs), axis=-1)
    slopes = [sign * gradients(part) for sign, part in zip(signs, parts, strict=True)]
    slope = np.concatenate(slopes, axis=-1)  # (R, S, J)
    second = weights @ (x[:, :, None] * x[:, None]).reshape(clusters, -1)
    variance = np.einsum("rsj,rjk,rsk->rs", slope, second.reshape(-1, columns, columns), slope, optimize=True)
    return np.sqrt(np.maximum(variance, 0) * clusters / max(1, clusters - 1))


def studentised_bounds(
    point: NDArray,
    replicates: NDArray,
    error: NDArray,
    errors: NDArray,
    clusters: int,
    level: float,
    deviation: NDArray | None = None,
) -> tuple[NDArray, NDArray]:
    """Return the bounds of the studentised bootstrap interval, given the replicates and standard errors.

    `error` (S,) is of the sample, `errors` (R, S) are of the replicates. `deviation` (K, S), from
    `Jackknife.deviation`, can widen the interval. Replicates that are not finite (one cluster only, or no
    pairs of a factor) do not count. Bounds are NaN if no replicate is left.
    """
    alive = np.isfinite(replicates).all(-1)
    if clusters < 2 or not alive.any():
        return np.full_like(point, np.nan), np.full_like(point, np.nan)
    replicates, errors = replicates[alive], errors[alive]
    mean = replicates.mean(0)
    # Replicates whose standard error is 0 up to rounding are left out of the studentised quantile.
    known = errors > 1e-9 * np.maximum(error, 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.where(known, np.abs(replicates - mean) / errors, np.nan)
    q = np.full(len(point), student_quantile(level, clusters - 1))
    studentised = known.any(0) & (clusters >= FEWEST_CLUSTERS)
    q[studentised] = np.maximum(q[studentised], np.nanquantile(distance[:, studentised], level, axis=0))
    if clusters < FEWEST_CLUSTERS:
        error = replicates.std(0) * np.sqrt(clusters / (clusters - 1))
    half = q * error
    if deviation is not None:
        own = student_quantile(level, degrees_of_freedom(deviation)) * np.sqrt((deviation**2).sum(0))
        half = np.fmax(half, own)
    centre = 2 * point - mean
    return centre - half, centre + half


def score_range(largest: NDArray) -> tuple[NDArray, NDArray]:
    """Return the smallest and largest possible scores and shares, given the largest scores per replicate.

    `largest` (R, F) is `LayerParts.largest_scores`. In absolute value, no score exceeds the variance of the
    factor's rows divided by the pooled variance. A share is smallest if its own score is smallest and the
    other scores are largest.
    """
    high = np.maximum(1, np.nanmax(largest, axis=0, initial=1))
    shares = []
    for side in (-1, 1):
        corners = np.where(np.eye(len(high) + 1, dtype=bool)[:, :-1], side * high, -side * high)
        shares.append(np.diag(append_shares(corners)[:, len(high) :]))
    return np.concatenate([-high, shares[0]]), np.concatenate([high, shares[1]])
