"""Classify units by kind (content, motion, ...), and estimate intervals of the number of units per kind.

Errors of the parts spread the units: in a simulation of 1,000 units and 12 videos, more than twice as many
units seem to be of kind content as are. The units are therefore counted a second time after a correction by
constrained empirical Bayes (Louis 1984; Ghosh 1992). Let S be the covariance of the estimated parts over
units, and E the mean covariance of their errors (jackknife). The true parts have the covariance S - E. The
estimated parts are moved towards their mean, by one matrix for all units, until they have this covariance.

Random errors, drawn from the deviations of the jackknife, are added to the corrected parts, and the
correction is repeated. This gives bias and standard deviation of the corrected number. The interval of a
number spans the number itself, the corrected number, and the corrected number without bias, widened by
t(videos - 1) standard deviations.
"""

import numpy as np
from numpy.typing import NDArray

from .jackknife import student_quantile

# Units of kind unknown vary in the clips of one video only; dead units do not vary.
KINDS = ("content", "motion", "appearance", "mixed", "residual", "unknown", "dead")
# Unit kinds for which the number of units has a confidence interval.
COUNTED_KINDS = KINDS[:5]
# A unit is of kind residual if content + motion + appearance is below this fraction of its variance.
LEAST_IDENTIFIED = 0.1
# A unit has the kind of its largest part if this part is at least MAJORITY of the sum of all three parts.
MAJORITY = 0.5
# At most this many replicates are drawn for the confidence intervals of unit counts.
REPLICATES = 200


def kind_of(parts: NDArray) -> NDArray:
    """Return each unit's kind as an index into `KINDS`, from content, motion and appearance.

    The kind is unknown where a part is NaN. Shape of `parts`: (3 or 4, ..., C); the residual part is not
    used.
    """
    named = parts[:3]
    identified = named.sum(0)
    largest = np.where(np.isnan(named), -np.inf, named).argmax(0)
    mixed = np.take_along_axis(named, largest[None], 0)[0] < MAJORITY * identified
    kind = np.where(mixed, KINDS.index("mixed"), largest)
    kind = np.where(identified < LEAST_IDENTIFIED, KINDS.index("residual"), kind)
    return np.where(np.isnan(identified), KINDS.index("unknown"), kind)


def count_kinds(kinds: NDArray) -> NDArray:
    """Count the units of each kind in `COUNTED_KINDS`. Shapes: kinds (..., C), counts (..., 5)."""
    return np.stack([(kinds == k).sum(-1) for k in range(len(COUNTED_KINDS))], axis=-1)


def without_error_spread(parts: NDArray, error: NDArray) -> NDArray:
    """Shrink the estimated `parts` towards their mean, until their covariance is that of the true parts.

    Shape of `parts`: (3, C). `error` (3, 3) is the mean covariance of the units' errors.
    """
    mean = parts.mean(1, keepdims=True)
    seen = np.cov(parts, bias=True)
    return mean + root(seen - error) @ root(seen, inverse=True) @ (parts - mean)


def root(covariance: NDArray, inverse: bool = False) -> NDArray:
    """Return the square root of a symmetric matrix, or the inverse root; negative eigenvalues count as 0."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.where(values > 1e-12 * np.abs(values).max(initial=1e-300), values, 0)
    with np.errstate(divide="ignore"):
        powers = np.where(values > 0, values ** (-0.5 if inverse else 0.5), 0)
    return (vectors * powers) @ vectors.T


def count_bounds(
    parts: NDArray, error: NDArray, noise: NDArray, videos: int, level: float
) -> tuple[NDArray, NDArray]:
    """Return lower and upper confidence bounds of the number of units of each kind; NaN without replicates.

    `parts` (3, C) are estimates of content, motion and appearance, `error` (3, 3) the mean covariance of
    their errors, `noise` (R, 3, C) errors drawn at random. Units whose parts are NaN do not count.
    """
    known = np.isfinite(parts).all(0)
    parts, noise = parts[:, known], noise[..., known]
    if not len(noise) or not known.any():
        return np.full(len(COUNTED_KINDS), np.nan), np.full(len(COUNTED_KINDS), np.nan)
    corrected = without_error_spread(parts, error)
    found = np.array([count_kinds(kind_of(without_error_spread(corrected + own, error))) for own in noise])
    count, seen = count_kinds(kind_of(corrected)), count_kinds(kind_of(parts))
    ends = np.stack([seen, count, 2 * count - found.mean(0)])
    half = student_quantile(level, max(1, videos - 1)) * found.std(0)
    low, high = np.minimum(seen, ends.min(0) - half), np.maximum(seen, ends.max(0) + half)
    return np.clip(np.floor(low), 0, known.sum()), np.clip(np.ceil(high), 0, known.sum())
