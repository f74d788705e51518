"""Content, motion and appearance in ``layers.csv`` and ``units.parquet``, for every altered order of a run.

The first altered order (shuffled frames; jittered flow for networks that see flow) gives all four parts. Each
further altered order gives one motion part of its own:

    motion              shuffled frames: what needs the frame order
    motion_reshuffled   frames shuffled by a second seed: how ``motion`` depends on the chosen order
    motion_direction    reversed frames, halved: the part of the answer that turns its sign with the direction
    motion_any          one frame repeated: what needs any motion
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import FROZEN, RESHUFFLED, REVERSED, first_altered_order

from .decomposition import BITS, PARTS, Decomposition, decompose
from .intervals import with_bounds
from .jackknife import Jackknife
from .kinds import COUNTED_KINDS, KINDS, REPLICATES, count_kinds
from .motion_test import draw_pair_signs
from .order_table import OrderTable

log = logging.getLogger(__name__)

# Family-wise significance level at which a unit carries motion.
SIGNIFICANT = 0.05


class MotionColumn(NamedTuple):
    """Name of the table column with the motion part of an altered order, and the factor of (d - b) / v."""

    name: str
    factor: float = 1.0


# Orders that may be added to the first altered order.
FURTHER_ORDERS = {
    RESHUFFLED: MotionColumn("motion_reshuffled"),
    # Reversing twice gives the clip back, so (d - b) / (2 v) is the part that changes its sign when reversed.
    REVERSED: MotionColumn("motion_direction", 0.5),
    FROZEN: MotionColumn("motion_any"),
}


@dataclass(frozen=True)
class AlteredOrder:
    """The views of one altered order, and the random numbers for counts of kinds and the test of motion."""

    name: str
    table: OrderTable
    multipliers: NDArray  # random numbers for counts of kinds, (R, G)
    signs: NDArray  # signs of the test of motion, (G, flips, pairs of styles)

    def decompose(self, activations: NDArray) -> Decomposition:
        """Decompose the variance of the units of one stage."""
        return decompose(activations, self.table, self.multipliers, self.signs)


@dataclass(frozen=True)
class AlteredOrders:
    """All altered orders of a run; ``first`` is None if no clip has two styles in both orders."""

    first: AlteredOrder | None
    further: list[AlteredOrder]

    @classmethod
    def of_run(cls, store: Store, n_boot: int, n_flips: int, seed: int) -> Self:
        """Find the altered orders of a finished run, and draw the random numbers of each."""
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
        """Return the columns of one stage for the table of layers and for the table of units."""
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
    """Find the views of one altered order and draw its random numbers; None without two styles in both."""
    table = OrderTable.of_views(store.views, done, name)
    if table is None:
        return None
    replicates = min(n_boot, REPLICATES) if table.videos > 1 else 0
    multipliers = np.random.default_rng(seed).standard_normal((replicates, table.videos))
    return AlteredOrder(name, table, multipliers, draw_pair_signs(table, n_flips, [*seed, 1]))


def columns_of_parts(found: Decomposition, level: float) -> tuple[dict, dict]:
    """Return the columns of the four parts, the test of motion, the kinds of units, and the bits."""
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
    """Return the columns of the motion part of a further altered order."""
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
    """Return the columns of the first altered order, filled with NaN, for a run without such an order."""
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
