"""Average variance parts (content, motion, ...) over runs, and estimate their differences between runs.

Two networks that see the same videos err in the same direction. Runs with common videos are therefore both
decomposed on these videos alone, and the deviations of the jackknife (`decomposition.py`) are subtracted
video by video. Runs without common videos have independent errors: their variances add up, and Student's t
has the degrees of freedom of the run with fewer videos.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import first_altered_order

from .decomposition import PARTS, decompose
from .intervals import with_bounds
from .jackknife import Jackknife, student_quantile
from .motion_test import draw_pair_signs
from .order_table import OrderTable
from .paired import LEAST_COMMON, Members


class PairedParts:
    """Variance parts of several runs: means over runs and differences between runs, from common videos.

    `data` has one entry per run, as for `PairedBootstrap`.
    """

    def __init__(self, stores: Sequence[Store], data: Sequence):
        self.stores, self.data = stores, data
        self.tables = [
            OrderTable.of_views(store.views, store.status == DONE, first_altered_order(store.views))
            for store in stores
        ]
        self._found: dict[tuple, Jackknife] = {}

    def mean(self, members: Members, level: float = 0.95, among: NDArray | None = None) -> dict:
        """Return table columns: each part averaged over the runs `members`, with interval bounds.

        Returns no columns for runs without parts. Only the videos `among` (names; None: all) are used.
        """
        videos = self.common_videos(members)
        videos = videos if among is None else np.intersect1d(videos, among)
        if not len(videos):
            return {}
        return columns(self._mean(members, videos), len(videos), level)

    def difference(self, left: Members, right: Members, level: float = 0.95) -> dict:
        """Return table columns: mean parts of the runs `left` minus mean parts of the runs `right`.

        Returns no columns for runs without parts.
        """
        sides = [self.common_videos(members) for members in (left, right)]
        if not all(map(len, sides)):
            return {}
        common = self.common_videos([*left, *right])
        paired = len(common) >= max(1, LEAST_COMMON * min(map(len, sides)))
        videos = [common, common] if paired else sides
        a, b = (self._mean(m, own) for m, own in zip((left, right), videos, strict=True))
        return columns(subtract(a, b, paired), min(map(len, videos)), level)

    def common_videos(self, members: Members) -> NDArray:
        """Return the names of the videos from which the parts of all runs `members` can be estimated."""
        first, *others = (run for run, _ in members)
        names = None
        for run in (first, *others):
            table = self.tables[run]
            if table is None or self.data[run] != self.data[first]:
                return np.empty(0, object)
            names = table.names if names is None else np.intersect1d(names, table.names)
        return np.asarray(names)

    def _mean(self, members: Members, videos: NDArray) -> Jackknife:
        """Estimate the variance parts of each of the runs `members` from `videos`, and average them."""
        found = [self._parts(run, stage, videos) for run, stage in members]
        estimate = np.mean([one.estimate for one in found], axis=0)
        return Jackknife(estimate, np.mean([one.deviation for one in found], axis=0))

    def _parts(self, run: int, stage: str, videos: NDArray) -> Jackknife:
        """Estimate the variance parts of one stage of a run from the activations for `videos`."""
        key = run, stage, tuple(videos)
        if key not in self._found:
            whole = self.tables[run]
            # `whole` is not None: `common_videos` found videos in it
            assert whole is not None
            table = whole.of_videos(videos)
            nothing = np.empty((0, table.videos)), draw_pair_signs(table, 0, (0,))  # no replicates, no flips
            self._found[key] = decompose(self.stores[run].activations(stage), table, *nothing).layer
        return self._found[key]


def subtract(a: Jackknife, b: Jackknife, paired: bool) -> Jackknife:
    """Return `a` - `b`: deviations are subtracted video by video if `paired`, else variances are added."""
    deviation = a.deviation - b.deviation if paired else np.concatenate([a.deviation, b.deviation])
    return Jackknife(a.estimate - b.estimate, deviation)


def columns(found: Jackknife, videos: int, level: float) -> dict:
    """Return variance parts and their interval bounds as table columns; bounds are NaN for a single video."""
    half = student_quantile(level, max(1, videos - 1)) * found.error if videos > 1 else np.nan
    ends = found.estimate - half, found.estimate + half
    parts = zip(PARTS, found.estimate, *ends, strict=True)
    return {name: value for part in parts for name, value in with_bounds(*part).items()}
