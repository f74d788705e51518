"""Measure the coverage of the 95 % intervals of layer scores on simulated runs with a known true score.

    python -m bench.coverage [--runs 1000]

The simulated activations are sums of random effects: of clip, of style, of clip x style, of clip x order,
and of clip x style x order. Units are normal, rectified or heavy-tailed (Student's t with 4 degrees of
freedom). The true score is the mean over 50 runs of 2,000 clips. For heavy-tailed units the true score is
taken from normal units, which have the same variances.

Three intervals are computed from the same bootstrap replicates: the studentised interval that this project
reports, an interval of fixed shape (bias-corrected, Student's t), and plain percentiles.
"""

import sys

import numpy as np
import pandas as pd
from tqdm import tqdm

from static_dynamic.analysis.estimate.intervals import (
    bootstrap_weights,
    cluster_scalars,
    interval,
    studentised_interval,
)
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.command import Options, command
from static_dynamic.datasets import Clip, make_views

STYLES, UNITS, REPLICATES, LEVEL = (1, 2, 3, 4), 20, 500, 0.95
CLIPS, LARGE = (8, 24, 100, 400), 2000
KINDS = ("normal", "heavy tails", "rectified")


def simulate(clips: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Simulate the activations of a run with pairs=factorial, with shape (clips * styles * orders, units)."""

    def effect(*shape: int) -> np.ndarray:
        return rng.standard_t(4, shape) / np.sqrt(2) if kind == "heavy tails" else rng.standard_normal(shape)

    fixed = np.random.default_rng(9)
    loadings, style = fixed.standard_normal((6, UNITS)), 0.8 * fixed.standard_normal((len(STYLES), 1, UNITS))
    clip = 0.5 * effect(clips, 6) @ loadings + 0.5 * effect(clips, UNITS)
    rows = clip[:, None, None] + style + 0.6 * effect(clips, len(STYLES), 1, UNITS)
    rows = rows + 0.4 * effect(clips, 1, 2, UNITS) + 0.2 * effect(clips, len(STYLES), 2, UNITS)
    return (np.maximum(rows, 0) if kind == "rectified" else rows).reshape(-1, UNITS).astype(np.float32)


def pairs_of(clips: int) -> pd.DataFrame:
    """Return the table of pairs of a run with pairs=factorial and `clips` clips."""
    listed = [Clip(f"c{i:05d}", "", 0, 16, cluster=f"c{i:05d}") for i in range(clips)]
    return make_views(listed, STYLES, {"rgb": 4}, n_sample_frames=16)[1]


@command
def main() -> None:
    """Simulate runs and print, as a table, how often the intervals contain the true score."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    tables = {clips: pairs_of(clips) for clips in (*CLIPS, LARGE)}

    def sums_of(clips: int, kind: str, seed: int) -> Moments:
        rows = simulate(clips, kind, np.random.default_rng(seed))
        return Moments.per_cluster(rows, tables[clips], np.arange(clips).repeat(10), clips)

    print(
        "clips  units         true score     studentised    fixed shape    percentile     (dynamic, static)"
    )
    for kind in KINDS:
        of_truth = "normal" if kind == "heavy tails" else kind
        large = [sums_of(LARGE, of_truth, 10**6 + i).over_clusters().layer_scores() for i in range(50)]
        truth = np.mean(large, axis=0)
        for clips in CLIPS:
            weights = bootstrap_weights(clips, REPLICATES, 0)
            covered = np.zeros((3, 2))
            for run in tqdm(range(runs), desc=f"{kind}, {clips} clips", unit="run", leave=False):
                sums = sums_of(clips, kind, run)
                whole = sums.over_clusters()
                score, replicates = whole.layer_scores(), sums.resample(weights).layer_scores()
                scalars = cluster_scalars(sums, whole)
                bounds = [
                    studentised_interval(score, replicates, scalars, weights, LEVEL),
                    interval(score, replicates, clips, LEVEL),
                    np.quantile(replicates, [0.025, 0.975], axis=0),
                ]
                covered += [(low <= truth) & (truth <= high) for low, high in bounds]
            cells = ["{:.3f}  {:.3f}".format(*pair) for pair in (truth, *(covered / runs))]
            print(f"{clips:5d}  {kind:<12}  {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
