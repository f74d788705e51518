"""Estimate the bias, standard error and degrees of freedom of a statistic by a jackknife over clusters.

The jackknife is that of Quenouille (1956) and Tukey (1958). A statistic is computed from all K clusters
(videos), and K times without one of them. Its pseudo-values are

    K * statistic - (K - 1) * (statistic without cluster g)

Their mean is the bias-corrected estimate, and their spread gives the standard error.

Few videos may decide both a statistic and its standard error: a unit that is active in a few videos, or a
video with large activations. The standard error is then itself uncertain, and Student's t needs fewer degrees
of freedom than K - 1. Two numbers say how many videos count:

    effective number     (sum w)^2 / sum w^2, for non-negative weights w; K if all weights are equal
    degrees of freedom   3 (sum e^2)^2 / sum e^4 - 1, for the deviations e of the pseudo-values; K - 1 for
                         normal deviations, for which sum e^4 is 3 (sum e^2)^2 / K
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit


class Jackknife(NamedTuple):
    """Bias-corrected estimate, and one deviation per cluster; the squared deviations sum to the variance."""

    estimate: NDArray  # (...)
    deviation: NDArray  # (K, ...)

    @property
    def error(self) -> NDArray:
        """Standard error of the statistic."""
        return np.sqrt((self.deviation**2).sum(0))


def jackknife(whole: NDArray, left_out: NDArray) -> Jackknife:
    """Jackknife a statistic, given its value for all K clusters (`whole`) and without each one (`left_out`).

    Shapes: `whole` (...), `left_out` (K, ...).
    """
    clusters = len(left_out)
    pseudo = clusters * whole - (clusters - 1) * left_out
    estimate = pseudo.mean(0)
    return Jackknife(estimate, (pseudo - estimate) / np.sqrt(clusters * max(1, clusters - 1)))


def effective_number(weights: NDArray) -> NDArray:
    """Return the effective number (sum w)^2 / sum w^2 of weights w along the first axis; NaN if all are 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return weights.sum(0) ** 2 / (weights**2).sum(0)


def degrees_of_freedom(deviation: NDArray) -> NDArray:
    """Return degrees of freedom (1 to K - 1) of Student's t, given jackknife deviations of K clusters."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found = 3 * (deviation**2).sum(0) ** 2 / (deviation**4).sum(0) - 1
    return np.clip(np.nan_to_num(found, nan=np.inf), 1, max(1, len(deviation) - 1))


def student_quantile(level: float, df: ArrayLike) -> NDArray:
    """Return the quantile of Student's t for a two-sided confidence interval at `level`."""
    return stdtrit(df, (1 + level) / 2)
