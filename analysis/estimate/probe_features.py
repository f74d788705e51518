"""Choose the activations that probes read: all units of a stage, and controls.

Controls are views in an altered order, an untrained network, and the units with the largest parts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import first_altered_order
from static_dynamic.errors import UserError

from .pairs import not_finite
from .tables import read_units

ALL, ALTERED, UNTRAINED = "all", "altered order", "untrained"
# Parts of the decomposition that are compared with decodability.
COMPARED_PARTS = ("content", "motion", "appearance")
# Probes of the units with the largest parts use this fraction of the units of a stage.
QUARTER = 0.25


@dataclass(frozen=True)
class Features:
    """Activations (rows, units) that a probe reads, and the row number of each view (-1: no row)."""

    name: str
    activations: NDArray
    row_of: NDArray
    permuted: bool = True


def features_of(
    store: Store, stage: str, other: tuple[Store, NDArray] | None, parts: pd.DataFrame | None
) -> Iterator[Features]:
    """Yield the activations that probes read at one stage: all units first, then the controls.

    The controls are the views in the altered order, the untrained network, and the quarters of the units with
    the largest parts. Raises UserError if activations are not finite.
    """
    views, done = store.views, store.status == DONE
    rows = np.where(done, np.arange(len(views)), -1)
    activations = np.asarray(store.activations(stage))
    if not np.isfinite(activations[done]).all():
        raise not_finite(store, stage)
    yield Features(ALL, activations, rows)
    altered = rows_in_order(views, first_altered_order(views))
    altered = np.where((altered >= 0) & done[altered], altered, -1)
    if (altered >= 0).any():
        yield Features(ALTERED, activations, altered)
    if other is not None and stage in other[0].stages:
        yield Features(UNTRAINED, np.asarray(other[0].activations(stage)), other[1])
    if parts is not None:
        own = parts[parts["stage"] == stage].set_index("unit")[list(COMPARED_PARTS)].dropna()
        count = int(np.ceil(QUARTER * len(own)))
        for part in COMPARED_PARTS if count else ():
            units = np.sort(own[part].nlargest(count).index.to_numpy())
            yield Features(f"{part} units", activations[:, units], rows, permuted=False)


def rows_in_order(views: pd.DataFrame, order: str) -> NDArray:
    """Return, for each view, the row of the same clip and style in another order; -1 if there is none."""
    keys = pd.MultiIndex.from_frame(views[["clip", "style"]])
    shown = views["order"].to_numpy() == order
    first = ~keys[shown].duplicated()
    where = pd.Series(np.flatnonzero(shown)[first], index=keys[shown][first])
    return where.reindex(keys).fillna(-1).to_numpy(int)


def matched(store: Store, untrained: str | Path) -> tuple[Store, NDArray]:
    """Open the untrained network's run; return it, and its row for each view of `store` (-1: skipped).

    Raises UserError if the run is not finished, or has not all views, or none of the stages.
    """
    other = Store.open(untrained)
    other.require_finished()
    keys, theirs = (pd.MultiIndex.from_frame(one.views[["clip", "style", "order"]]) for one in (store, other))
    if theirs.duplicated().any() or (missing := ~keys.isin(theirs)).any():
        count = int(missing.sum()) if not theirs.duplicated().any() else len(keys)
        raise UserError(
            f"task.untrained={untrained} lacks {count} of the {len(keys)} views of {store.path}: "
            "run the untrained network (model.init=random) with the same data, styles, orders and seed"
        )
    if not set(store.stages) & set(other.stages):
        raise UserError(
            f"task.untrained={untrained} has none of the stages {', '.join(store.stages)}: "
            "give a run of the same network"
        )
    row = theirs.get_indexer(keys)
    return other, np.where(other.status[row] == DONE, row, -1)


def parts_of_units(folder: Path) -> pd.DataFrame | None:
    """Read the variance parts of all units of a run; return None if the run has no variance parts."""
    if not (folder / "units.parquet").exists():
        return None
    units = read_units(folder)
    return units if set(COMPARED_PARTS) <= set(units) else None
