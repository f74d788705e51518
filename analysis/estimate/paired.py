"""Differences between runs, with intervals from a bootstrap over videos that pairs what it can.

Two networks that saw the same videos err in the same direction: a video that is easy for one is easy for
the other. A replicate therefore draws the videos that the runs have in common once, and estimates both runs
from that draw; the difference is taken within the replicate. Runs without common videos are drawn
independently. Sums and estimates are those of `static_dynamic.analysis.estimate.bootstrap`, intervals of `static_dynamic.analysis.estimate.studentised`: what
a video adds to a difference is the difference of what it adds to both runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.bootstrap import (
    MEASURED,
    REPLICATE_NUMBERS,
    bootstrap_weights,
    cluster_moments,
    over_all_clusters,
    resample,
)
from static_dynamic.analysis.estimate.estimator import (
    FACTORS,
    Moments,
    covariance_and_variance,
    pooled_variance,
    softmax,
)
from static_dynamic.analysis.estimate.studentised import bounds, cluster_scalars, gradients, standard_errors
from static_dynamic.analysis.run.store import Store

MEASURES = tuple(f"score_{f}" for f in MEASURED) + tuple(f"share_{f}" for f in FACTORS)
# runs of which fewer videos than this are common, as a part of the smaller run's, are not paired
LEAST_COMMON = 0.5


@dataclass(frozen=True)
class Compared:
    """Measures, each (5,) in the order of `MEASURES`, with their interval; over how many videos of either
    side, and whether these are the same ones."""

    value: NDArray
    low: NDArray
    high: NDArray
    videos: tuple[int, int]
    paired: bool


@dataclass(frozen=True)
class Drawn:
    """One stage of one run over some videos: measures (5,), those of each replicate (R, 5), and what each
    video adds to the sums that they come from (videos, J; `cluster_scalars`)."""

    value: NDArray
    replicates: NDArray
    scalars: NDArray


def measures(sums: Moments) -> NDArray:
    """Scores and shares from sums over pairs: (..., F, C) -> (..., 5)."""
    return from_parts(*score_parts(sums))


def score_parts(sums: Moments) -> tuple[NDArray, NDArray]:
    """Numerators (..., 2) and denominator (...) of the layer scores."""
    covariance, variance, mean = covariance_and_variance(sums)
    return covariance.sum(-1), pooled_variance(sums, variance, mean).sum(-1)


def from_parts(numerator: NDArray, denominator: NDArray) -> NDArray:
    """Measures (..., 5) from the parts of the scores."""
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = numerator / denominator[..., None]
    residual = np.ones((*scores.shape[:-1], 1))
    return np.concatenate([scores, softmax(np.concatenate([scores, residual], -1))], -1)


def replicate_measures(sums: Moments, weights: NDArray) -> NDArray:
    """Measures of each replicate, (R, 5); units block by block, as many as memory likes."""
    numerator, denominator = np.zeros((len(weights), len(MEASURED))), np.zeros(len(weights))
    width = max(1, int(REPLICATE_NUMBERS / max(1, len(weights) * len(MEASURED))))
    for start in range(0, sums.total.shape[-1], width):
        above, below = score_parts(resample(sums, weights, slice(start, start + width)))
        numerator += above
        denominator += below
    return from_parts(numerator, denominator)


def squared_errors(parts: Sequence[Drawn], signs: Sequence[float], weights: NDArray) -> NDArray:
    """Squared standard errors, (R, 5), of a weighted sum of measures of the same videos."""
    columns = parts[0].scalars.shape[1]

    def slope_of(sums: NDArray) -> NDArray:
        split = np.split(sums, range(columns, sums.shape[-1], columns), axis=-1)
        return np.concatenate([sign * gradients(x) for sign, x in zip(signs, split, strict=True)], axis=-1)

    return standard_errors(np.hstack([part.scalars for part in parts]), weights, slope_of) ** 2


# a run by its number, and the stage of it that is looked at
Member = tuple[int, str]


class PairedBootstrap:
    """Means over runs and differences between runs, a stage each; what two of them share is computed once.

    Parameters
    ----------
    stores
        The runs.
    data
        What data each run saw: videos of the same name are the same ones where this is equal.
    """

    def __init__(self, stores: Sequence[Store], data: Sequence, n_boot: int = 1000, seed: int = 0):
        self.stores, self.data, self.n_boot, self.seed = stores, data, n_boot, seed
        self.videos = [np.unique(store.finished_pairs()["cluster"].to_numpy()) for store in stores]
        self._known: dict = {}
        self._latest: tuple[Member, Moments] | None = None

    def mean(self, members: Sequence[Member], level: float = 0.95) -> Compared:
        """The mean of some runs, over the videos that all of them have."""
        return self._compare([(members, 1.0)], [self.common_videos(members)], [0], level)

    def difference(self, left: Sequence[Member], right: Sequence[Member], level: float = 0.95) -> Compared:
        """Mean of the runs `left` less mean of the runs `right`; see the module's text.

        Unpaired, Student's t has the degrees of freedom of the smaller side.
        """
        common = self.common_videos([*left, *right])
        sides = [self.common_videos(members) for members in (left, right)]
        if len(common) >= max(1, LEAST_COMMON * min(map(len, sides))):
            return self._compare([(left, 1.0), (right, -1.0)], [common, common], [0, 0], level)
        streams = [1 + min(run for run, _ in members) for members in (left, right)]
        return self._compare([(left, 1.0), (right, -1.0)], sides, streams, level)

    def _compare(
        self,
        sides: Sequence[tuple[Sequence[Member], float]],
        videos: Sequence[NDArray],
        streams: Sequence[int],
        level: float,
    ) -> Compared:
        """Add up the means of each side, times its sign; sides of one stream of draws are of the same
        videos."""
        by_stream: dict[int, list[tuple[Drawn, float]]] = {}
        for (members, sign), names, stream in zip(sides, videos, streams, strict=True):
            parts = [(self._of(member, names, stream), sign / len(members)) for member in members]
            by_stream.setdefault(stream, []).extend(parts)
        drawn = [part for parts in by_stream.values() for part in parts]
        value = sum(sign * part.value for part, sign in drawn)
        count = [len(names) for names in videos]
        low = high = np.full_like(value, np.nan)
        if min(count) > 1:
            replicates = sum(sign * part.replicates for part, sign in drawn)
            error, errors = 0.0, 0.0
            for stream, parts in by_stream.items():
                members, signs = zip(*parts, strict=True)
                clusters = len(members[0].scalars)
                error = error + squared_errors(members, signs, np.ones((1, clusters)))[0]
                errors = errors + squared_errors(members, signs, self._weights(clusters, stream))
            low, high = bounds(value, replicates, np.sqrt(error), np.sqrt(errors), min(count), level)
        return Compared(value, low, high, (count[0], count[-1]), paired=len(by_stream) == 1)

    def common_videos(self, members: Sequence[Member]) -> NDArray:
        """Names of the videos that every one of these runs has; none where they saw different data."""
        first, *others = (run for run, _ in members)
        videos = self.videos[first]
        for other in others:
            if self.data[other] != self.data[first]:
                return videos[:0]
            videos = np.intersect1d(videos, self.videos[other])
        return videos

    def _of(self, member: Member, videos: NDArray, stream: int) -> Drawn:
        """One run over `videos`; `stream` chooses the draws."""
        key = (member, tuple(videos), stream)
        if key not in self._known:
            rows = np.searchsorted(self.videos[member[0]], videos)
            m = self._sums(member)
            chosen = Moments(m.count[rows], m.total[rows], m.product[rows], m.square[rows], m.shift)
            whole = over_all_clusters(chosen)
            weights = self._weights(len(videos), stream)
            self._known[key] = Drawn(
                measures(whole), replicate_measures(chosen, weights), cluster_scalars(chosen, whole)
            )
        return self._known[key]

    def _weights(self, videos: int, stream: int) -> NDArray:
        return bootstrap_weights(videos, self.n_boot, [self.seed, stream] if stream else self.seed)

    def _sums(self, member: Member) -> Moments:
        """Sums of one run by video; only the latest are kept in memory."""
        if self._latest is None or self._latest[0] != member:
            self._latest = None
            run, stage = member
            pairs = self.stores[run].finished_pairs()
            of_pair = np.searchsorted(self.videos[run], pairs["cluster"].to_numpy())
            rows = self.stores[run].activations(stage)
            self._latest = member, cluster_moments(rows, pairs, of_pair, len(self.videos[run]))
        return self._latest[1]
