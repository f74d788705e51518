"""Scores and shares of a stage, with the data from which their confidence intervals are computed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .estimator import FACTORS, MEASURED, append_shares
from .intervals import cluster_scalars, score_range, standard_errors, studentised_bounds
from .jackknife import jackknife
from .moments import LayerParts, Moments

# Names of a stage's scores and shares, in the order of the arrays of `LayerSample`.
MEASURES = tuple(f"score_{f}" for f in MEASURED) + tuple(f"share_{f}" for f in FACTORS)


@dataclass(frozen=True)
class LayerSample:
    """Scores and shares (the five `MEASURES`) of a stage, estimated from the clusters (videos) of a run."""

    value: NDArray  # (5,)
    # (R, 5) scores and shares of each bootstrap replicate
    replicates: NDArray
    # (K, J) contributions of each cluster, from `cluster_scalars`
    scalars: NDArray
    # (K, 5) jackknife deviation of each cluster
    deviation: NDArray
    # (5,) smallest possible scores and shares
    smallest: NDArray
    # (5,) largest possible scores and shares
    largest: NDArray

    @classmethod
    def of(cls, sums: Moments, weights: NDArray) -> Self:
        """Compute scores and shares from the sums of K clusters and from bootstrap weights (R, K)."""
        return cls.of_parts(sums, total_parts(m.layer_parts() for _, m in sums.replicates(weights)))

    @classmethod
    def of_parts(cls, sums: Moments, replicates: LayerParts | None) -> Self:
        """Compute scores and shares from sums per cluster and, unless None, sums per bootstrap replicate."""
        clusters = len(sums.count)
        whole = sums.over_clusters()
        parts = whole.layer_parts()
        value = append_shares(parts.scores)
        blocks = (sums.units(block) for block in sums.unit_blocks(clusters))
        left_out = total_parts(block.leave_one_out().layer_parts() for block in blocks)
        # `left_out` is not None, because a stage has at least one unit
        assert left_out is not None
        deviation = jackknife(value, append_shares(left_out.scores)).deviation
        if replicates is None:
            replicates = sums.resample(np.empty((0, clusters))).layer_parts()
        largest = np.vstack([parts.largest_scores, replicates.largest_scores])
        of_replicates = append_shares(replicates.scores)
        return cls(value, of_replicates, cluster_scalars(sums, whole), deviation, *score_range(largest))

    def bounds(self, weights: NDArray, level: float) -> tuple[NDArray, NDArray]:
        """Return bounds of the studentised intervals of scores and shares, clipped to the possible range."""
        error = standard_errors(self.scalars, np.ones((1, len(self.scalars))))[0]
        errors = standard_errors(self.scalars, weights)
        ends = studentised_bounds(
            self.value, self.replicates, error, errors, len(self.scalars), level, self.deviation
        )
        low, high = (np.clip(end, self.smallest, self.largest) for end in ends)
        return low, high


def total_parts(parts: Iterable[LayerParts]) -> LayerParts | None:
    """Add up the statistics of all blocks of units; return None if there are no blocks."""
    total = None
    for part in parts:
        total = part if total is None else LayerParts(*map(np.add, total, part))
    return total
