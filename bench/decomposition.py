"""Measure the coverage of intervals of the variance parts, and the error rates of the test of motion.

    python -m bench.decomposition [--runs 400 --designs 'normal,1000 units' --clips 12,24,100]

Runs are simulated. Activations are sums of random effects of clip (content), clip x order (motion), clip x
style (appearance) and view (residual), and of fixed effects of styles and orders. Columns of the tables:

    layer       coverage of the 95 % intervals of the layer's content, motion, appearance and residual
    units       coverage of the intervals of the units' parts
    counts      coverage of the numbers of units per kind: content, motion, appearance, mixed, residual
    difference  coverage of the interval of motion - appearance of the layer
    p           fraction of p-values of motion up to 0.05 without motion: of the layer, of units, and of the
                smallest family-wise p-value of the stage
    power       fraction of p-values up to 0.05 if motion is 0.20 in every unit: the same three
    networks    coverage of the intervals of the differences of the layer's parts between two networks that
                see the same videos and have equal parts (so that the true differences are 0)
    others      the same, if the second network sees twice as many videos, all of them other videos
"""

import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from bench.coverage import cells
from static_dynamic.analysis.estimate.decomposition import PARTS, Decomposition, decompose
from static_dynamic.analysis.estimate.jackknife import Jackknife
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS, count_kinds, kind_of
from static_dynamic.analysis.estimate.motion_test import draw_pair_signs
from static_dynamic.analysis.estimate.order_table import OrderTable
from static_dynamic.analysis.estimate.paired_parts import columns, subtract
from static_dynamic.command import Options, command

LEVEL, REPLICATES, FLIPS = 0.95, 200, 199
STYLES = 4
# True values of rectified units are means over LARGE_RUNS simulated runs of LARGE videos each.
LARGE, LARGE_RUNS = 1000, 20
# A threshold of z standard deviations sets 70 % (z = 0.52) or 90 % (z = 1.28) of the activations to zero.
THRESHOLDS = {"rectified 70 %": 0.52, "rectified 90 %": 1.28}


