"""How often the 95 % intervals hold the truth, on simulated runs of which the truth is known.

    python -m bench.coverage [--runs 1000]

Each clip has an effect of its own, each style one on every clip, and clip, style and order interact; units
are normal, heavy-tailed (Student's t, 4 degrees: no fourth moment, on which the variance of a score depends)
or rectified. The truth is the mean score of 50 runs of 2,000 clips; with heavy tails it is that of normal
units, whose variances are the same. Beside our interval stand, of the same replicates, the one of fixed shape
(bias taken off, Student's t) and plain percentiles.
"""

from __future__ import annotations

import argparse

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
from static_dynamic.datasets import Clip, make_views

STYLES, UNITS, REPLICATES, LEVEL = (1, 2, 3, 4), 20, 500, 0.95
CLIPS, LARGE = (8, 24, 100, 400), 2000
KINDS = ("normal", "heavy tails", "rectified")


def simulate(clips: int, kind: str, draw: np.random.Generator) -> np.ndarray:
    """Activations of the factorial views of `clips` clips: (clips * styles * orders, units)."""

    def effect(*shape: int) -> np.ndarray:
        return (
            draw.standard_t(4, shape) / np.sqrt(2) if kind == "heavy tails" else draw.standard_normal(shape)
        )

    fixed = np.random.default_rng(9)
    loadings, style = fixed.standard_normal((6, UNITS)), 0.8 * fixed.standard_normal((len(STYLES), 1, UNITS))
    clip = 0.5 * effect(clips, 6) @ loadings + 0.5 * effect(clips, UNITS)
    rows = (
        clip[:, None, None]
        + style
        + 0.6 * effect(clips, len(STYLES), 1, UNITS)
        + 0.4 * effect(clips, 1, 2, UNITS)
    )
    rows = rows + 0.2 * effect(clips, len(STYLES), 2, UNITS)
    return (np.maximum(rows, 0) if kind == "rectified" else rows).reshape(-1, UNITS).astype(np.float32)


def pairs_of(clips: int) -> pd.DataFrame:
    """The pairs of the factorial views of `clips` clips."""
    listed = [Clip(f"c{i:05d}", "", 0, 16, cluster=f"c{i:05d}") for i in range(clips)]
    return make_views(listed, STYLES, {"rgb": 4}, n_sample_frames=16)[1]


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    tables = {clips: pairs_of(clips) for clips in (*CLIPS, LARGE)}

    def sums_of(clips: int, kind: str, seed: int) -> Moments:
        rows = simulate(clips, kind, np.random.default_rng(seed))
        return Moments.per_cluster(rows, tables[clips], np.arange(clips).repeat(10), clips)

    print(
        "clips  units         truth          ours           fixed shape    percentile     (dynamic, static)"
    )
    for kind in KINDS:
        alike = "normal" if kind == "heavy tails" else kind
        large = [sums_of(LARGE, alike, 10**6 + i).over_clusters().layer_scores() for i in range(50)]
        truth = np.mean(large, axis=0)
        for clips in CLIPS:
            weights = bootstrap_weights(clips, REPLICATES, 0)
            held = np.zeros((3, 2))
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
                held += [(low <= truth) & (truth <= high) for low, high in bounds]
            cells = ["{:.3f}  {:.3f}".format(*pair) for pair in (truth, *(held / runs))]
            print(f"{clips:5d}  {kind:<12}  {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
