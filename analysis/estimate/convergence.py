"""Estimate variance parts and scores from more and more videos, to show whether the estimates converge.

The task is ``task=convergence``.

Parts, scores and their intervals are estimated from the first 4, 6, 8, 12 ... videos of one random order, so
each sample contains the smaller ones. If a number still drifts out of its early intervals, there are too few
videos or the videos are not alike.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from static_dynamic.errors import UserError

from .bootstrap import estimate_stage
from .intervals import bootstrap_weights
from .paired_parts import PairedParts
from .pairs import open_finished, read_sums

FEWEST = 4


def sample_sizes(clusters: int) -> list[int]:
    """Return the numbers of clusters (videos) to sample: 4, 6, 8, 12, 16, 24 ..., and lastly all clusters."""
    steps = [FEWEST * 2**k * part // 2 for k in range(30) for part in (2, 3)]
    return [size for size in steps if size < clusters] + [clusters]


def estimate_convergence(
    run_dir: str | Path, n_boot: int = 1000, seed: int = 0, *, level: float = 0.95, progress: bool = False
) -> pd.DataFrame:
    """Estimate variance parts and scores of every stage, with intervals, for increasing numbers of videos.

    There are no columns of parts if the run has no parts.
    Raises UserError if the folder holds no finished run, a run of fewer than four videos, or
    activations that are not finite.
    """
    store, pairs = open_finished(run_dir)
    names, cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    if len(names) < FEWEST:
        raise UserError(f"{store.path} has {len(names)} videos, but task=convergence needs at least {FEWEST}")
    parts = PairedParts([store], [0])
    order = np.random.default_rng(seed).permutation(len(names))
    rows = []
    for stage in tqdm(store.stages, desc="convergence", unit="stage", disable=None if progress else True):
        sums = read_sums(store, stage, pairs, cluster, len(names))
        for size in sample_sizes(len(names)):
            sample = sums.clusters(np.sort(order[:size]))
            if (sample.count.sum(0) == 0).any() or not sample.over_clusters().pooled_variance().any():
                # skip a sample that lacks pairs of one factor, or whose units do not vary
                continue
            layer, _ = estimate_stage(sample, bootstrap_weights(size, n_boot, seed), 0.5, level)
            scores = {k: v for k, v in layer.items() if k.startswith("score_")}
            found = parts.mean([(0, stage)], level, among=names[order[:size]])
            rows.append({"stage": stage, "clusters": size} | found | scores)
    return pd.DataFrame(rows)