@dataclass(frozen=True)
class Design:
    """Design of a simulated run: layout of the views, and distribution of the activations."""

    name: str
    # Distribution of the activations: "normal", "loudness varies" (each video's activations are multiplied by
    # a random factor) or a key of THRESHOLDS.
    kind: str = "normal"
    units: int = 20
    clips_per_video: int = 1
    styles_per_clip: int = STYLES
    # number of randomly chosen views that are skipped
    skipped: int = 0

    @cached_property
    def planted(self) -> NDArray:
        """Return the variances (4, C) of the four parts of C units; the variances of each unit sum to 1."""
        sizes = np.random.default_rng(9).uniform(0.1, 1.0, (4, self.units))
        return sizes / sizes.sum(0)

    def table(self, videos: int, rng: np.random.Generator) -> OrderTable:
        """Return the table of a run's views, from which randomly skipped views are left out."""
        clips = videos * self.clips_per_video
        kept = np.zeros((clips, STYLES), bool)
        for clip in range(clips):
            kept[clip, rng.permutation(STYLES)[: self.styles_per_clip]] = True
        for _ in range(self.skipped):
            kept[rng.integers(clips), rng.integers(STYLES)] = False
        rows = np.arange(clips * STYLES * 2).reshape(clips, STYLES, 2)
        rows, enough = np.where(kept[..., None], rows, 0), kept.sum(1) >= 2
        names, video = np.unique((np.arange(clips) // self.clips_per_video)[enough], return_inverse=True)
        return OrderTable(rows[enough], kept[enough], video, names)

    def simulate(
        self,
        videos: int,
        rng: np.random.Generator,
        variances: NDArray,
        own: np.random.Generator | None = None,
    ) -> NDArray:
        """Simulate activations (views, C) of C units; `variances` (4, C) are the variances of the four parts.

        With equal `rng`, networks share all effects but the residual, which is drawn from `own` if given.
        """
        clips = videos * self.clips_per_video
        video = np.arange(clips) // self.clips_per_video

        def effect(*shape: int, rng: np.random.Generator = rng) -> NDArray:
            of_clip = rng.standard_normal((clips, *shape, self.units))
            if self.clips_per_video == 1:
                return of_clip
            return np.sqrt(0.5) * (of_clip + rng.standard_normal((videos, *shape, self.units))[video])

        content, motion, appearance, residual = np.sqrt(variances)
        y = content * effect(1, 1) + motion * effect(1, 2) + appearance * effect(STYLES, 1)
        y = y + residual * effect(STYLES, 2, rng=rng if own is None else own)
        if self.kind == "loudness varies":
            y *= np.exp(0.8 * rng.standard_normal(videos))[video][:, None, None, None]
        elif self.kind in THRESHOLDS:
            return np.maximum(y - THRESHOLDS[self.kind], 0).reshape(-1, self.units)
        fixed = np.random.default_rng(10)
        y = y + fixed.standard_normal((STYLES, 1, self.units)) + fixed.standard_normal((1, 2, self.units))
        return y.reshape(-1, self.units)

    @cached_property
    def truth(self) -> NDArray:
        """Return an array (4, C): true content, motion, appearance and residual of C units."""
        if self.kind not in THRESHOLDS:
            return self.planted
        single = replace(self, clips_per_video=1, skipped=0, styles_per_clip=STYLES)
        found = []
        for run in range(LARGE_RUNS):
            rng = np.random.default_rng(10**6 + run)
            y, table = single.simulate(LARGE, rng, self.planted), single.table(LARGE, rng)
            found.append(estimate(y, table).units)
        return np.mean(found, axis=0)


DESIGNS = (
    Design("normal"),
    Design("several clips per video", clips_per_video=3),
    Design("4 views skipped", skipped=4),
    Design("two styles per clip", styles_per_clip=2),
    Design("rectified 70 %", "rectified 70 %"),
    Design("rectified 90 %", "rectified 90 %"),
    Design("loudness varies", "loudness varies"),
    Design("1000 units", units=1000),
)


def estimate(
    y: NDArray, table: OrderTable, seed: int = 0, replicates: int = 0, flips: int = 0
) -> Decomposition:
    """Estimate content, motion, appearance and residual from simulated activations (views, C)."""
    multipliers = np.random.default_rng(seed).standard_normal((replicates, table.videos))
    return decompose(y, table, multipliers, draw_pair_signs(table, flips, (seed, 1)))


def coverage(design: Design, videos: int, runs: int, progress: bool = False) -> dict[str, NDArray]:
    """Return the fraction of simulated runs in which each interval contains the true value."""
    truth = design.truth
    layer, counts = truth.mean(1), count_kinds(kind_of(truth))
    contrast = np.array([0, 1, -1, 0])  # motion - appearance
    held = defaultdict(list)
    for run in tqdm(range(runs), f"{design.name}, {videos} videos", disable=None if progress else True):
        rng = np.random.default_rng([run, videos])
        y, table = design.simulate(videos, rng, design.planted), design.table(videos, rng)
        found = estimate(y, table, run, REPLICATES)
        low, high = found.bounds(found.layer, LEVEL)
        held["layer"].append((low <= layer) & (layer <= high))
        low, high = found.unit_bounds(LEVEL)
        held["units"].append(((low <= truth) & (truth <= high)).mean(1))
        low, high = found.kind_bounds(LEVEL)
        held["counts"].append((low <= counts) & (counts <= high))
        paired = Jackknife(found.layer.estimate @ contrast, found.layer.deviation @ contrast)
        low, high = found.bounds(paired, LEVEL)
        held["difference"].append([low <= contrast @ layer <= high])
    return {name: np.mean(values, axis=0) for name, values in held.items()}


def difference_coverage(
    design: Design, videos: int, runs: int, progress: bool = False
) -> tuple[NDArray, NDArray]:
    """Compare two networks whose true parts are equal; return how often the difference's interval contains 0.

    The first network sees `videos` videos. The second network sees the same videos, or twice as many other
    videos. Shapes: (4,), (4,).
    """
    held = []
    for run in tqdm(range(runs), f"{design.name}, {videos} videos", disable=None if progress else True):
        seed, table = [run, videos, 8], design.table(videos, np.random.default_rng([run, videos]))
        one, two = (
            estimate(design.simulate(videos, np.random.default_rng(seed), design.planted, own), table).layer
            for own in np.random.default_rng([*seed, 1]).spawn(2)
        )
        rng = np.random.default_rng([*seed, 2])
        other = design.simulate(2 * videos, rng, design.planted), design.table(2 * videos, rng)
        found = subtract(one, two, paired=True), subtract(one, estimate(*other).layer, paired=False)
        rows = [columns(difference, videos, LEVEL) for difference in found]
        held.append([[row[f"{part}_low"] <= 0 <= row[f"{part}_high"] for part in PARTS] for row in rows])
    return tuple(np.mean(held, axis=0))


def small_p_values(
    design: Design, videos: int, runs: int, motion: float, progress: bool = False
) -> list[float]:
    """Return the fractions of p-values up to 0.05: for the layer, for units, for the smallest family-wise p.

    The variances of all other parts are scaled, so that motion is `motion` in every unit.
    """
    variances = design.planted.copy()
    variances[1] = 0
    variances *= (1 - motion) / variances.sum(0)
    variances[1] = motion
    small = []
    for run in tqdm(range(runs), f"{design.name}, {videos} videos", disable=None if progress else True):
        rng = np.random.default_rng([run, videos, 7])
        y, table = design.simulate(videos, rng, variances), design.table(videos, rng)
        found = estimate(y, table, run, flips=FLIPS)
        p = found.p_layer, found.p_units, np.nanmin(found.p_family)
        small.append([np.mean(value <= 0.05) for value in p])
    return np.mean(small, axis=0).tolist()


@command
def main() -> None:
    """Simulate runs of all designs; print the coverage of intervals and the fraction of small p-values."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--clips", default="12,24,100", help="numbers of videos (comma-separated list)")
    parser.add_argument("--designs", default=",".join(d.name for d in DESIGNS), help="names of designs")
    given = parser.parse_args()
    rows = []
    for design in (design for design in DESIGNS if design.name in given.designs.split(",")):
        runs = given.runs if design.units < 100 else max(20, given.runs // 4)
        for videos in map(int, given.clips.split(",")):
            held = coverage(design, videos, runs, progress=True)
            row = [cells(held[name]) for name in ("layer", "units", "counts", "difference")]
            row += [cells(small_p_values(design, videos, runs, part, True)) for part in (0.0, 0.2)]
            row += [cells(found) for found in difference_coverage(design, videos, runs, progress=True)]
            rows.append((design.name, videos, *row))
    names = ["design", "videos", "layer " + " ".join(part[0] for part in PARTS), "units", "counts"]
    table = pd.DataFrame(rows, columns=[*names, "difference", "p", "power", "networks", "others"])
    print(f"kinds counted: {', '.join(COUNTED_KINDS)}\n\n{table.to_markdown(index=False)}")


if __name__ == "__main__":
    sys.exit(main())
