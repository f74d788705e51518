"""Measure how often a study with the number of clips from task=plan reaches the required interval width.

    python -m bench.planning [--runs 300 --numbers motion,content]

For each simulated pilot (pairs=factorial, 12 or 24 clips), a new study of the planned size is simulated. The
plan is kept if the half-width of the study's interval is at most the required half-width, which is the median
half-width of studies of 60 clips. Two sizes are compared: the size expected from the pilot's variance itself,
and the planned size, which has an assurance of 80 %.

Activations are sums of random effects: of clip, of style, of clip x style, of clip x order, and of clip x
style x order. Effects are normal or heavy-tailed (Student's t with 4 degrees of freedom). For loud videos,
normal activations are multiplied by a lognormal factor per video (standard deviation of the logarithm 0.8).
Studies have at most 1,000 clips; a larger plan is tested with 1,000 clips.
"""

import sys
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from bench.simulated import STYLES, sums_of, tables
from static_dynamic.analysis.estimate.bootstrap import estimate_stage
from static_dynamic.analysis.estimate.decomposition import BITS, PARTS, decompose
from static_dynamic.analysis.estimate.estimator import MEASURED
from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.jackknife import Jackknife, student_quantile
from static_dynamic.analysis.estimate.motion_test import draw_pair_signs
from static_dynamic.analysis.estimate.order_table import OrderTable
from static_dynamic.analysis.estimate.planning import plan_parts, plan_stage
from static_dynamic.command import Options, command

UNITS, REPLICATES = 20, 300
PILOTS, REFERENCE, MOST_CLIPS = (12, 24), 60, 1000
KINDS = ("normal", "heavy tails", "loud videos")
LOUDNESS = 0.8
# NUMBERS: names of the scores and variance parts for which studies are planned.
NUMBERS = (*MEASURED, *BITS)


def simulate(clips: int, kind: str, rng: np.random.Generator) -> NDArray:
    """Simulate the activations of a run with pairs=factorial. Shape: (clips * styles * orders, units)."""

    def effect(*shape: int) -> NDArray:
        return rng.standard_t(4, shape) / np.sqrt(2) if kind == "heavy tails" else rng.standard_normal(shape)

    fixed = np.random.default_rng(9)
    loadings, style = fixed.standard_normal((6, UNITS)), 0.8 * fixed.standard_normal((len(STYLES), 1, UNITS))
    clip = 0.5 * effect(clips, 6) @ loadings + 0.5 * effect(clips, UNITS)
    rows = clip[:, None, None] + style + 0.6 * effect(clips, len(STYLES), 1, UNITS)
    rows = rows + 0.4 * effect(clips, 1, 2, UNITS) + 0.2 * effect(clips, len(STYLES), 2, UNITS)
    if kind == "loud videos":
        rows = rows * np.exp(LOUDNESS * rng.standard_normal((clips, 1, 1, 1)))
    return rows.reshape(-1, UNITS).astype(np.float32)


def pairs_of(clips: int) -> pd.DataFrame:
    """Return the pairs of a run of `clips` videos with pairs=factorial; each video has a single clip."""
    return tables(clips, 1, "factorial")[1]


def parts_of(rows: NDArray, clips: int) -> Jackknife:
    """Estimate content, motion, appearance and residual of the layer from simulated activations."""
    order = np.arange(len(rows)).reshape(clips, len(STYLES), 2)
    table = OrderTable(order, np.ones(order.shape[:2], bool), np.arange(clips), np.arange(clips))
    return decompose(rows, table, np.empty((0, clips)), draw_pair_signs(table, 0, (0,))).layer


def half_widths(clips: int, kind: str, rng: np.random.Generator) -> NDArray:
    """Return the half-widths of a simulated study's 95 % intervals, in the order of `NUMBERS`."""
    rows = simulate(clips, kind, rng)
    weights = bootstrap_weights(clips, REPLICATES, 0)
    layer, _ = estimate_stage(sums_of(rows, pairs_of(clips)), weights, 0.5, 0.95)
    scores = [(layer[f"score_{f}_high"] - layer[f"score_{f}_low"]) / 2 for f in MEASURED]
    half = student_quantile(0.95, clips - 1) * parts_of(rows, clips).error
    return np.array([*scores, *half[: len(BITS)]])


def required_widths(kind: str) -> NDArray:
    """Return the median half-width of the interval of each of `NUMBERS`, over studies of 60 clips."""
    rngs = [np.random.default_rng([1, i]) for i in range(100)]
    return np.median([half_widths(REFERENCE, kind, rng) for rng in rngs], axis=0)


def plan(clips: int, kind: str, f: int, width: float, rng: np.random.Generator) -> tuple[int, int]:
    """Plan a study of ``NUMBERS[f]`` from a simulated pilot; return expected and planned number of clips."""
    rows, weights = simulate(clips, kind, rng), bootstrap_weights(clips, REPLICATES, 0)
    if NUMBERS[f] in PARTS:
        table = plan_parts(parts_of(rows, clips), "factorial", width)
    else:
        sums = sums_of(rows, pairs_of(clips))
        table = plan_stage(sums, rows, pairs_of(clips), "factorial", width, weights)
    row = table[(table["score"] == NUMBERS[f]) & (table["pairs"] == "factorial")].iloc[0]
    return int(row["expected_clusters"]), int(row["clusters"])


def is_kept(clips: int, kind: str, f: int, width: float, rng: np.random.Generator) -> bool:
    """Simulate a study of `clips` clips; return whether the interval's half-width is at most `width`."""
    return bool(half_widths(min(clips, MOST_CLIPS), kind, rng)[f] <= width)


def kept_plans(clips: int, kind: str, f: int, width: float, runs: int) -> tuple[NDArray, NDArray]:
    """Return the fraction of studies that reach `width`, and the median number of clips.

    Both are arrays (2,): for the expected size and for the planned size.
    """
    kept, sizes = [], []
    for run in tqdm(range(runs), desc=f"{kind}, {clips} clips", unit="pilot", leave=False):
        rng = np.random.default_rng([2, clips, run])
        sizes.append(plan(clips, kind, f, width, rng))
        kept.append([is_kept(size, kind, f, width, rng) for size in sizes[-1]])
    return np.mean(kept, axis=0), np.median(sizes, axis=0)


@command
def main() -> None:
    """Print how often runs of the planned size reach the planned precision, in a table of all simulations."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--numbers", default=",".join(NUMBERS), help="scores and parts (comma-separated)")
    given = parser.parse_args()
    chosen = [NUMBERS.index(name) for name in given.numbers.split(",")]
    print("pilot clips  activations  number      kept: expected, planned   median clips: expected, planned")
    for kind in KINDS:
        widths = required_widths(kind)
        for f, clips in product(chosen, PILOTS):
            kept, sizes = kept_plans(clips, kind, f, widths[f], given.runs)
            cells = "{:14.3f}{:9.3f}{:24.0f}{:9.0f}".format(*kept, *sizes)
            print(f"{clips:11d}  {kind:<11}  {NUMBERS[f]:<10}{cells}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
