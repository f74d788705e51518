"""Choose the sets of units that are ablated, and random sets of equal size and matched variance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.estimator import UNIT_CLASSES
from static_dynamic.analysis.estimate.kinds import COUNTED_KINDS
from static_dynamic.errors import UserError

# Value of the option ``task.sets`` -> column of ``units.parquet``, and the labels whose units are ablated.
LABELLED = {
    "kind": ("kind", COUNTED_KINDS),
    "class": ("class", UNIT_CLASSES[:4]),
}
# Values of the option ``task.sets`` that take the units with the largest motion, appearance or content part.
# One set is made per percentage in ``task.doses``.
RANKED = ("motion", "appearance", "content")
# Value of the option ``task.sets`` that takes the units in ``task.units``.
LISTED = "listed"
# Number of strata of units with similar variance. In each stratum, a random set has as many units as the
# chosen set.
STRATA = 10
# Smallest number of units per stratum; a stage with fewer units than twice this number is one stratum.
LEAST_PER_STRATUM = 10


@dataclass(frozen=True)
class UnitSet:
    """A set of units to ablate."""

    # Why these units were chosen, e.g. "kind motion" or "most motion".
    name: str
    # Size of the set in percent of the stage's live units (for ranked units: the value in ``task.doses``).
    dose: float
    units: NDArray[np.int64]


def choose_sets(
    units: pd.DataFrame,
    live: NDArray[np.bool_],
    wanted: Sequence[str],
    doses: Sequence[float],
    listed: Sequence[int],
) -> list[UnitSet]:
    """Return the sets of units that the options ask for; dead units, which do not vary, are in no set.

    Parameters
    ----------
    units
        The rows of ``units.parquet`` of one stage, one per unit.
    live
        (units,) whether each unit varies over the data set.
    wanted
        Keys of `LABELLED`, `RANKED` or `LISTED`.
    doses
        Percentages of the live units, for `RANKED`. Doses that give equal numbers of units count once.
    listed
        Numbers of units, for `LISTED`.

    Raises UserError if the run has no parts or the units do not exist, or if no set has a unit.
    """
    units = units.sort_values("unit").reset_index(drop=True)
    stage = units["stage"].iloc[0]
    found: list[UnitSet] = []
    for name in dict.fromkeys(wanted):
        if name == LISTED:
            found.append(listed_set(listed, live, stage))
        elif name in LABELLED:
            found += labelled_sets(units, live, name)
        else:
            found += ranked_sets(units, live, name, doses)
    found = [one for one in found if len(one.units)]
    if not found:
        raise UserError(
            f"{stage} has no unit of the sets {', '.join(wanted)}: give other task.sets or another stg"
        )
    return found


def labelled_sets(units: pd.DataFrame, live: NDArray[np.bool_], name: str) -> Iterator[UnitSet]:
    """Yield one set per label: the units of each kind, or of each class of the paper."""
    column, labels = LABELLED[name]
    labelled = require_column(units, column)
    for label in labels:
        members = np.flatnonzero((labelled == label).to_numpy() & live)
        yield UnitSet(f"{name} {label}", 100 * len(members) / max(1, live.sum()), members)


def ranked_sets(
    units: pd.DataFrame, live: NDArray[np.bool_], part: str, doses: Sequence[float]
) -> Iterator[UnitSet]:
    """Yield one set per dose: the live units with the largest `part` (content, motion or appearance)."""
    values = require_column(units, part).to_numpy(float)
    ranked = np.argsort(-np.where(live, np.nan_to_num(values, nan=-np.inf), -np.inf), kind="stable")
    used = set()
    for dose in sorted(doses):
        count = max(1, round(dose / 100 * live.sum()))
        if count not in used:
            used.add(count)
            yield UnitSet(f"most {part}", float(dose), np.sort(ranked[: min(count, live.sum())]))


def listed_set(listed: Sequence[int], live: NDArray[np.bool_], stage: str) -> UnitSet:
    """Return the set of the units in ``task.units``."""
    if not listed:
        raise UserError(f"task.sets={LISTED} needs numbers of units: give for example task.units=[3,17]")
    members = np.unique(np.asarray(listed, np.int64))
    for unit in members:
        if not 0 <= unit < len(live):
            raise UserError(f"task.units: {stage} has the units 0 to {len(live) - 1}, but no unit {unit}")
        if not live[unit]:
            raise UserError(f"task.units: unit {unit} of {stage} does not vary (a dead unit): leave it out")
    return UnitSet(LISTED, 100 * len(members) / live.sum(), members)


def require_column(units: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of ``units.parquet``; raise UserError if it is missing or has no values."""
    if column not in units or units[column].isna().all():
        raise UserError(
            f"units.parquet has no {column} of units: parts and kinds need clips with two styles in both "
            "frame orders (pairs=factorial or pairs=both); task.sets=[class] works with every run"
        )
    return units[column]


def matched_sets(
    chosen: NDArray[np.int64], variance: NDArray, count: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Draw `count` random sets of live units with the size of `chosen` and matched variance.

    The live units are sorted by `variance` (units,) and divided into strata of equal size. A random set has
    as many units of each stratum as the chosen set, drawn without replacement. If the chosen units are
    themselves drawn at random within the strata, they and the random sets are exchangeable.
    """
    live = np.flatnonzero(variance > 0)
    by_variance = live[np.argsort(variance[live], kind="stable")]
    strata = np.array_split(by_variance, max(1, min(STRATA, len(live) // LEAST_PER_STRATUM)))
    wanted = [int(np.isin(stratum, chosen).sum()) for stratum in strata]
    return [
        np.sort(
            np.concatenate([rng.choice(s, k, replace=False) for s, k in zip(strata, wanted, strict=True)])
        )
        for _ in range(count)
    ]
