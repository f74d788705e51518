"""Read and check the pairs of a finished run, and select the pairs of one factor."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets.views import DYNAMIC
from static_dynamic.errors import UserError

from .estimator import MEASURED
from .moments import Moments


def open_finished(run_dir: str | Path) -> tuple[Store, pd.DataFrame]:
    """Open a finished run; return its store, and the pairs whose two views both have activations.

    Raises UserError if the folder holds no finished run, or if a factor has no pairs.
    """
    store = Store.open(run_dir)
    store.require_finished()
    pairs = store.finished_pairs()
    for f, name in enumerate(MEASURED):
        if not (pairs["factor"] == f).any():
            raise UserError(f"{store.path} has no {name} pair whose two views were computed: use more clips")
    return store, pairs


def not_finite(store: Store, stage: str) -> UserError:
    """Return the UserError for a stage with NaN or infinite activations."""
    return UserError(
        f"{store.path}: the activations of {stage} hold NaN or infinity: delete this folder and run again"
    )


def read_sums(store: Store, stage: str, pairs: pd.DataFrame, cluster: NDArray, clusters: int) -> Moments:
    """Compute a stage's sums over the pairs of each cluster; raise UserError if an activation is not finite.

    `cluster` (N,) is the cluster number of each pair, `clusters` the number of clusters.
    """
    sums = Moments.per_cluster(store.activations(stage), pairs, cluster, clusters)
    if not np.isfinite(sums.square).all():
        raise not_finite(store, stage)
    return sums


@dataclass(frozen=True)
class FactorPairs:
    """The pairs of one factor (dynamic or static), sorted by cluster (all clips of one video)."""

    # (N,) row number of the first member of each pair
    a: NDArray
    # (N,) row number of the second member of each pair
    b: NDArray
    # (N,) cluster number of each pair, ascending, from 0 to K - 1
    cluster: NDArray
    clip: NDArray  # (N,) clip numbers
    # (N,) index of the first member's combination of style and frame order
    group_a: NDArray
    # (N,) index of the second member's combination of style and frame order
    group_b: NDArray
    # (N,) dynamic pairs: style number of the first member; static pairs: 0
    strand_a: NDArray
    # (N,) dynamic pairs: style number of the second member; static pairs: 1
    strand_b: NDArray
    # (N,) position of each pair among the clip's pairs of this factor, from 0
    slot: NDArray
    names: NDArray  # (K,) cluster names

    @property
    def clusters(self) -> int:
        """Number of clusters that have pairs of this factor."""
        return len(self.names)

    def slots(self) -> list[NDArray]:
        """Group pairs by position (slot) in the clip; leave out clips that lack one of the positions."""
        counts = np.bincount(self.clip)
        complete = counts[self.clip] == counts.max()
        return [np.flatnonzero(complete & (self.slot == slot)) for slot in range(counts.max())]


def pairs_of_factor(pairs: pd.DataFrame, factor: int, views: pd.DataFrame) -> FactorPairs:
    """Select the pairs of one factor from a run's tables of pairs and views."""
    chosen = pairs[pairs["factor"] == factor].sort_values(["cluster", "clip"], kind="stable")
    names, cluster = np.unique(chosen["cluster"].to_numpy(), return_inverse=True)
    a, b = chosen["a"].to_numpy(), chosen["b"].to_numpy()
    clip = np.unique(chosen["clip"].to_numpy(), return_inverse=True)[1]
    slot = chosen.groupby(["cluster", "clip"]).cumcount().to_numpy()
    group, style = style_order_groups(views), pd.factorize(views["style"])[0]
    # The members of a dynamic pair differ in style; the members of a static pair differ in frame order.
    strands = (style[a], style[b]) if factor == DYNAMIC else (np.zeros_like(a), np.ones_like(b))
    return FactorPairs(a, b, cluster, clip, group[a], group[b], *strands, slot, names)


def style_order_groups(views: pd.DataFrame) -> NDArray:
    """Return, for each view, the number of its combination of style, frame order and (VOS) flow jitter."""
    keys = [name for name in ("style", "order", "flow") if name in views]
    return views.groupby(keys, dropna=False).ngroup().to_numpy()
