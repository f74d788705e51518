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

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from static_dynamic.errors import UserError

from .moments import Moments

FACTORS = ("dynamic", "static", "residual")
MEASURED = FACTORS[:2]  # factors with a score
UNIT_CLASSES = ("dynamic", "static", "joint", "residual", "dead")


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
    """The paper's scores, shares and unit classes of one stage; F factors: dynamic, static, residual."""

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
    """Estimate the static and dynamic information of one stage from the activations of pairs of views.

    The module's docstring has the equations. Raises UserError if activations are not finite, shapes do not
    match, a factor has no pairs, or no unit varies.

    Parameters
    ----------
    za, zb : (N, C)
        Activations of the two members of each pair, one column per unit.
    factor : (N,)
        The factor that each pair shares: 0 dynamic, 1 static. Pairs of `residual_index` share neither and
        count in the pooled variance only.
    threshold
        A unit encodes a factor if its unit score is above this threshold.
    """
    za, zb, factor = np.asarray(za, np.float64), np.asarray(zb, np.float64), np.asarray(factor)
    if za.ndim != 2 or za.shape != zb.shape or factor.shape != za.shape[:1]:
        shapes = f"{za.shape}, {zb.shape} and {factor.shape}"
        raise UserError(f"the shapes of za and zb must be (pairs, units), of factor (pairs,), not {shapes}")
    for z in (za, zb):  # a single NaN or infinite activation would make all scores NaN
        if not np.isfinite(z).all():
            pair, unit = np.argwhere(~np.isfinite(z))[0]
            raise UserError(
                f"the activation of pair {pair}, unit {unit} is {z[pair, unit]}: activations must be finite"
            )
    m = Moments.of_pairs(za, zb, factor, n_factors)
    for f in range(n_factors):
        if f != residual_index and m.count[f] == 0:
            name = FACTORS[f] if f < 2 else "other"
            raise UserError(f"no pairs of factor {f} ({name}): the score of a factor needs at least one pair")
    return estimate_moments(m, threshold, residual_index)


def estimate_moments(m: Moments, threshold: float, residual_index: int = 2) -> Estimate:
    """Estimate the scores of one stage from the sums `m` over pairs; the residual factor needs no sums."""
    measured, units = m.total.shape
    n_factors = max(measured, residual_index + 1)
    if not m.pooled_variance().sum() > 0:
        raise UserError(
            "no unit of this stage varies between inputs, so nothing can be estimated: are all clips equal?"
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
