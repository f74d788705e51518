"""The paper's estimator of static and dynamic information (Kowal et al., CVPR 2022), for one stage.

The two members of N pairs are za, zb (N, C); f is the factor that the members of a pair share. With m, v the
mean and the total variance (summed over units) of all members of all factors pooled:

    layer score  s_f  = sum_u mean_f[(za_u - m_fu)(zb_u - m_fu)] / v    m_fu: mean of factor f's za, zb
    unit score   r_fu = mean_f[(za_u - m_fu)(zb_u - m_fu)] / v_fu       v_fu: variance of factor f's za, zb
    shares       softmax(s_dynamic, s_static, 1)
    dimensions   int(share * C); the last factor takes the remainder
    units        dynamic: r_dynamic > threshold >= r_static; static: the reverse; joint: both above;
                 residual: neither; dead: v_fu = 0

All variances are population variances. A unit score is a correlation. A layer score is a ratio to the pooled
variance, is not a correlation, and can exceed 1. Both scores are computed in `moments.py`.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from static_dynamic.errors import UserError

from .moments import Moments

FACTORS = ("dynamic", "static", "residual")
MEASURED = FACTORS[:2]  # factors with a score
UNIT_CLASSES = ("dynamic", "static", "joint", "residual", "dead")
# Sums of squares of activations below this bound cannot overflow in float64.
LARGEST = 1e150


def append_shares(scores: NDArray) -> NDArray:
    """Append shares to layer scores. Shares are the softmax of the scores and of a residual score of 1."""
    with_residual = np.concatenate([scores, np.ones_like(scores[..., :1])], axis=-1)
    return np.concatenate([scores, softmax(with_residual, axis=-1)], axis=-1)


def classify(dynamic: NDArray, static: NDArray, threshold: float) -> NDArray:
    """Return the unit class of each unit as an index into `UNIT_CLASSES`; units with a NaN score are dead."""
    above_dynamic, above_static = dynamic > threshold, static > threshold
    index = np.select([above_dynamic & above_static, above_dynamic, above_static], [2, 0, 1], default=3)
    return np.where(np.isnan(dynamic) | np.isnan(static), 4, index).astype(np.int8)


@dataclass(frozen=True)
class Estimate:
    """Scores, shares and unit classes of one stage; the F factors are dynamic, static and residual."""

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
    """Estimate the static and dynamic information of one stage from its activations for pairs of views.

    The module's docstring has the equations. If a factor has a single pair, the scores of its units are -1 or
    NaN (dead), whatever the activations are. Raises UserError if shapes do not match, there are no units, an
    activation is not finite or too large, a factor is unknown or has no pairs, the threshold is not a number
    between -1 and 1, or no unit varies.

    Parameters
    ----------
    za, zb : (N, C)
        Activations of the two members of each pair, one column per unit.
    factor : (N,)
        The factor that each pair shares: 0 (or False) dynamic, 1 (or True) static. Pairs of `residual_index`
        share neither and count in the pooled variance only.
    threshold
        A unit encodes a factor if its unit score is above this threshold.
    """
    require_threshold(threshold)
    try:
        za, zb, factor = np.asarray(za, np.float64), np.asarray(zb, np.float64), np.asarray(factor)
    except (TypeError, ValueError) as error:
        raise UserError(f"za and zb must be arrays of numbers, and factor an array ({error})") from error
    if za.ndim != 2 or za.shape != zb.shape or factor.shape != za.shape[:1]:
        shapes = f"{za.shape}, {zb.shape} and {factor.shape}"
        raise UserError(f"za and zb must have shape (pairs, units), and factor shape (pairs,), not {shapes}")
    if not za.shape[1]:
        raise UserError(f"za and zb have no units (shape {za.shape}): one column per unit is expected")
    require_usable(za, zb)
    unknown = ~np.isin(factor, np.arange(n_factors))
    if unknown.any():
        pair = int(np.argmax(unknown))
        known = ", ".join(f"{f} ({name})" for f, name in enumerate(FACTORS[:n_factors]))
        raise UserError(f"the factor of pair {pair} is {factor[pair]}: a factor must be one of {known}")
    m = Moments.of_pairs(za, zb, factor, n_factors)
    for f in range(n_factors):
        if f != residual_index and m.count[f] == 0:
            name = FACTORS[f] if f < 2 else "other"
            raise UserError(f"no pairs of factor {f} ({name}): the score of a factor needs at least one pair")
    return estimate_moments(m, threshold, residual_index)


def require_threshold(threshold: float) -> None:
    """Raise UserError unless the threshold is between -1 and 1, the range of unit scores."""
    if not isinstance(threshold, Real) or isinstance(threshold, bool) or not -1 <= threshold <= 1:
        raise UserError(f"threshold={threshold}: a finite number between -1 and 1 is expected")


def require_usable(za: NDArray, zb: NDArray) -> None:
    """Raise UserError for an activation that is NaN, infinite, or so large that sums of squares overflow."""
    for name, z in (("za", za), ("zb", zb)):
        unusable = ~(np.abs(z) < LARGEST)  # True for NaN
        if unusable.any():
            pair, unit = np.argwhere(unusable)[0]
            value = z[pair, unit]
            rule = (
                f"must be below {LARGEST:g}, or squares overflow" if np.isfinite(value) else "must be finite"
            )
            raise UserError(f"the activation of pair {pair}, unit {unit} in {name} is {value:g}: it {rule}")


def estimate_moments(m: Moments, threshold: float, residual_index: int = 2) -> Estimate:
    """Estimate the paper's scores, shares and unit classes of one stage from the sums `m` over pairs.

    The residual factor needs no sums.
    """
    require_threshold(threshold)
    measured, units = m.total.shape
    n_factors = max(measured, residual_index + 1)
    if not m.pooled_variance().sum() > 0:
        raise UserError(
            "no unit of this stage varies between inputs, so use clips that differ from each other"
        )
    scores = np.ones(n_factors)
    unit_scores = np.ones((n_factors, units))
    with_score = [f for f in range(measured) if f != residual_index]
    scores[with_score] = m.layer_scores()[with_score]
    unit_scores[with_score] = m.unit_scores()[with_score]
    shares = softmax(scores)
    dims = [int(share * units) for share in shares[:-1]]
    dims.append(units - sum(dims))
    percent = [round(100 * d / units, 1) for d in dims]
    classes = classify(unit_scores[0], unit_scores[1], threshold)
    unit_shares, unit_class = softmax(unit_scores, axis=0).T, np.array(UNIT_CLASSES)[classes]
    return Estimate(scores, shares, dims, percent, unit_scores[:2], unit_shares, unit_class)
