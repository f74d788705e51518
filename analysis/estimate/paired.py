"""Differences between runs, with intervals from a bootstrap that pairs runs by their videos.

Two networks that see the same videos err in the same direction: a video that is easy for one network is easy
for the other. One replicate therefore draws the videos that the runs have in common once, estimates both runs
from this draw, and takes the difference. Runs without common videos are drawn independently. Intervals are
studentised (`intervals.py`); the influence of a video on a difference is the difference of its influences on
the two runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import Store

from .estimator import FACTORS, MEASURED, append_shares
from .intervals import bootstrap_weights, cluster_scalars, gradients, standard_errors, studentised_bounds
from .moments import Moments, layer_score

MEASURES = tuple(f"score_{f}" for f in MEASURED) + tuple(f"share_{f}" for f in FACTORS)
# Runs are paired if they have at least this fraction of the smaller run's videos in common.
LEAST_COMMON = 0.5


@dataclass(frozen=True)
class PairedEstimate:
    """Mean of runs or difference between runs: each of the `MEASURES` with its interval."""

    value: NDArray  # (5,)
    low: NDArray  # (5,)
    high: NDArray  # (5,)
    videos: tuple[int, int]  # number of videos of either side
    paired: bool  # whether both sides are estimated from the same videos


@dataclass(frozen=True)
class StageSample:
    """One stage of one run, estimated from some of its videos."""

    value: NDArray  # (5,) measures
    replicates: NDArray  # (R, 5) measures of each replicate
    scalars: NDArray  # (K, J) `cluster_scalars` of the videos


def replicate_measures(sums: Moments, weights: NDArray) -> NDArray:
    """Return scores and shares of each replicate: sums (K, F, C), weights (R, K) -> (R, 5)."""
    numerator, denominator = np.zeros((len(weights), len(MEASURED))), np.zeros(len(weights))
    for _, replicates in sums.replicates(weights):
        covariance, pooled_variance = replicates.score_parts()
        numerator += covariance
        denominator += pooled_variance
    return append_shares(layer_score(numerator, denominator[:, None]))


def squared_errors(samples: Sequence[StageSample], signs: Sequence[float], weights: NDArray) -> NDArray:
    """Return the squared standard errors, (R, 5), of a weighted sum of measures of the same videos."""
    columns = samples[0].scalars.shape[1]

    def gradients_of_sum(sums: NDArray) -> NDArray:
        parts = np.split(sums, range(columns, sums.shape[-1], columns), axis=-1)
        return np.concatenate([sign * gradients(x) for sign, x in zip(signs, parts, strict=True)], axis=-1)

    scalars = np.hstack([sample.scalars for sample in samples])
    return standard_errors(scalars, weights, gradients_of_sum) ** 2


# Number of a run, and one of its stages.
Member = tuple[int, str]


class PairedBootstrap:
    """Means over runs and differences between runs, one stage per run; common parts are computed once.

    Parameters
    ----------
    stores
        The runs.
    data
        Identifies the data that each run saw. Videos of the same name are the same video if this is equal.
    """

    def __init__(self, stores: Sequence[Store], data: Sequence, n_boot: int = 1000, seed: int = 0):
        self.stores, self.data, self.n_boot, self.seed = stores, data, n_boot, seed
        self.videos = [np.unique(store.finished_pairs()["cluster"].to_numpy()) for store in stores]
        self._samples: dict[tuple[Member, tuple, int], StageSample] = {}
        self._latest: tuple[Member, Moments] | None = None

    def mean(self, members: Sequence[Member], level: float = 0.95) -> PairedEstimate:
        """Estimate the mean of some runs, over the videos that all of them have."""
        return self._estimate([(members, 1.0)], [self.common_videos(members)], [0], level)

    def difference(
        self, left: Sequence[Member], right: Sequence[Member], level: float = 0.95
    ) -> PairedEstimate:
        """Estimate the mean of the runs `left` minus the mean of the runs `right`.

        Without pairing, Student's t has the degrees of freedom of the smaller side.
        """
        common = self.common_videos([*left, *right])
        sides = [self.common_videos(members) for members in (left, right)]
        if len(common) >= max(1, LEAST_COMMON * min(map(len, sides))):
            return self._estimate([(left, 1.0), (right, -1.0)], [common, common], [0, 0], level)
        streams = [1 + min(run for run, _ in members) for members in (left, right)]
        return self._estimate([(left, 1.0), (right, -1.0)], sides, streams, level)

    def _estimate(
        self,
        sides: Sequence[tuple[Sequence[Member], float]],
        videos: Sequence[NDArray],
        streams: Sequence[int],
        level: float,
    ) -> PairedEstimate:
        """Add up the means of the sides times their signs; sides of one random stream share their draws."""
        by_stream: dict[int, list[tuple[StageSample, float]]] = {}
        for (members, sign), names, stream in zip(sides, videos, streams, strict=True):
            terms = [(self._sample(member, names, stream), sign / len(members)) for member in members]
            by_stream.setdefault(stream, []).extend(terms)
        every = [term for terms in by_stream.values() for term in terms]
        value = np.sum([sign * sample.value for sample, sign in every], axis=0)
        count = [len(names) for names in videos]
        low = high = np.full_like(value, np.nan)
        if min(count) > 1:
            replicates = np.sum([sign * sample.replicates for sample, sign in every], axis=0)
            error, errors = np.zeros(len(MEASURES)), np.zeros(replicates.shape)
            for stream, terms in by_stream.items():
                samples, signs = zip(*terms, strict=True)
                clusters = len(samples[0].scalars)
                error += squared_errors(samples, signs, np.ones((1, clusters)))[0]
                errors += squared_errors(samples, signs, self._weights(clusters, stream))
            low, high = studentised_bounds(
                value, replicates, np.sqrt(error), np.sqrt(errors), min(count), level
            )
        return PairedEstimate(value, low, high, (count[0], count[-1]), paired=len(by_stream) == 1)

    def common_videos(self, members: Sequence[Member]) -> NDArray:
        """Return the names of the videos that all of these runs have; none if the runs saw different data."""
        first, *others = (run for run, _ in members)
        videos = self.videos[first]
        for other in others:
            if self.data[other] != self.data[first]:
                return videos[:0]
            videos = np.intersect1d(videos, self.videos[other])
        return videos

    def _sample(self, member: Member, videos: NDArray, stream: int) -> StageSample:
        """Estimate one run from `videos`, with the bootstrap weights of the random stream `stream`."""
        key = (member, tuple(videos), stream)
        if key not in self._samples:
            sums = self._sums(member).clusters(np.searchsorted(self.videos[member[0]], videos))
            whole = sums.over_clusters()
            replicates = replicate_measures(sums, self._weights(len(videos), stream))
            self._samples[key] = StageSample(
                append_shares(whole.layer_scores()), replicates, cluster_scalars(sums, whole)
            )
        return self._samples[key]

    def _weights(self, videos: int, stream: int) -> NDArray:
        return bootstrap_weights(videos, self.n_boot, [self.seed, stream] if stream else self.seed)

    def _sums(self, member: Member) -> Moments:
        """Return the sums of one run by video; only the latest run's are kept in memory."""
        if self._latest is None or self._latest[0] != member:
            self._latest = None
            run, stage = member
            pairs = self.stores[run].finished_pairs()
            cluster = np.searchsorted(self.videos[run], pairs["cluster"].to_numpy())
            rows = self.stores[run].activations(stage)
            self._latest = member, Moments.per_cluster(rows, pairs, cluster, len(self.videos[run]))
        return self._latest[1]
