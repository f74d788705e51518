"""Simulate runs with known true scores, variance components and unit classes, for bench/coverage.py.

The activations are sums of random effects: of clip, of style, of clip x style, of clip x order, and of clip x
style x order. The designs are those that users have: several clips per video, skipped views, rectified units,
one video with large activations, many units. True values are means over large runs.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import classify
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.estimate.variance import decompose_stage
from static_dynamic.datasets import Clip, make_views

STYLES, ORDERS, LEVEL, THRESHOLD = (1, 2, 3, 4), 2, 0.95, 0.5
# True values are means over LARGE_RUNS runs of LARGE clips each.
LARGE, LARGE_RUNS = 1000, 40
# SPREAD is the standard deviation of an activation.
SPREAD = 1.2
# A threshold of z standard deviations sets 70 % (z = 0.52) or 90 % (z = 1.28) of the activations to zero.
THRESHOLDS = {"rectified 70 %": 0.52, "rectified 90 %": 1.28}
# With "one loud video", the activations of one video are multiplied by LOUD.
LOUD = 6.0
# With "loudness varies", each video's activations are multiplied by exp(LOUDNESS * a standard normal number).
LOUDNESS = 0.8


@dataclass(frozen=True)
class Design:
    """Design of a simulated run: layout of the views, and distribution of the activations."""

    name: str
    # Distribution of the activations: "normal", "one loud video" (its activations are multiplied by LOUD),
    # "loudness varies" (each video has a random factor, see LOUDNESS), or a key of THRESHOLDS.
    kind: str = "normal"
    units: int = 20
    clips_per_video: int = 1
    # number of randomly chosen views that are skipped
    skipped: int = 0
    pairs: str = "factorial"
    # seed of the properties of the units (`loadings`)
    network: int = 9

    @cached_property
    def loadings(self) -> dict[str, NDArray]:
        """Return properties of the units, equal in all runs: factor loadings, style shifts, effect sizes."""
        fixed = np.random.default_rng(self.network)
        style = 0.8 * fixed.standard_normal((len(STYLES), 1, self.units))
        if "loud" in self.kind:
            # No style shifts here: loudness would multiply the shifts, too, and change the true scores.
            style *= 0
        # Rows of `sizes`: sizes of the effects of clip, clip x style, clip x order, and view.
        sizes = fixed.uniform(0.3, 1.2, (4, self.units))
        return {"common": fixed.standard_normal((6, self.units)) / 1.5, "style": style, "sizes": sizes}

    def tables(self, videos: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the tables of views and pairs of a run of `videos` videos."""
        return tables(videos, self.clips_per_video, self.pairs)

    def simulate(self, videos: int, rng: np.random.Generator, null: str = "", large: bool = False) -> NDArray:
        """Simulate activations of all clips, styles and orders. Shape: (clips, styles, orders, units).

        With `null` dynamic, styles of a clip share nothing; with `null` static, its two orders share nothing.
        """
        clips, fixed = videos * self.clips_per_video, self.loadings
        video = np.arange(clips) // self.clips_per_video

        def effect(*shape: int) -> NDArray:
            own = rng.standard_normal((clips, *shape))
            if self.clips_per_video == 1:
                return own
            return np.sqrt(0.5) * own + np.sqrt(0.5) * rng.standard_normal((videos, *shape))[video]

        clip, style, order, rest = fixed["sizes"]
        shared = clip * (0.5 * effect(6) @ fixed["common"] + 0.5 * effect(self.units))
        z = 0.0 if null else shared[:, None, None]
        if null != "static":
            z = z + 0.6 * style * effect(len(STYLES), 1, self.units)
        if null != "dynamic":
            z = z + 0.4 * order * effect(1, ORDERS, self.units)
        z = z + 0.3 * rest * effect(len(STYLES), ORDERS, self.units)
        if self.kind == "one loud video" and not large:
            z[video == 0] *= LOUD
        if self.kind == "loudness varies":
            z *= np.exp(LOUDNESS * rng.standard_normal(videos))[video][:, None, None, None]
        if self.kind in THRESHOLDS:
            return np.maximum(z - THRESHOLDS[self.kind] * SPREAD + 0.15 * fixed["style"], 0)
        return z + fixed["style"]

    def finished_pairs(self, videos: int, rng: np.random.Generator) -> pd.DataFrame:
        """Skip random views; return the table of pairs without the pairs that contain a skipped view."""
        views, pairs = self.tables(videos)
        skipped = rng.choice(len(views), self.skipped, replace=False)
        return pairs[~pairs["a"].isin(skipped) & ~pairs["b"].isin(skipped)].reset_index(drop=True)

    def rows(self, activations: NDArray, views: pd.DataFrame) -> NDArray:
        """Convert activations from shape (clips, styles, orders, units) to (views, units)."""
        clip = pd.factorize(views["clip"], sort=True)[0]
        order = (views["order"] != "forward").to_numpy(int)
        return activations[clip, views["style"].to_numpy() - 1, order].astype(np.float32)

    @cached_property
    def truth(self) -> dict[str, NDArray]:
        """Return true scores of layer and units, true variance components, and true unit classes."""
        found = defaultdict(list)
        views, pairs = tables(LARGE, 1, "factorial")
        runs = max(6, LARGE_RUNS * 20 // self.units)
        for run in range(runs):
            single = replace(self, clips_per_video=1, skipped=0, pairs="factorial")
            y = single.simulate(LARGE, np.random.default_rng(10**6 + run), large=True)
            whole = sums_of(self.rows(y, views), pairs).over_clusters()
            found["layer"].append(whole.layer_scores())
            found["unit"].append(whole.unit_scores())
            layer, unit = decompose_stage(*grid(y), np.arange(LARGE), LEVEL)
            found["share"].append(layer["share"])
            found["variance"].append(unit["variance"].to_numpy().reshape(self.units, -1))
        mean = {name: np.mean(values, axis=0) for name, values in found.items()}
        return mean | {"class": classify(*mean["unit"], THRESHOLD)}


DESIGNS = (
    Design("normal"),
    Design("several clips per video", clips_per_video=3),
    Design("4 views skipped", skipped=4),
    Design("rectified 70 %", "rectified 70 %"),
    Design("rectified 90 %", "rectified 90 %"),
    Design("one loud video", "one loud video"),
    Design("loudness varies", "loudness varies"),
    Design("1000 units", units=1000),
    Design("pairs=both", pairs="both"),
    Design("pairs=paper", pairs="paper"),
)


@cache
def tables(videos: int, clips_per_video: int, pairs: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of views and pairs of a run."""
    listed = [
        Clip(f"c{i:05d}", "", 0, 16, cluster=f"v{i // clips_per_video:05d}")
        for i in range(videos * clips_per_video)
    ]
    return make_views(listed, STYLES, {"rgb": 4}, n_sample_frames=16, pairs=pairs)


def sums_of(rows: NDArray, pairs: pd.DataFrame) -> Moments:
    """Compute, for each video, the sums over its pairs (`Moments`)."""
    names, cluster = np.unique(pairs["cluster"], return_inverse=True)
    return Moments.per_cluster(rows, pairs, cluster, len(names))


def grid(y: NDArray) -> tuple[NDArray, NDArray]:
    """Reshape activations to (views, units); also return an array (clips, styles, orders) of row numbers."""
    return y.reshape(-1, y.shape[-1]), np.arange(y[..., 0].size).reshape(y.shape[:-1])
