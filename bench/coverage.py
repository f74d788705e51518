"""How often the 95 % intervals hold the truth, on simulated runs of which the truth is known.

    python -m bench.coverage [--runs 300]

Each clip has an effect of its own, each style one on every clip, and clip, style and order interact; units
are normal, heavy-tailed (Student's t, 4 degrees) or rectified. The truth is the score of 8,000 clips. Beside
our interval stands the plain percentile interval of the same replicates.
"""

from __future__ import annotations

import argparse

import numpy as np

from analysis.bootstrap import bootstrap_weights, cluster_moments, interval, over_all_clusters, resample
from analysis.paper import Moments, covariance_and_variance, pooled_variance
from datasets import Clip, make_views

STYLES, UNITS, REPLICATES = (1, 2, 3, 4), 20, 500
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


def layer_scores(sums: Moments) -> np.ndarray:
    """Layer scores (..., 2) of sums over all clips, or of replicates."""
    covariance, variance, mean = covariance_and_variance(sums)
    return covariance.sum(-1) / pooled_variance(sums, variance, mean).sum(-1)[..., None]


def sums_of(clips: int, kind: str, draw: np.random.Generator) -> Moments:
    """Per-clip sums of a simulated run."""
    listed = [Clip(f"c{i:05d}", "", 0, 16, cluster=f"c{i:05d}") for i in range(clips)]
    _, pairs = make_views(listed, STYLES, {"rgb": 4}, n_sample_frames=16)
    return cluster_moments(simulate(clips, kind, draw), pairs, np.arange(clips).repeat(10), clips)


def main() -> None:
    """Simulate and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=300)
    runs = parser.parse_args().runs
    print("clips  units         truth          ours           percentile     (dynamic, static)")
    for kind in KINDS:
        large = [
            layer_scores(over_all_clusters(sums_of(2000, kind, np.random.default_rng(10**6 + i))))
            for i in range(4)
        ]
        truth = np.mean(large, axis=0)
        for clips in (8, 24, 100, 400):
            weights = bootstrap_weights(clips, REPLICATES, 0)
            ours, percentile = np.zeros(2), np.zeros(2)
            for run in range(runs):
                sums = sums_of(clips, kind, np.random.default_rng(run))
                replicates = layer_scores(resample(sums, weights, slice(None)))
                low, high = interval(layer_scores(over_all_clusters(sums)), replicates, clips, 0.95)
                ours += (low <= truth) & (truth <= high)
                low, high = np.quantile(replicates, [0.025, 0.975], axis=0)
                percentile += (low <= truth) & (truth <= high)
            cells = ["{:.3f}  {:.3f}".format(*pair) for pair in (truth, ours / runs, percentile / runs)]
            print(f"{clips:5d}  {kind:<12}  {'   '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
