"""Turn the variance parts (content, motion, ...) of each altered frame order into columns of result tables.

The first altered order (shuffled frames; jittered flow for networks that see flow) gives all four parts. Each
further altered order gives one motion part of its own:

    motion              shuffled frames: what needs the frame order
    motion_reshuffled   frames shuffled by a second seed: how ``motion`` depends on the chosen order
    motion_direction    reversed frames, halved: the part of the answer that turns its sign with the direction
    motion_any          one frame repeated: what needs any motion
    background          new background behind the moving foreground: what needs the background
    foreground_motion   one frame of the foreground repeated, compared with the moving foreground, both on
                        the new background: what needs the motion of the foreground
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import (
    FORWARD,
    FROZEN,
    FROZEN_FOREGROUND,
    NEW_BACKGROUND,
    RESHUFFLED,
    REVERSED,
    first_altered_order,
)

from .decomposition import BITS, PARTS, Decomposition, decompose
from .intervals import with_bounds
from .jackknife import Jackknife
from .kinds import COUNTED_KINDS, KINDS, REPLICATES, count_kinds
from .motion_test import draw_pair_signs
from .order_table import OrderTable

log = logging.getLogger(__name__)

# A unit carries motion if its family-wise p-value in the test of motion is at most this level.
SIGNIFICANT = 0.05


class MotionColumn(NamedTuple):
    """Name of a motion column of the result tables, and the factor by which its values are multiplied.

    The altered order is compared with the order ``base``.
    """

    name: str
    factor: float = 1.0
    base: str = FORWARD


# A run may have these orders besides the altered order of its static pairs; each has its own result column.
FURTHER_ORDERS = {
    RESHUFFLED: MotionColumn("motion_reshuffled"),
    # Half of the motion part is the variance of the component whose sign changes when frames are reversed.
    REVERSED: MotionColumn("motion_direction", 0.5),
    FROZEN: MotionColumn("motion_any"),
    NEW_BACKGROUND: MotionColumn("background"),
    FROZEN_FOREGROUND: MotionColumn("foreground_motion", base=NEW_BACKGROUND),
}


@dataclass(frozen=True)
class AlteredOrder:
    """Views in one altered frame order, with random numbers for the motion test and unit-count intervals."""

    name: str
    table: OrderTable
    # (replicates, videos) standard normal numbers, for intervals of unit counts
    multipliers: NDArray
    # (videos, flips, pairs of styles) random signs for the sign-flip test of motion
    signs: NDArray

    def decompose(self, activations: NDArray, *, tested: bool = True) -> Decomposition:
        """Decompose the variance of each unit of a stage into content, motion, appearance and residual."""
        return decompose(activations, self.table, self.multipliers, self.signs, tested=tested)


@dataclass(frozen=True)
class AlteredOrders:
    """All altered frame orders of a run.

    ``first`` is None if no clip has two styles both in the forward and in the altered order.
    """

    first: AlteredOrder | None
    further: list[AlteredOrder]

    @classmethod
    def of_run(cls, store: Store, n_boot: int, n_flips: int, seed: int) -> Self:
        """Find the altered frame orders of a finished run, and draw random numbers for their tests."""
        done = store.status == DONE
        name = first_altered_order(store.views)
        first = open_order(store, done, name, n_boot, n_flips, [seed, 2])
        if first is None:
            log.warning(
                "content, motion and appearance stay empty: they need clips with two styles in both frame "
                "orders, as pairs=factorial (default) and pairs=both have them"
            )
            return cls(None, [])
        further = [
            open_order(store, done, order, 0, n_flips, [seed, 3 + k])
            for k, order in enumerate(FURTHER_ORDERS)
            if order in set(store.views["order"]) and order != name
        ]
        return cls(first, [order for order in further if order is not None])

    def columns(self, activations: NDArray, level: float) -> tuple[dict, dict]:
        """Return two dicts of a stage's columns: one for the table of layers, one for the table of units."""
        if self.first is None:
            return empty_columns(activations.shape[1])
        layer, unit = columns_of_parts(self.first.decompose(activations), level)
        for order in self.further:
            own = motion_columns(order.decompose(activations), FURTHER_ORDERS[order.name], level)
            layer, unit = layer | own[0], unit | own[1]
        return layer, unit


