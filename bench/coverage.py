"""Measure coverage of intervals, calibration of class probabilities and false-positive rate of p-values.

    python -m bench.coverage [--runs 200 --designs 'normal,one loud video' --clips 12,24,100]

The runs are simulated; `bench/simulated.py` has the designs and their true values. Columns of the tables:

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

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from bench.simulated import DESIGNS, LEVEL, THRESHOLD, Design, grid, sums_of
from static_dynamic.analysis.estimate.bootstrap import estimate_stage
from static_dynamic.analysis.estimate.estimator import MEASURED, UNIT_CLASSES
from static_dynamic.analysis.estimate.information.gaussian import TRANSFORMS, flipped_bits, transformed
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.estimate.paired import PairedBootstrap
from static_dynamic.analysis.estimate.pairs import pairs_of_factor
from static_dynamic.analysis.estimate.sign_flips import draw_signs, score_p_values
from static_dynamic.analysis.estimate.unit_intervals import COUNTED
from static_dynamic.analysis.estimate.variance import decompose_stage
from static_dynamic.command import Options, command

REPLICATES, FLIPS = 400, 99


def coverage(design: Design, videos: int, runs: int, progress: bool = False) -> dict[str, NDArray]:
    """Simulate runs; return coverages of intervals, and the accuracy of classes of probability near 0.85."""
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
    """Return the fractions of p-values up to 0.05 (false positives) if pair members are independent."""
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
    """A finished run of one stage in memory, with the methods of `Store` that `PairedBootstrap` calls."""

    rows: NDArray
    pairs: pd.DataFrame

    def finished_pairs(self) -> pd.DataFrame:
        """Return the table of pairs."""
        return self.pairs

    def activations(self, stage: str) -> NDArray:
        """Return the activations (views, units)."""
        return self.rows


def differences(design: Design, videos: tuple[int, int], runs: int, progress: bool = False) -> NDArray:
    """Compare two networks; return the coverage of the intervals of the difference of each layer score.

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


COVERED = ("layer d s", "unit d s", "none", "variance stage", "variance units", "counts d s j r", "said .85")


def coverage_row(design: Design, videos: int, runs: int) -> list[str]:
    """Return one row of the table of coverages, as a list of texts."""
    held = coverage(design, videos, runs, progress=True)
    row = [cells([held[f"{what} {name}"] for name in MEASURED]) for what in ("layer", "unit")]
    row.append(f"{100 * held['few videos']:.0f} %")
    row += [cells(held[what]) if what in held else "" for what in ("share", "variance")]
    return [*row, cells(held["counts"]), cells([held.get("said .85", np.nan)])]


TESTED = ("layer", "unit", "family", "gaussian bits", "copula bits")


def size_row(design: Design, videos: int, runs: int) -> list[str]:
    """Return one row of the table of p-values; designs with fewer than 100 units get twice as many runs."""
    found = sizes(design, videos, 2 * runs if design.units < 100 else runs, progress=True)
    return [
        cells([found[f"{kind} {name}"] for name in MEASURED])
        for kind in ("layer", "unit", "family", *TRANSFORMS)
    ]


COMPARED = ("same videos", "12 against as many other videos")


def difference_row(design: Design, videos: int, runs: int) -> list[str]:
    """Return one row of the table of differences between two networks, as a list of texts."""
    return [cells(differences(design, pair, runs, True)) for pair in ((videos, videos), (12, videos + 1))]


@command
def main() -> None:
    """Simulate runs; print coverage of intervals, calibration of probabilities, false-positive rates."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--clips", default="12,24,100", help="numbers of videos (comma-separated list)")
    parser.add_argument("--designs", default=",".join(d.name for d in DESIGNS), help="names of designs")
    given = parser.parse_args()
    chosen = [design for design in DESIGNS if design.name in given.designs.split(",")]
    layouts = [(design, videos) for design in chosen for videos in map(int, given.clips.split(","))]
    for what, columns, row in (
        ("Coverage of 95 % intervals; d, s, j, r: dynamic, static, joint, residual", COVERED, coverage_row),
        (
            "Fraction of p-values up to 0.05 without shared information; dynamic, static pairs",
            TESTED,
            size_row,
        ),
        (
            "Coverage of 95 % intervals of differences between two networks; dynamic, static score",
            COMPARED,
            difference_row,
        ),
    ):
        rows = []
        for design, videos in layouts:
            runs = given.runs if design.units < 100 else max(20, given.runs // 5)
            rows.append((design.name, videos, *row(design, videos, runs)))
        table = pd.DataFrame(rows, columns=["design", "videos", *columns])
        print(f"{what}\n{table.to_markdown(index=False)}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
