"""Estimate differences between runs, by a bootstrap that draws the same videos for both runs.

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

from .intervals import bootstrap_weights, standard_errors, studentised_bounds, with_bounds
from .layer_intervals import MEASURES, LayerSample
from .moments import Moments
from .pairs import read_sums

# Two runs are paired if their common videos are at least this fraction of the smaller run's videos.
LEAST_COMMON = 0.5


@dataclass(frozen=True)
class PairedEstimate:
    """Scores and shares of a stage, as a mean over runs or a difference between runs, with intervals."""

    value: NDArray  # (5,)
    low: NDArray  # (5,)
    high: NDArray  # (5,)
    # number of videos of the added runs, and of the subtracted runs
    videos: tuple[int, int]
    # True if added and subtracted runs are estimated from the same videos
    paired: bool

    def columns(self) -> dict:
        """Return table columns by name: each score and share, with the bounds of its interval."""
        measures = zip(MEASURES, self.value, self.low, self.high, strict=True)
        return {name: value for measure in measures for name, value in with_bounds(*measure).items()}


# A Member is a stage of a run: the run's index in the list of runs, and the name of the stage.
Member = tuple[int, str]
Members = Sequence[Member]


def _signed(members: Members, sign: int) -> list[tuple[Member, float]]:
    return [(member, sign / len(members)) for member in members]


class PairedBootstrap:
    """Bootstrap of mean scores over runs, and of score differences between runs, for one stage per run.

    `data` has one entry per run: videos of equal name are one video only if their runs have equal entries.
    """

    def __init__(self, stores: Sequence[Store], data: Sequence, n_boot: int = 1000, seed: int = 0):
        self.stores, self.data, self.n_boot, self.seed = stores, data, n_boot, seed
        self.videos = [np.unique(store.finished_pairs()["cluster"].to_numpy()) for store in stores]
        self._samples: dict[tuple[Member, tuple, int], LayerSample] = {}
        self._latest: tuple[Member, Moments] | None = None

    def mean(self, members: Members, level: float = 0.95) -> PairedEstimate:
        """Estimate the mean scores of the runs `members`, from the videos that all these runs have."""
        return self._estimate([(0, self.common_videos(members), _signed(members, 1))], level)

    def difference(self, left: Members, right: Members, level: float = 0.95) -> PairedEstimate:
        """Estimate the mean scores of the runs `left` minus the mean scores of the runs `right`.

        If the runs are not paired, Student's t has the degrees of freedom of the side with fewer videos.
        """
        common = self.common_videos([*left, *right])
        sides = [self.common_videos(members) for members in (left, right)]
        terms = _signed(left, 1), _signed(right, -1)
        if len(common) >= max(1, LEAST_COMMON * min(map(len, sides))):
            return self._estimate([(0, common, terms[0] + terms[1])], level)
        streams = [1 + min(run for run, _ in members) for members in (left, right)]
        return self._estimate(list(zip(streams, sides, terms, strict=True)), level)

    def _estimate(
        self, streams: Sequence[tuple[int, NDArray, list[tuple[Member, float]]]], level: float
    ) -> PairedEstimate:
        """Estimate a weighted sum of scores of runs; runs of one random stream share bootstrap weights."""
        count = [len(videos) for _, videos, _ in streams]
        value, smallest, largest = np.zeros((3, len(MEASURES)))
        replicates = error = errors = np.zeros((1, len(MEASURES)))
        deviations = []
        for stream, videos, terms in streams:
            samples = [self._sample(member, videos, stream) for member, _ in terms]
            signs = [sign for _, sign in terms]
            deviations.append(sum(sign * s.deviation for s, sign in zip(samples, signs, strict=True)))
            for sample, sign in zip(samples, signs, strict=True):
                value = value + sign * sample.value
                ends = np.sort([sign * sample.smallest, sign * sample.largest], axis=0)
                smallest, largest = smallest + ends[0], largest + ends[1]
                if min(count) > 1:
                    replicates = replicates + sign * sample.replicates
            if min(count) > 1:
                scalars = np.hstack([sample.scalars for sample in samples])
                error = error + standard_errors(scalars, np.ones((1, len(videos))), signs) ** 2
                errors = errors + standard_errors(scalars, self._weights(len(videos), stream), signs) ** 2
        error, errors = np.sqrt(error[0]), np.sqrt(errors)
        # The deviations of all videos are concatenated, because the variances of independent videos add up.
        deviation = np.concatenate(deviations)
        bounds = studentised_bounds(value, replicates, error, errors, min(count), level, deviation)
        low, high = (np.clip(bound, smallest, largest) for bound in bounds)
        return PairedEstimate(value, low, high, (count[0], count[-1]), paired=len(streams) == 1)

    def common_videos(self, members: Members) -> NDArray:
        """Return the names of the videos that all runs `members` have; empty if the data sets differ."""
        first, *others = (run for run, _ in members)
        videos = self.videos[first]
        for other in others:
            if self.data[other] != self.data[first]:
                return videos[:0]
            videos = np.intersect1d(videos, self.videos[other])
        return videos

    def _sample(self, member: Member, videos: NDArray, stream: int) -> LayerSample:
        """Estimate one stage of a run from `videos`, with the bootstrap weights of random stream `stream`."""
        key = (member, tuple(videos), stream)
        if key not in self._samples:
            sums = self._sums(member).clusters(np.searchsorted(self.videos[member[0]], videos))
            self._samples[key] = LayerSample.of(sums, self._weights(len(videos), stream))
        return self._samples[key]

    def _weights(self, videos: int, stream: int) -> NDArray:
        return bootstrap_weights(videos, self.n_boot, [self.seed, stream] if stream else self.seed)

    def _sums(self, member: Member) -> Moments:
        """Return one stage's sums over the pairs of each video; only the latest stage's sums are cached."""
        if self._latest is None or self._latest[0] != member:
            self._latest = None
            run, stage = member
            pairs = self.stores[run].finished_pairs()
            cluster = np.searchsorted(self.videos[run], pairs["cluster"].to_numpy())
            sums = read_sums(self.stores[run], stage, pairs, cluster, len(self.videos[run]))
            self._latest = member, sums
        return self._latest[1]
