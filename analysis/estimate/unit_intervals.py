"""Estimate intervals of unit scores, probabilities of unit classes, and intervals of class counts.

A unit score r is a correlation, so its interval is made for Fisher's z = arctanh(r), by the jackknife over
clusters (`jackknife.py`):

    z = mean of pseudo-values  -+  t(0.75 * effective videos - 1) * standard error

The effective videos of a unit are the effective number of clusters over which its variance is spread. The
factor 0.75 was chosen by simulation (bench/coverage.py). If a unit's variance rests on fewer than three
videos, nothing can be said about other videos, and the unit has no interval. Such a unit has fewer than three
effective videos, or its variance falls below 5 % without the two videos that contribute most to it.

Class probabilities and the intervals of class counts come from bootstrap replicates of z. Replicates have the
bias of the sample twice, and are too narrow. Each replicate's deviation from the mean of the replicates,
in standard deviations, is therefore mapped to the quantile of Student's t (Wallace 1959), and then centred
and scaled like the interval. The probability of a class is the fraction of such replicates.

Counting the units above a threshold is biased, since errors push more units over the threshold from the
crowded side. The bias is estimated from the replicates: corrected = 2 * count - mean(counts of replicates).
The interval of a count spans the count and the corrected count, widened by t(K - 1) standard deviations of
the replicates' counts, and always contains the paper's count.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .bits import IDENTICAL
from .estimator import UNIT_CLASSES, classify
from .jackknife import effective_number, jackknife, student_quantile
from .moments import Moments

# A unit that varies in fewer videos than this has no interval.
FEWEST_VIDEOS = 3
# A unit rests on two videos if leaving both out reduces its variance to less than this fraction.
LEAST_REST = 0.05
# The interval of a unit has DF_PER_VIDEO * (effective number of videos) - 1 degrees of freedom.
DF_PER_VIDEO = 0.75
# Unit classes for which the number of units has an interval; the number of dead units is exact.
COUNTED = UNIT_CLASSES[:4]


def fisher_z(r: NDArray) -> NDArray:
    """Return arctanh of correlations; correlations that are 1 up to rounding stay finite."""
    return np.arctanh(np.clip(r, IDENTICAL - 1, 1 - IDENTICAL))


def variance_per_cluster(sums: Moments, whole: Moments) -> NDArray:
    """Return each cluster's contribution to the sum of squares of each unit and factor. Shape: (K, F, C)."""
    mean = np.nan_to_num(whole.within_factors.mean - sums.shift)
    return sums.square - 2 * mean * sums.total + 2 * sums.count[..., None] * mean**2


def rest_on_few(sums: Moments, parts: NDArray, variance: NDArray) -> NDArray:
    """Return whether the variance of each unit is due to fewer than three clusters. Shape: (F, C).

    `variance` (F, C) is the variance of each unit, `parts` (K, F, C) are the contributions of the clusters.
    """
    largest = min(FEWEST_VIDEOS - 1, len(parts))
    strongest = np.argpartition(parts, -largest, axis=0)[-largest:]  # (2, F, C)
    count = np.broadcast_to(sums.count[..., None], parts.shape)
    n, total, square = (
        x.sum(0) - np.take_along_axis(x, strongest, axis=0).sum(0) for x in (count, sums.total, sums.square)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = square / (2 * n) - (total / (2 * n)) ** 2
        return (effective_number(parts) < FEWEST_VIDEOS) | ~(rest > LEAST_REST * variance)


@dataclass(frozen=True)
class UnitIntervals:
    """Fisher's z of each unit score, with standard error and degrees of freedom, per factor and unit."""

    z: NDArray  # (F, C) bias-corrected
    error: NDArray  # (F, C)
    df: NDArray  # (F, C)
    # (C,) smaller of both factors' effective numbers of videos; NaN if dead
    effective_videos: NDArray
    # (C,) True if the unit varies, but in fewer than three videos
    few_videos: NDArray

    @classmethod
    def of(cls, sums: Moments) -> Self:
        """Compute Fisher's z of all units and its jackknife error from sums per cluster, block by block."""
        parts = [cls._of_block(sums.units(block)) for block in sums.unit_blocks(len(sums.count))]
        return cls(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))

    @staticmethod
    def _of_block(sums: Moments) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
        whole = sums.over_clusters()
        r = whole.unit_scores()  # (F, C)
        found = jackknife(fisher_z(r), fisher_z(sums.leave_one_out().unit_scores()))
        parts = np.maximum(variance_per_cluster(sums, whole), 0)
        videos = np.where(np.isnan(r), np.nan, effective_number(parts))  # (F, C)
        few = rest_on_few(sums, parts, whole.within_factors.variance).any(0) & ~np.isnan(videos).any(0)
        df = np.maximum(1, DF_PER_VIDEO * videos - 1)
        return found.estimate, found.error, df, np.asarray(videos.min(0)), np.asarray(few)

    def bounds(self, level: float) -> tuple[NDArray, NDArray]:
        """Return lower and upper bounds of unit scores; NaN for units that are dead or vary in few videos."""
        half = student_quantile(level, self.df) * self.error
        unknown = self.few_videos | np.isnan(self.effective_videos)
        low, high = (np.where(unknown, np.nan, np.tanh(self.z + side * half)) for side in (-1, 1))
        return low, high

    def calibrate(self, r: NDArray, block: slice) -> NDArray:
        """Transform bootstrap replicates `r` of unit scores, so that their spread agrees with the intervals.

        Shape of `r`: (R, F, block). Replicates of units with few videos are returned as they are.
        """
        z, df = fisher_z(r), self.df[:, block]
        alive = np.isfinite(z)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean = np.where(alive, z, 0).sum(0) / alive.sum(0)
            deviation = np.where(alive, z - mean, 0)
            deviation /= np.maximum(np.sqrt((deviation**2).sum(0) / alive.sum(0)), 1e-300)
            exponent = np.minimum((deviation * (8 * df + 3) / (8 * df + 1)) ** 2 / df, 50)
            student = np.sign(deviation) * np.sqrt(df * np.expm1(exponent))
            calibrated = np.tanh(self.z[:, block] + self.error[:, block] * student)
        return np.where(self.few_videos[block], r, calibrated)

    def classes(self, point: NDArray, threshold: float) -> NDArray:
        """Return the class of each unit after bias correction; `point` (F, C) are the uncorrected scores."""
        r = np.where(self.few_videos | np.isnan(point), point, np.tanh(self.z))
        return classify(r[0], r[1], threshold)


def count_classes(classes: NDArray) -> NDArray:
    """Count the units of each class in `COUNTED`. Shapes: class indices (..., C), counts (..., 4)."""
    return np.stack([(classes == k).sum(-1) for k in range(len(COUNTED))], axis=-1)


def count_bounds(
    paper: NDArray, corrected: NDArray, replicates: NDArray, live: int, clusters: int, level: float
) -> tuple[NDArray, NDArray]:
    """Return confidence bounds of the number of units in each class; NaN without replicates.

    `paper` (4,) are the paper's counts, `corrected` (4,) those after bias correction of the scores,
    `replicates` (R, 4) those of calibrated replicates, `live` is the number of units that are not dead.
    """
    if not len(replicates):
        return np.full(len(paper), np.nan), np.full(len(paper), np.nan)
    half = student_quantile(level, clusters - 1) * replicates.std(0)
    ends = np.stack([corrected, 2 * corrected - replicates.mean(0)])
    low = np.minimum(ends.min(0) - half, paper)
    high = np.maximum(ends.max(0) + half, paper)
    return np.clip(np.floor(low), 0, live), np.clip(np.ceil(high), 0, live)
