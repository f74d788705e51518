"""Sums over pairs of activations, and the paper's scores as functions of them.

A pair has two members, za and zb: the activations of C units for two views. The scores of a factor depend on
its pairs only through four sums per unit, which `Moments` holds:

    count    number of pairs          total    sum of za + zb
    product  sum of za * zb           square   sum of za^2 + zb^2

A bootstrap replicate weighs the sums of each cluster (all clips of one video) by the number of times that the
replicate contains the cluster. So R replicates are one matrix product, (R, K) @ (K, F * C).

Letters in shapes, in all of analysis/estimate: N pairs, C units, F factors, K clusters, R replicates, P
permutations.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# A variance below this fraction of the squared mean is rounding error of a constant unit in float64.
CANCELLATION = 1e-12
# Activations in memory at a time while they are summed, in bytes.
ROW_BYTES = 64e6
# Size of one block of replicates (replicates x factors x units), in numbers.
REPLICATE_NUMBERS = 2e6


def layer_score(covariance: NDArray, pooled_variance: NDArray) -> NDArray:
    """Divide covariance by pooled variance, both summed over units. The ratio can exceed 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / pooled_variance


def unit_score(covariance: NDArray, variance: NDArray) -> NDArray:
    """Divide a unit's covariance by its own variance: the correlation of the members; NaN for dead units."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > 0, covariance / variance, np.nan)


class WithinFactors(NamedTuple):
    """Statistics within each factor, (..., F, C); mean and variance are over all members."""

    covariance: NDArray  # of the two members of a pair
    variance: NDArray
    mean: NDArray


@dataclass(frozen=True)
class Moments:
    """Sums over the pairs of each factor.

    Leading axes are free: none for the whole sample, (K,) clusters, or (R,) bootstrap replicates. Activations
    are shifted by one row per factor, so that a constant unit sums to exactly zero.
    """

    count: NDArray  # (..., F)
    total: NDArray  # (..., F, C)
    product: NDArray  # (..., F, C)
    square: NDArray  # (..., F, C)
    shift: NDArray  # (F, C)

    @classmethod
    def of_pairs(cls, za: NDArray, zb: NDArray, factor: NDArray, n_factors: int) -> Self:
        """Sum all pairs: members za, zb (N, C) in float64, factor (N,) -> (F, C)."""
        count = np.zeros(n_factors)
        total, product, square, shift = np.zeros((4, n_factors, za.shape[1]))
        for f in range(n_factors):
            own = factor == f
            if own.any():
                count[f], shift[f] = own.sum(), za[own][0]
                a, b = za[own] - shift[f], zb[own] - shift[f]  # (pairs of f, C)
                total[f], product[f], square[f] = (a + b).sum(0), (a * b).sum(0), (a * a + b * b).sum(0)
        return cls(count, total, product, square, shift)

    @classmethod
    def per_cluster(
        cls, rows: NDArray, pairs: pd.DataFrame, cluster: NDArray, n_clusters: int, n_factors: int = 2
    ) -> Self:
        """Sum the pairs of each cluster: rows (views, C) on disk, cluster (N,) numbers -> (K, F, C).

        `pairs` has row numbers ``a`` and ``b`` of the members, and ``factor``. Rows are read block by block:
        memory grows with clusters x units, not with the number of pairs.
        """
        order = np.lexsort((pairs["factor"], cluster))
        a, b, factor = (pairs[name].to_numpy()[order] for name in ("a", "b", "factor"))
        group = cluster[order] * n_factors + factor  # (pairs,), ascending
        shape = (n_clusters, n_factors, rows.shape[1])
        shift = np.stack([rows[a[np.argmax(factor == f)]] for f in range(n_factors)]).astype(np.float64)
        total, product, square = (np.zeros((n_clusters * n_factors, rows.shape[1])) for _ in range(3))
        size = max(1, int(ROW_BYTES / (16 * rows.shape[1])))
        for start in range(0, len(group), size):
            block = slice(start, start + size)
            za = rows[a[block]] - shift[factor[block]]  # (pairs of the block, C), float64
            zb = rows[b[block]] - shift[factor[block]]
            groups, first = np.unique(group[block], return_index=True)
            total[groups] += np.add.reduceat(za + zb, first)
            square[groups] += np.add.reduceat(za**2 + zb**2, first)
            za *= zb
            product[groups] += np.add.reduceat(za, first)
        count = np.bincount(group, minlength=len(total)).reshape(shape[:2]).astype(np.float64)
        return cls(count, total.reshape(shape), product.reshape(shape), square.reshape(shape), shift)

    def over_clusters(self) -> Self:
        """Add up all clusters: (K, F, C) -> (F, C)."""
        return self._each(lambda sums: sums.sum(0))

    def clusters(self, chosen: NDArray) -> Self:
        """Return the sums of the chosen clusters only."""
        return self._each(lambda sums: sums[chosen])

    def units(self, block: slice) -> Self:
        """Return the sums of a block of units only."""
        names = ("total", "product", "square", "shift")
        return replace(self, **{name: getattr(self, name)[..., block] for name in names})

    def one_replicate(self) -> Self:
        """Return the whole sample in the shape of replicates: (F, C) -> (1, F, C)."""
        return self._each(lambda sums: sums[None])

    def resample(self, weights: NDArray) -> Self:
        """Weigh the clusters by ``weights`` (R, K), one replicate per row: (K, F, C) -> (R, F, C)."""
        return self._each(lambda sums: np.tensordot(weights, sums, 1))

    def replicates(self, weights: NDArray) -> Iterator[tuple[slice, Self]]:
        """Yield blocks of units that fit into memory, with their replicates; no block if R is 0."""
        factors, units = self.total.shape[-2:]
        width = max(1, int(REPLICATE_NUMBERS / max(1, len(weights) * factors)))
        for start in range(0, units if len(weights) else 0, width):
            block = slice(start, start + width)
            yield block, self.units(block).resample(weights)

    @cached_property
    def within_factors(self) -> WithinFactors:
        """Covariance, variance and mean within each factor; a factor without pairs has NaN."""
        with np.errstate(invalid="ignore", divide="ignore"):
            count = self.count[..., None]
            mean = self.total / (2 * count)
            covariance = self.product / count - mean**2
            variance = self.square / (2 * count) - mean**2
            variance = np.where(variance <= CANCELLATION * mean**2, 0.0, variance)
        return WithinFactors(covariance, variance, mean + self.shift)

    def pooled_variance(self) -> NDArray:
        """Return the variance of each unit over the members of all factors pooled, (..., C)."""
        _, variance, mean = self.within_factors
        weight = (self.count / self.count.sum(-1, keepdims=True))[..., None]  # (..., F, 1)
        # A factor without pairs has weight 0, and its mean and variance are NaN.
        mean, variance = np.where(weight > 0, mean, 0.0), np.where(weight > 0, variance, 0.0)
        grand = (weight * mean).sum(-2, keepdims=True)
        return (weight * (variance + (mean - grand) ** 2)).sum(-2)

    def score_parts(self) -> tuple[NDArray, NDArray]:
        """Return numerator (..., F) and denominator (...) of the layer scores; they add up over units."""
        return self.within_factors.covariance.sum(-1), self.pooled_variance().sum(-1)

    def layer_scores(self) -> NDArray:
        """Return the paper's layer score of each factor, (..., F)."""
        covariance, pooled_variance = self.score_parts()
        return layer_score(covariance, pooled_variance[..., None])

    def unit_scores(self) -> NDArray:
        """Return the paper's unit score of each factor, (..., F, C); NaN for dead units."""
        return unit_score(self.within_factors.covariance, self.within_factors.variance)

    def _each(self, change: Callable[[NDArray], NDArray]) -> Self:
        """Apply one function to the count and to the three sums."""
        names = ("count", "total", "product", "square")
        return replace(self, **{name: change(getattr(self, name)) for name in names})
