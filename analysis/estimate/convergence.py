"""How estimates settle with the number of videos: ``task=convergence`` on a run folder.

Scores are estimated from the first 4, 6, 8, 12 ... clusters (videos) of an order that is drawn once, so that
each sample holds the one before, with the interval of that many. Where the curve still drifts out of its
early intervals, there are too few videos, or they are not alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.estimate.bootstrap import bootstrap_weights, cluster_moments, estimate_stage
from static_dynamic.analysis.estimate.estimator import Moments
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

FEWEST, COLUMNS = 4, 5


def sample_sizes(clusters: int) -> list[int]:
    """4, 6, 8, 12, 16, 24 ... and all of them."""
    steps = [FEWEST * 2**k * part // 2 for k in range(30) for part in (2, 3)]
    return [size for size in steps if size < clusters] + [clusters]


def estimate_convergence(
    run_dir: str | Path, n_boot: int = 1000, seed: int = 0, *, level: float = 0.95, progress: bool = False
) -> pd.DataFrame:
    """Scores of every stage from more and more clusters: stage, clusters, and each score with its interval.

    Raises
    ------
    UserError
        No finished extraction there, or one of fewer than four videos.
    """
    store = Store.open(run_dir)
    store.require_finished()
    pairs = store.finished_pairs()
    names, cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    if len(names) < FEWEST:
        raise UserError(f"{store.path}: {len(names)} videos: convergence needs {FEWEST} at least")
    order = np.random.default_rng(seed).permutation(len(names))
    rows = []
    for stage in tqdm(store.stages, desc="convergence", unit="stage", disable=None if progress else True):
        sums = cluster_moments(store.activations(stage), pairs, cluster, len(names))
        for size in sample_sizes(len(names)):
            part = of_clusters(sums, np.sort(order[:size]))
            if (part.count.sum(0) == 0).any():
                continue  # no pair of one factor among so few
            layer, _ = estimate_stage(part, bootstrap_weights(size, n_boot, seed), 0.5, level)
            scores = {k: v for k, v in layer.items() if k.startswith("score_")}
            rows.append({"stage": stage, "clusters": size} | scores)
    return pd.DataFrame(rows)


def of_clusters(sums: Moments, chosen: NDArray) -> Moments:
    """The sums of some clusters."""
    return Moments(
        sums.count[chosen], sums.total[chosen], sums.product[chosen], sums.square[chosen], sums.shift
    )
