"""Measures of stages of finished runs, and differences of measures, with intervals over videos.

Two stages that see the same videos err in the same direction. The jackknife deviations of a difference are
therefore the differences of the deviations, video by video, as in ``analysis/estimate/paired_parts.py``.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.decomposition import PARTS, decompose
from static_dynamic.analysis.estimate.jackknife import degrees_of_freedom, student_quantile
from static_dynamic.analysis.estimate.layer_intervals import MEASURES, LayerSample
from static_dynamic.analysis.estimate.motion_test import draw_pair_signs
from static_dynamic.analysis.estimate.order_table import OrderTable
from static_dynamic.analysis.estimate.pairs import read_sums
from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import first_altered_order


@dataclass(frozen=True)
class Number:
    """An estimate with one jackknife deviation per video.

    Student's t of the interval has as many degrees of freedom as videos minus 1, as for the parts in all
    tables of the program. If ``careful``, few videos that decide a score lower the degrees of freedom.
    """

    value: float
    deviation: NDArray
    careful: bool = False

    def __sub__(self, other: "Number") -> "Number":
        """Return the difference of two numbers from the same videos."""
        careful = self.careful or other.careful
        return Number(self.value - other.value, self.deviation - other.deviation, careful)

    def __abs__(self) -> "Number":
        """Return the absolute value; its interval holds only if the interval of the number excludes 0."""
        return Number(abs(self.value), np.sign(self.value) * self.deviation, self.careful)

    def over(self, other: "Number") -> "Number":
        """Return the ratio to another number from the same videos, with linearised deviations."""
        ratio = self.value / other.value
        deviation = (self.deviation - ratio * other.deviation) / other.value
        return Number(ratio, deviation, self.careful or other.careful)

    def __add__(self, other: "Number") -> "Number":
        """Return the sum of two numbers from the same videos."""
        careful = self.careful or other.careful
        return Number(self.value + other.value, self.deviation + other.deviation, careful)

    @property
    def half(self) -> float:
        """Half-width of the 95 % interval (Student's t)."""
        error = np.sqrt((self.deviation**2).sum())
        videos = len(self.deviation)
        df = degrees_of_freedom(self.deviation) if self.careful else max(1, videos - 1)
        return float(student_quantile(0.95, df) * error)

    @property
    def sign(self) -> int:
        """1 or -1 if the interval lies above or below 0, and 0 if it includes 0."""
        return int(np.sign(self.value)) if abs(self.value) > max(self.half, 1e-9) else 0

    def text(self, scale: float = 100, digits: int = 0) -> str:
        """Return the estimate and its interval, such as ``12 [8, 16]``."""
        ends = (self.value, self.value - self.half, self.value + self.half)
        # adding 0 turns -0 into 0
        middle, low, high = (f"{round(scale * end, digits) + 0:.{digits}f}" for end in ends)
        return f"{middle} [{low}, {high}]"


@cache
def _opened(folder: Path) -> tuple[Store, OrderTable]:
    store = Store.open(folder)
    table = OrderTable.of_views(store.views, store.status == DONE, first_altered_order(store.views))
    assert table is not None, f"{folder} has no views in two styles and two orders"
    return store, table


@cache
def parts(folder: Path, stage: str, videos: str = "") -> dict[str, Number]:
    """Return the parts of a stage, from the videos whose names start with `videos`."""
    store, table = _opened(folder)
    if videos:
        table = table.of_videos(np.array([name for name in table.names if name.startswith(videos)]))
    # no bootstrap replicates and no sign flips
    nothing = np.empty((0, table.videos)), draw_pair_signs(table, 0, (0,))
    found = decompose(store.activations(stage), table, *nothing).layer
    return {
        name: Number(float(value), deviation)
        for name, value, deviation in zip(PARTS, found.estimate, found.deviation.T, strict=True)
    }


@cache
def scores(folder: Path, stage: str) -> dict[str, Number]:
    """Return the paper's scores and shares of a stage."""
    store, table = _opened(folder)
    pairs = store.finished_pairs()
    names, cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    assert list(names) == list(table.names), f"{folder}: pairs and views have other videos"
    sample = LayerSample.of_parts(read_sums(store, stage, pairs, cluster, len(names)), None)
    return {
        name: Number(float(value), deviation, careful=True)
        for name, value, deviation in zip(MEASURES, sample.value, sample.deviation.T, strict=True)
    }


def lean_of_parts(folder: Path, stage: str) -> Number:
    """Return motion minus appearance."""
    found = parts(folder, stage)
    return found["motion"] - found["appearance"]


def motion_share(folder: Path, stage: str) -> Number | None:
    """Return motion / (motion + appearance) - 1/2; None if the interval of the sum includes 0."""
    found = parts(folder, stage)
    both = found["motion"] + found["appearance"]
    if both.sign != 1:
        return None
    share = found["motion"].over(both)
    return Number(share.value - 0.5, share.deviation)


def lean_of_scores(folder: Path, stage: str) -> Number:
    """Return the paper's dynamic share minus the static share."""
    found = scores(folder, stage)
    return found["share_dynamic"] - found["share_static"]
