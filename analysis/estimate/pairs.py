"""The pairs of a finished run: checked, and divided by factor."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

from .estimator import MEASURED


def open_finished(run_dir: str | Path) -> tuple[Store, pd.DataFrame]:
    """Open a finished run and return it with its pairs whose two members were both read.

    Raises UserError if the folder holds no finished run, or if a factor has no pairs.
    """
    store = Store.open(run_dir)
    store.require_finished()
    pairs = store.finished_pairs()
    for f, name in enumerate(MEASURED):
        if not (pairs["factor"] == f).any():
            raise UserError(f"{store.path}: no {name} pair is left: nothing can be estimated")
    return store, pairs


def not_finite(store: Store, stage: str) -> UserError:
    """Return the error for a stage whose activations hold NaN or infinity."""
    return UserError(
        f"{store.path}: activations of {stage} hold NaN or infinity: remove the folder and run again"
    )


@dataclass(frozen=True)
class FactorPairs:
    """The N pairs of one factor, sorted by cluster; K clusters have pairs of this factor."""

    a: NDArray  # (N,) row numbers of the first members
    b: NDArray  # (N,) row numbers of the second members
    cluster: NDArray  # (N,) cluster numbers 0 .. K - 1, ascending
    clip: NDArray  # (N,) clip numbers
    slot: NDArray  # (N,) position of the pair within its clip: 0 for its first pair of this factor
    names: NDArray  # (K,) cluster names

    @property
    def clusters(self) -> int:
        """Number of clusters that have pairs of this factor."""
        return len(self.names)

    def slots(self) -> list[NDArray]:
        """Positions of the pairs of each slot; clips that lack a pair are left out of all slots."""
        counts = np.bincount(self.clip)
        complete = counts[self.clip] == counts.max()
        return [np.flatnonzero(complete & (self.slot == slot)) for slot in range(counts.max())]


def pairs_of_factor(pairs: pd.DataFrame, factor: int) -> FactorPairs:
    """Select the pairs of one factor from a run's table of pairs."""
    chosen = pairs[pairs["factor"] == factor].sort_values(["cluster", "clip"], kind="stable")
    names, cluster = np.unique(chosen["cluster"].to_numpy(), return_inverse=True)
    a, b = chosen["a"].to_numpy(), chosen["b"].to_numpy()
    clip = np.unique(chosen["clip"].to_numpy(), return_inverse=True)[1]
    slot = chosen.groupby(["cluster", "clip"]).cumcount().to_numpy()
    return FactorPairs(a, b, cluster, clip, slot, names)
