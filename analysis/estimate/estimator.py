"""The paper's estimator of static and dynamic information (Kowal et al., CVPR 2022), for one stage.

Rows za, zb (N, C) are the two members of each pair and f is a pair's factor. With m, v the mean and the
total variance (summed over units) of all rows of all factors pooled, and population variances throughout:

    layer score  s_f  = sum_u mean_f[(za_u - m_fu)(zb_u - m_fu)] / v    m_fu: mean over factor f's rows za, zb
    unit score   r_fu = mean_f[(za_u - m_fu)(zb_u - m_fu)] / v_fu       v_fu: their variance
    shares       softmax(s_dynamic, s_static, 1)
    dimensions   int(share * C); the last factor takes the remainder
    units        dynamic: r_dynamic > threshold >= r_static; static: the reverse; joint: both above;
                 residual: neither; dead: v_fu = 0

Everything is a function of the sums in `Moments`, so that a bootstrap needs matrix products only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from static_dynamic.errors import UserError

FACTORS = ("dynamic", "static", "residual")
UNIT_CLASSES = ("dynamic", "static", "joint", "residual", "dead")
# a variance below this part of the squared mean is what subtraction leaves of a constant in float64
CANCELLATION = 1e-12
# members whose correlation is nearer to one share all that float32 can hold
IDENTICAL = 1e-9


@dataclass(frozen=True)
class Moments:
    """Sums over the pairs of each factor, of rows shifted by ``shift``; any leading axes (clips,
    replicates) first.

    count (..., F) pairs; total (..., F, C) sum of za + zb; product (..., F, C) sum of za * zb; square (...,
    F, C) sum of za^2 + zb^2; shift (F, C), one row of each factor, so that a constant unit sums to exactly
    zero.
    """

    count: NDArray
    total: NDArray
    product: NDArray
    square: NDArray
    shift: NDArray


def moments(za: NDArray, zb: NDArray, factor: NDArray, n_factors: int) -> Moments:
    """Sum the pairs of one sample, in float64."""
    units = za.shape[1]
    count = np.zeros(n_factors)
    total, product, square, shift = (np.zeros((n_factors, units)) for _ in range(4))
    for f in range(n_factors):
        pairs = np.flatnonzero(factor == f)
        if not len(pairs):
            continue
        shift[f] = za[pairs[0]]
        a, b = za[pairs] - shift[f], zb[pairs] - shift[f]  # (pairs of f, C)
        count[f] = len(pairs)
        total[f], product[f], square[f] = (a + b).sum(0), (a * b).sum(0), (a * a + b * b).sum(0)
    return Moments(count, total, product, square, shift)


def covariance_and_variance(m: Moments) -> tuple[NDArray, NDArray, NDArray]:
    """Within each factor: covariance of the members, variance and mean (shifted back) of the rows, each
    (..., F, C)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        count = m.count[..., None]
        mean = m.total / (2 * count)
        covariance = m.product / count - mean**2
        variance = m.square / (2 * count) - mean**2
        # what cancellation leaves is no variance
        variance = np.where(variance <= CANCELLATION * mean**2, 0.0, variance)
    return covariance, variance, mean + m.shift


def pooled_variance(m: Moments, variance: NDArray, mean: NDArray) -> NDArray:
    """Variance of each unit over all rows of all factors pooled, (..., C)."""
    weight = (m.count / m.count.sum(-1, keepdims=True))[..., None]  # (..., F, 1)
    # a factor without pairs has weight 0 and no mean
    mean, variance = np.where(weight > 0, mean, 0.0), np.where(weight > 0, variance, 0.0)
    grand = (weight * mean).sum(-2, keepdims=True)
    return (weight * (variance + (mean - grand) ** 2)).sum(-2)


