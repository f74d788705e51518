"""Measure how often the error statements of scores hold, on simulated runs whose truth is known.

    python -m bench.coverage [--runs 200 --designs 'normal,one loud video' --clips 12,24,100]

The simulated activations are sums of random effects: of clip, of style, of clip x style, of clip x order, and
of clip x style x order. The designs are those that users have: several clips per video, skipped views,
rectified units, one video with large activations, many units. True values are means over large runs.

    layer      coverage of the 95 % intervals of the two layer scores
    unit       coverage of the intervals of unit scores, and the percentage of units without interval
    variance   coverage of the intervals of the seven variance components: video, style, order, video:style,
               video:order, style:order, video:style:order
    counts     coverage of the numbers of dynamic, static, joint and residual units (over all simulated runs)
    said .85   fraction of units that have the class that was given a probability between 0.8 and 0.9
    p          fraction of p-values up to 0.05 where the members of pairs share nothing: of the layer, of
               units and of the smallest family-wise p-value of a stage, for dynamic and for static pairs
    bits p     the same for the p-values of the Gaussian and the copula bits
    difference coverage of the intervals of the difference between two networks: on the same videos, and on
               12 videos against the given number of other videos
"""

import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.bootstrap import estimate_stage
from static_dynamic.analysis.estimate.estimator import MEASURED, UNIT_CLASSES, classify
from static_dynamic.analysis.estimate.information.gaussian import TRANSFORMS, flipped_bits, transformed
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.estimate.paired import PairedBootstrap
from static_dynamic.analysis.estimate.pairs import pairs_of_factor
from static_dynamic.analysis.estimate.sign_flips import draw_signs, score_p_values
from static_dynamic.analysis.estimate.unit_intervals import COUNTED
from static_dynamic.analysis.estimate.variance import decompose_stage
from static_dynamic.command import Options, command
from static_dynamic.datasets import Clip, make_views

STYLES, ORDERS, LEVEL, THRESHOLD = (1, 2, 3, 4), 2, 0.95, 0.5
REPLICATES, FLIPS = 400, 99
LARGE, LARGE_RUNS = 1000, 40  # clips and number of the runs from which true values are computed
# Standard deviation of the random effects where all are present; a threshold of z standard deviations
# rectifies 70 % (z = 0.52) or 90 % (z = 1.28) of the activations to zero.
SPREAD, THRESHOLDS = 1.2, {"rectified 70 %": 0.52, "rectified 90 %": 1.28}
LOUD, LOUDNESS = 6.0, 0.8  # factor of one loud video; standard deviation of the logarithm of loudness


@dataclass(frozen=True)
class Design:
    """A layout of a simulated run: which views there are, and how activations are distributed."""

    name: str
    kind: str = "normal"  # or "one loud video", "loudness varies", or a key of THRESHOLDS
    units: int = 20
    clips_per_video: int = 1
    skipped: int = 0  # number of views that are skipped, drawn at random
    pairs: str = "factorial"
    network: int = 9  # seed of the fixed properties of the units

    @cached_property
    def loadings(self) -> dict[str, NDArray]:
        """Fixed properties of the units: common factors, styles' shifts, and sizes of the random effects."""
        fixed = np.random.default_rng(self.network)
        style = 0.8 * fixed.standard_normal((len(STYLES), 1, self.units))
        if "loud" in self.kind:
            style *= 0  # loudness would change the true scores if styles shifted the activations
        sizes = fixed.uniform(0.3, 1.2, (4, self.units))  # clip, style, order, rest
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
        """Return the table of pairs without those that contain a skipped view."""
        views, pairs = self.tables(videos)
        skipped = rng.choice(len(views), self.skipped, replace=False)
        return pairs[~pairs["a"].isin(skipped) & ~pairs["b"].isin(skipped)].reset_index(drop=True)

    def rows(self, activations: NDArray, views: pd.DataFrame) -> NDArray:
        """Return the rows of the activations (clips, styles, orders, units) that a table of views has."""
        clip = pd.factorize(views["clip"], sort=True)[0]
        order = (views["order"] != "forward").to_numpy(int)
        return activations[clip, views["style"].to_numpy() - 1, order].astype(np.float32)

    @cached_property
    def truth(self) -> dict[str, NDArray]:
        """True scores of the layer and the units, true variance components, and true unit classes."""
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
    """Return the sums over pairs per video."""
    names, cluster = np.unique(pairs["cluster"], return_inverse=True)
    return Moments.per_cluster(rows, pairs, cluster, len(names))