def open_order(
    store: Store, done: NDArray, name: str, n_boot: int, n_flips: int, seed: list[int]
) -> AlteredOrder | None:
    """Find the views in the altered frame order `name`, and draw random numbers for tests and intervals.

    Returns None if no clip has two styles both in the forward and in the altered order.
    """
    base = FURTHER_ORDERS[name].base if name in FURTHER_ORDERS else FORWARD
    table = OrderTable.of_views(store.views, done, name, base)
    if table is None:
        return None
    replicates = min(n_boot, REPLICATES) if table.videos > 1 else 0
    multipliers = np.random.default_rng(seed).standard_normal((replicates, table.videos))
    return AlteredOrder(name, table, multipliers, draw_pair_signs(table, n_flips, [*seed, 1]))


def columns_of_parts(found: Decomposition, level: float) -> tuple[dict, dict]:
    """Return the columns of a stage and of its units: variance parts, p-values of motion, kinds and bits."""
    layer: dict = {"effective_units": found.effective_units} if found.variance.any() else {}
    layer |= bounded(PARTS, found.layer.estimate, found.bounds(found.layer, level))
    paired = found.layer_difference("motion", "appearance")
    ends = found.bounds(paired, level)
    layer |= with_bounds("motion_minus_appearance", paired.estimate, *ends)
    layer |= {"p_motion": found.p_layer}
    counts = count_kinds(found.kinds)
    layer |= bounded([f"kind_{kind}" for kind in COUNTED_KINDS], counts.astype(int), found.kind_bounds(level))
    layer["kind_unknown"] = int((found.kinds == KINDS.index("unknown")).sum())
    layer["carries_motion"] = int((found.p_family <= SIGNIFICANT).sum())
    layer |= bounded([f"bits_{name}" for name in BITS], found.bits.estimate, found.bounds(found.bits, level))
    unit = bounded(PARTS, found.units, found.unit_bounds(level))
    unit |= {"kind": np.array(KINDS)[found.kinds], "p_motion": found.p_units}
    unit |= {"p_family_motion": found.p_family, "carries_motion": found.p_family <= SIGNIFICANT}
    return layer, unit


def motion_columns(found: Decomposition, column: MotionColumn, level: float) -> tuple[dict, dict]:
    """Return the motion columns of an altered frame order that is not the order of the static pairs."""
    k = PARTS.index("motion")
    of_layer = (found.layer.estimate, *found.bounds(found.layer, level))
    of_units = (found.units, *found.unit_bounds(level))
    layer = with_bounds(column.name, *(column.factor * values[k] for values in of_layer))
    unit = with_bounds(column.name, *(column.factor * values[k] for values in of_units))
    p = {f"p_{column.name}": found.p_layer}
    return layer | p, unit | {f"p_{column.name}": found.p_units, f"p_family_{column.name}": found.p_family}


def bounded(names, values: NDArray, ends: tuple[NDArray, NDArray]) -> dict:
    """Return the table columns NAME, NAME_low and NAME_high for each NAME in `names`."""
    found: dict = {}
    for name, value, low, high in zip(names, values, *ends, strict=True):
        found |= with_bounds(name, value, low, high)
    return found


def empty_columns(units: int) -> tuple[dict, dict]:
    """Return NaN columns for a run from which content, motion and appearance cannot be estimated."""
    nothing = np.full((len(PARTS), units), np.nan)
    of_layer = Jackknife(np.zeros(len(PARTS)), np.zeros((0, len(PARTS))))
    of_bits = Jackknife(np.zeros(len(BITS)), np.zeros((0, len(BITS))))
    unknown = Decomposition(
        nothing,
        nothing,
        of_layer,
        of_bits,
        np.zeros(units),
        np.nan,
        nothing[0],
        nothing[1],
        np.eye(3),
        nothing[None][:0],
        1,
    )
    layer, unit = columns_of_parts(unknown, 0.95)
    return dict.fromkeys(layer, np.nan), dict.fromkeys(unit, np.nan) | {"kind": None}
