"""Compute sums over pairs of activations, and the paper's scores from these sums.

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

from .constant import without_rounding

# This many bytes of activations are read into memory at a time.
ROW_BYTES = 64e6
# At most this many sums (replicates x factors x units) of bootstrap replicates are held in memory.
REPLICATE_NUMBERS = 2e6


def layer_score(covariance: NDArray, pooled_variance: NDArray) -> NDArray:
    """Divide covariance by pooled variance, both summed over units. The ratio can exceed 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return covariance / pooled_variance


def unit_score(covariance: NDArray, variance: NDArray) -> NDArray:
    """Return each unit's correlation of pair members (covariance / variance); NaN if the unit is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variance > 0, covariance / variance, np.nan)


class WithinFactors(NamedTuple):
    """Statistics of each unit per factor (dynamic, static); mean and variance are over both pair members."""

    covariance: NDArray  # between pair members
    variance: NDArray
    mean: NDArray


class LayerParts(NamedTuple):
    """Statistics of a layer per factor, summed over a block of units; `total_parts` adds up the blocks."""

    # (..., F) covariance of the two members of pairs
    covariance: NDArray
    # (..., F) variance over the members of one factor's pairs
    variance: NDArray
    # (..., 1) variance over the members of all pairs
    pooled_variance: NDArray

    @property
    def scores(self) -> NDArray:
        """The paper's layer scores. Shape: (..., F)."""
        return layer_score(self.covariance, self.pooled_variance)

    @property
    def largest_scores(self) -> NDArray:
        """Largest possible layer scores, reached if all pairs have identical members. Shape: (..., F)."""
        return layer_score(self.variance, self.pooled_variance)


@dataclass(frozen=True)
class Moments:
    """Sums per unit over the pairs of each factor (dynamic, static); they determine all scores.

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
        """Compute each factor's four sums per unit from the pair members `za`, `zb` (pairs, units)."""
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
        """Compute the sums per cluster and factor from stored activations. Shape: (clusters, factors, units).

        `rows` is (views, C), `cluster` (N,). `pairs` has ``factor`` and the row numbers ``a``, ``b`` of the
        members. Rows are read in blocks, so memory grows with clusters x units, not with the number of pairs.
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
            za = rows[a[block]] - shift[factor[block]]  # (pairs, C) in float64
            zb = rows[b[block]] - shift[factor[block]]
            groups, first = np.unique(group[block], return_index=True)
            total[groups] += np.add.reduceat(za + zb, first)
            square[groups] += np.add.reduceat(za**2 + zb**2, first)
            za *= zb
            product[groups] += np.add.reduceat(za, first)
        count = np.bincount(group, minlength=len(total)).reshape(shape[:2]).astype(np.float64)
        return cls(count, total.reshape(shape), product.reshape(shape), square.reshape(shape), shift)

    def over_clusters(self) -> Self:
        """Add up the sums of all clusters; the result has no cluster axis."""
        return self._each(lambda sums: sums.sum(0))

    def clusters(self, chosen: NDArray) -> Self:
        """Return the sums of the chosen clusters only."""
        return self._each(lambda sums: sums[chosen])

    def units(self, block: slice) -> Self:
        """Return the sums of the units that the slice `block` selects."""
        names = ("total", "product", "square", "shift")
        return replace(self, **{name: getattr(self, name)[..., block] for name in names})

    def one_replicate(self) -> Self:
        """Return the sums with a leading axis of length 1, as if the sample were one bootstrap replicate."""
        return self._each(lambda sums: sums[None])

    def resample(self, weights: NDArray) -> Self:
        """Return each replicate's sums over clusters, weighted by `weights` (replicates, clusters)."""
        return self._each(lambda sums: np.tensordot(weights, sums, 1))

    def leave_one_out(self) -> Self:
        """Return, for each cluster, the sums over all other clusters. Shape: (clusters, factors, units)."""
        return self._each(lambda sums: sums.sum(0) - sums)

    def unit_blocks(self, samples: int) -> Iterator[slice]:
        """Split the units into slices whose sums fit into memory for all `samples` replicates or clusters."""
        factors, units = self.total.shape[-2:]
        width = max(1, int(REPLICATE_NUMBERS / max(1, samples * factors)))
        yield from (slice(start, start + width) for start in range(0, units, width))

    def replicates(self, weights: NDArray) -> Iterator[tuple[slice, Self]]:
        """Yield slices of units that fit into memory, each with the sums of its units in every replicate."""
        for block in self.unit_blocks(len(weights)) if len(weights) else ():
            yield block, self.units(block).resample(weights)

    @cached_property
    def within_factors(self) -> WithinFactors:
        """Per factor, each unit's covariance between pair members, variance and mean; NaN without pairs."""
        with np.errstate(invalid="ignore", divide="ignore"):
            count = self.count[..., None]
            mean = self.total / (2 * count)
            covariance = self.product / count - mean**2
            variance = self.square / (2 * count) - mean**2
            variance = without_rounding(without_rounding(variance, mean), mean + self.shift)
            covariance = np.where(variance == 0, 0.0, covariance)
        return WithinFactors(covariance, variance, mean + self.shift)

    def pooled_variance(self) -> NDArray:
        """Return each unit's variance over the members of all pairs, dynamic and static pairs together."""
        _, variance, mean = self.within_factors
        # replicates without any pair have the weight NaN
        with np.errstate(invalid="ignore"):
            weight = (self.count / self.count.sum(-1, keepdims=True))[..., None]  # (..., F, 1)
        # A factor without pairs has weight 0, so 0 replaces the factor's NaN mean and variance.
        mean, variance = np.where(weight > 0, mean, 0.0), np.where(weight > 0, variance, 0.0)
        grand = (weight * mean).sum(-2, keepdims=True)
        pooled = (weight * (variance + (mean - grand) ** 2)).sum(-2)
        return without_rounding(pooled, grand.squeeze(-2))

    def layer_parts(self) -> LayerParts:
        """Return the sums over units from which layer scores are computed."""
        covariance, variance, _ = self.within_factors
        return LayerParts(covariance.sum(-1), variance.sum(-1), self.pooled_variance().sum(-1)[..., None])

    def layer_scores(self) -> NDArray:
        """Return the paper's layer score of each factor."""
        return self.layer_parts().scores

    def unit_scores(self) -> NDArray:
        """Return the paper's score of each unit for each factor; NaN for constant units."""
        return unit_score(self.within_factors.covariance, self.within_factors.variance)

    def _each(self, change: Callable[[NDArray], NDArray]) -> Self:
        """Return a copy with `change` applied to the number of pairs and to the three sums per unit."""
        names = ("count", "total", "product", "square")
        return replace(self, **{name: change(getattr(self, name)) for name in names})