def unit_correlations(covariance: NDArray, variance: NDArray) -> NDArray:
    """Correlation of the members of pairs, per factor and unit; NaN where a unit is dead."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > 0, covariance / variance, np.nan)


def gaussian_bits(r: NDArray) -> NDArray:
    """Bits that Gaussian variables of correlation `r` share, -1/2 log2(1 - r^2); infinite where they are the
    same."""
    with np.errstate(divide="ignore"):
        return np.where(1 - np.abs(r) < IDENTICAL, np.inf, -0.5 * np.log2(np.maximum(1 - r**2, 0)))


def softmax(scores: NDArray, axis: int = -1) -> NDArray:
    """Softmax along `axis`, from the largest score down so that nothing overflows."""
    exponential = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return exponential / exponential.sum(axis=axis, keepdims=True)


def dimensions(shares: NDArray, units: int) -> tuple[list[int], list[float]]:
    """Shares as numbers of units: truncated, the last factor takes the remainder; and as percent, one
    decimal."""
    dims = [int(share * units) for share in shares[:-1]]
    dims.append(units - sum(dims))
    return dims, [round(100 * d / units, 1) for d in dims]


def classify(dynamic: NDArray, static: NDArray, threshold: float) -> NDArray:
    """Class of each unit as an index into `UNIT_CLASSES`; dead where a score is NaN."""
    above_dynamic, above_static = dynamic > threshold, static > threshold
    index = np.select([above_dynamic & above_static, above_dynamic, above_static], [2, 0, 1], default=3)
    return np.where(np.isnan(dynamic) | np.isnan(static), 4, index).astype(np.int8)


@dataclass(frozen=True)
class Estimate:
    """The paper's numbers for one stage; factors in the order dynamic, static, residual."""

    scores: NDArray  # (F,)
    shares: NDArray  # (F,)
    dims: list[int]
    dims_percent: list[float]
    unit_scores: NDArray  # (2, C), NaN where dead
    unit_shares: NDArray  # (C, F)
    unit_class: NDArray  # (C,) of UNIT_CLASSES


def estimate_pairs(
    za: ArrayLike,
    zb: ArrayLike,
    factor: ArrayLike,
    threshold: float = 0.5,
    *,
    n_factors: int = 3,
    residual_index: int = 2,
) -> Estimate:
    """Estimate static and dynamic information from pairs of activations; see the module's text.

    Parameters
    ----------
    za, zb : (N, C)
        Activations of the two members of each pair, one column per unit.
    factor : (N,)
        What each pair shares: 0 dynamic, 1 static (`residual_index`: neither, counted in the pooled variance
        alone).
    threshold
        A unit encodes a factor where its correlation is greater.

    Raises
    ------
    UserError
        Activations that are not finite or do not match, a factor without pairs, or no variance at all.
    """
    za, zb, factor = np.asarray(za, np.float64), np.asarray(zb, np.float64), np.asarray(factor)
    if za.ndim != 2 or za.shape != zb.shape or factor.shape != za.shape[:1]:
        raise UserError(f"pairs do not match: za {za.shape}, zb {zb.shape}, factor {factor.shape}")
    refuse_not_finite(za, zb)
    m = moments(za, zb, factor, n_factors)
    measured = [f for f in range(n_factors) if f != residual_index]
    for f in measured:
        if m.count[f] == 0:
            raise UserError(
                f"no pairs of factor {f} ({FACTORS[f] if f < 2 else 'other'}): its score is not defined"
            )
    return estimate_moments(m, threshold, residual_index)


def estimate_moments(m: Moments, threshold: float, residual_index: int = 2) -> Estimate:
    """Estimate from the sums over all pairs, of every factor or of all but a last residual; see
    `estimate_pairs`."""
    measured, units = m.total.shape
    n_factors = max(measured, residual_index + 1)
    covariance, variance, mean = covariance_and_variance(m)
    total = pooled_variance(m, variance, mean).sum()
    if not total > 0:
        raise UserError(
            "no unit of this stage varies over the views: nothing can be estimated (are all clips the same?)"
        )
    scores = np.ones(n_factors)
    unit_scores = np.ones((n_factors, units))
    for f in range(measured):
        if f != residual_index:
            scores[f] = covariance[f].sum() / total
            unit_scores[f] = unit_correlations(covariance[f], variance[f])
    shares = softmax(scores)
    dims, percent = dimensions(shares, units)
    classes = classify(unit_scores[0], unit_scores[1], threshold)
    return Estimate(
        scores=scores,
        shares=shares,
        dims=dims,
        dims_percent=percent,
        unit_scores=unit_scores[:2],
        unit_shares=softmax(unit_scores, axis=0).T,
        unit_class=np.array(UNIT_CLASSES)[classes],
    )


def refuse_not_finite(*rows: NDArray) -> None:
    """Raise where an activation is NaN or infinite: it would spoil every number of its stage."""
    for z in rows:
        if not np.isfinite(z).all():
            pair, unit = np.argwhere(~np.isfinite(z))[0]
            raise UserError(
                f"activation of pair {pair}, unit {unit} is {z[pair, unit]}: find the view that makes it"
            )
