"""Treat units whose activations differ only by rounding error as exactly constant, in every estimator.

Activations are stored as float32, which resolves 6e-8 of a number. Sums over space and time round in another
order in another batch, so a constant unit can differ by a few times this.
"""

import numpy as np
from numpy.typing import NDArray

# A unit counts as constant if its standard deviation is at most this fraction of its mean.
ROUNDING = 1e-6


def without_rounding(variance: NDArray, mean: NDArray) -> NDArray:
    """Return `variance`, with 0 for each variance that is only rounding error of activations near `mean`."""
    return np.where(variance <= (ROUNDING * mean) ** 2, 0.0, variance)


def settle(y: NDArray, rows: NDArray | None = None) -> None:
    """Make units that vary only by rounding error exactly constant, in place. Shape of `y`: (..., C).

    If `rows` is given, only these rows decide whether a unit is constant.
    """
    used = (y if rows is None else y[rows]).reshape(-1, y.shape[-1])
    # The first row is subtracted, because the mean square of large numbers would hide a small variance
    reference = used[0].copy()
    deviation = used - reference
    mean, variance = deviation.mean(0) + reference, deviation.var(0)
    constant = without_rounding(variance, mean) == 0
    y[..., constant] = reference[constant]