def grid(y: NDArray) -> tuple[NDArray, NDArray]:
    """Return activations as rows (views, units), and the row numbers (clips, styles, orders)."""
    return y.reshape(-1, y.shape[-1]), np.arange(y[..., 0].size).reshape(y.shape[:-1])


def coverage(design: Design, videos: int, runs: int, progress: bool = False) -> dict[str, NDArray]:
    """Return the fraction of simulated runs in which each statement about an interval or a class holds."""
    truth = design.truth
    weights = bootstrap_weights(videos, REPLICATES, 0)
    counts = np.array([(truth["class"] == k).sum() for k in range(4)])
    held = defaultdict(list)
    for run in tqdm(
        range(runs), f"{design.name}, {videos} videos", disable=None if progress else True, leave=False
    ):
        rng = np.random.default_rng([run, videos])
        y = design.simulate(videos, rng)
        pairs = design.finished_pairs(videos, rng)
        layer, unit = estimate_stage(
            sums_of(design.rows(y, design.tables(videos)[0]), pairs), weights, THRESHOLD, LEVEL
        )
        for f, name in enumerate(MEASURED):
            low, high = layer[f"score_{name}_low"], layer[f"score_{name}_high"]
            held[f"layer {name}"].append(low <= truth["layer"][f] <= high)
            low, high = (unit[f"score_{name}_{end}"].to_numpy() for end in ("low", "high"))
            inside = np.where(np.isnan(low), np.nan, (low <= truth["unit"][f]) & (truth["unit"][f] <= high))
            held[f"unit {name}"] += inside.tolist()
        held["few videos"] += unit["few_videos"].tolist()
        low, high = (np.array([layer[f"units_{name}_{end}"] for name in COUNTED]) for end in ("low", "high"))
        held["counts"].append((low <= counts) & (counts <= high))
        held["paper counts"].append([layer[f"units_{name}"] for name in COUNTED])
        probability = unit[[f"probability_{name}" for name in UNIT_CLASSES]].fillna(0).to_numpy()
        said = (probability.max(1) >= 0.8) & (probability.max(1) < 0.9)
        held["said .85"] += (probability.argmax(1) == truth["class"])[said].tolist()
        if design.pairs == "factorial" and not design.skipped and "loud" not in design.kind:
            values, rows = grid(y)
            clusters = np.arange(len(y)) // design.clips_per_video
            layer, unit = decompose_stage(values, rows, clusters, LEVEL)
            share = truth["share"]
            held["share"].append((layer["share_low"] <= share) & (share <= layer["share_high"]))
            low, high = (
                unit[f"variance_{end}"].to_numpy().reshape(truth["variance"].shape) for end in ("low", "high")
            )
            inside = (low <= truth["variance"]) & (truth["variance"] <= high)
            held["variance"] += np.where(np.isnan(low), np.nan, inside).tolist()
    return {name: np.nanmean(np.array(values, float), axis=0) for name, values in held.items() if len(values)}


def sizes(
    design: Design, videos: int, runs: int, bits: bool = True, progress: bool = False
) -> dict[str, float]:
    """Return the fraction of p-values up to 0.05 in simulated runs whose pairs share nothing."""
    small = defaultdict(list)
    views = design.tables(videos)[0]
    for null in tqdm(
        np.repeat(MEASURED, runs),
        f"{design.name}, {videos} videos",
        disable=None if progress else True,
        leave=False,
    ):
        f = MEASURED.index(null)
        rng = np.random.default_rng([len(small[f"layer {null}"]), videos, f])
        rows = design.rows(design.simulate(videos, rng, null), views)
        pairs = design.finished_pairs(videos, rng)
        factor = pairs_of_factor(pairs, f, views)
        signs = draw_signs(factor, FLIPS, (1,))
        found = sums_of(rows, pairs).over_clusters()
        found = Moments(*(x[f : f + 1] for x in vars(found).values()))
        p_layer, p_unit, p_family = score_p_values(rows, [factor], [signs], found)
        small[f"layer {null}"].append(p_layer[0] <= 0.05)
        small[f"unit {null}"] += (p_unit[0][~np.isnan(p_unit[0])] <= 0.05).tolist()
        small[f"family {null}"].append(np.nanmin(p_family) <= 0.05)
        for name, transform in TRANSFORMS.items() if bits else ():
            values = rows[:, :20].astype(np.float64)
            members = (transformed(values, member, transform) for member in (factor.a, factor.b))
            p = flipped_bits(*members, factor, signs)[0]
            small[f"{name} {null}"] += (p <= 0.05).tolist()
    return {name: float(np.mean(values)) for name, values in small.items()}


@dataclass(frozen=True)
class MemoryRun:
    """A finished run of one stage in memory, as far as `PairedBootstrap` needs a store."""

    rows: NDArray
    pairs: pd.DataFrame

    def finished_pairs(self) -> pd.DataFrame:
        """Return the table of pairs."""
        return self.pairs

    def activations(self, stage: str) -> NDArray:
        """Return the activations (views, units)."""
        return self.rows


def differences(design: Design, videos: tuple[int, int], runs: int, progress: bool = False) -> NDArray:
    """Return the coverage of the intervals of the differences in both scores between two networks.

    The networks see the same videos if both numbers of `videos` are equal, otherwise different videos.
    """
    designs = design, replace(design, network=10)
    truth = designs[0].truth["layer"] - designs[1].truth["layer"]
    held = []
    for run in tqdm(range(runs), f"{design.name}, {videos}", disable=None if progress else True, leave=False):
        stores = []
        for k, (own, count) in enumerate(zip(designs, videos, strict=True)):
            rng = np.random.default_rng([run, 0 if videos[0] == videos[1] else k])
            y = own.simulate(count, rng)
            stores.append(MemoryRun(own.rows(y, own.tables(count)[0]), own.finished_pairs(count, rng)))
        data = [0, 0] if videos[0] == videos[1] else [0, 1]
        found = PairedBootstrap(stores, data, REPLICATES).difference([(0, "stage1")], [(1, "stage1")])
        held.append((found.low[:2] <= truth) & (truth <= found.high[:2]))
    return np.mean(held, axis=0)


def cells(values: Sequence[float]) -> str:
    """Return numbers between 0 and 1 as text with two decimals, separated by spaces."""
    return " ".join(f"{value:.2f}".lstrip("0") if value < 1 else "1.0" for value in values)


@command
def main() -> None:
    """Simulate runs of all designs and print how often intervals, probabilities and p-values hold."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--clips", default="12,24,100", help="numbers of videos (comma list)")
    parser.add_argument("--designs", default=",".join(d.name for d in DESIGNS), help="names of designs")
    given = parser.parse_args()
    chosen = [design for design in DESIGNS if design.name in given.designs.split(",")]
    names = (
        "layer d s",
        "unit d s",
        "none",
        "variance stage",
        "variance units",
        "counts d s j r",
        "said .85",
    )
    rows = []
    for design in chosen:
        for videos in map(int, given.clips.split(",")):
            runs = given.runs if design.units < 100 else max(20, given.runs // 5)
            held = coverage(design, videos, runs, progress=True)
            row = [cells([held[f"{what} {name}"] for name in MEASURED]) for what in ("layer", "unit")]
            row.append(f"{100 * held['few videos']:.0f} %")
            for what in ("share", "variance"):
                row.append(cells(held[what]) if what in held else "")
            row += [cells(held["counts"]), cells([held.get("said .85", np.nan)])]
            rows.append((design.name, videos, *row))
    print("Coverage of 95 % intervals; d, s, j, r: dynamic, static, joint, residual")
    print(pd.DataFrame(rows, columns=["design", "videos", *names]).to_markdown(index=False), flush=True)
    rows = []
    for design in chosen:
        for videos in map(int, given.clips.split(",")):
            runs = 2 * given.runs if design.units < 100 else max(20, given.runs // 5)
            found = sizes(design, videos, runs, progress=True)
            kinds = ("layer", "unit", "family", *TRANSFORMS)
            rows.append(
                (
                    design.name,
                    videos,
                    *(cells([found[f"{kind} {name}"] for name in MEASURED]) for kind in kinds),
                )
            )
    print("\nFraction of p-values up to 0.05 without shared information; dynamic, static pairs")
    columns = ["design", "videos", "layer", "unit", "family", "gaussian bits", "copula bits"]
    print(pd.DataFrame(rows, columns=columns).to_markdown(index=False), flush=True)
    rows = []
    for design in chosen:
        for videos in map(int, given.clips.split(",")):
            runs = given.runs if design.units < 100 else max(20, given.runs // 5)
            row = [
                cells(differences(design, pair, runs, True)) for pair in ((videos, videos), (12, videos + 1))
            ]
            rows.append((design.name, videos, *row))
    print("\nCoverage of 95 % intervals of differences between two networks; dynamic, static score")
    columns = ["design", "videos", "same videos", "12 against as many other videos"]
    print(pd.DataFrame(rows, columns=columns).to_markdown(index=False))


if __name__ == "__main__":
    sys.exit(main())
