"""Stop reading clips as soon as all intervals are as narrow as the option ``until`` demands.

Clips are read in a random order. At a few numbers of clips, content, motion, appearance and residual of every
stage are estimated. Reading stops if no interval of any stage has a half-width above the wanted one, where

    half-width = t(G - 1) * standard error * sqrt(df / (20 % quantile of chi-squared with df))

The check is repeated, so reading would often stop where the standard error is small by chance. The root
prevents this: with it, the half-width is an upper 80 % limit. G is the number of videos, and df are the
degrees of freedom of `jackknife.degrees_of_freedom`. bench/sequential.py measures how often the 95 %
intervals of stopped runs contain the true value.
"""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from static_dynamic.analysis.run.store import DONE, Store
from static_dynamic.datasets.orders import first_altered_order

from .decomposition import Decomposition, decompose
from .jackknife import degrees_of_freedom, student_quantile
from .motion_test import draw_pair_signs
from .order_table import OrderTable

log = logging.getLogger(__name__)

# Intervals are first checked after FIRST_CHECK clips; each later check has GROWTH times as many clips.
FIRST_CHECK, GROWTH = 24, 1.5
# With fewer videos, standard errors are too uncertain to decide whether to stop reading clips.
FEWEST_VIDEOS = 24
# Reading stops if all half-widths, as upper confidence limits at this level, are small enough.
ASSURANCE = 0.8


def check_sizes(clips: int) -> list[int]:
    """Return the numbers of clips after which reading may stop: 24, 36, 54 ..., all less than `clips`."""
    sizes, size = [], float(FIRST_CHECK)
    while size < clips:
        sizes.append(int(size))
        size *= GROWTH
    return sizes


def widest_half_width(store: Store, clips: set[str], level: float = 0.95) -> float | None:
    """Return the largest half-width of any variance part of any stage, estimated from the clips `clips`.

    None if fewer than `FEWEST_VIDEOS` videos have clips with two styles in both orders.
    """
    read = (store.status == DONE) & store.views["clip"].isin(clips).to_numpy()
    table = OrderTable.of_views(store.views, read, first_altered_order(store.views))
    if table is None or table.videos < FEWEST_VIDEOS:
        return None
    nothing = np.empty((0, table.videos)), draw_pair_signs(table, 0, (0,))  # no replicates, no flips
    return max(
        half_width(decompose(store.activations(stage), table, *nothing), level) for stage in store.stages
    )


def half_width(found: Decomposition, level: float = 0.95) -> float:
    """Return the largest half-width of a stage's four parts, as an upper 80 % confidence limit."""
    deviation: NDArray = found.layer.deviation  # (G, 4)
    df = degrees_of_freedom(deviation)
    stretch = np.sqrt(df / chdtri(df, ASSURANCE))
    half = student_quantile(level, max(1, found.videos - 1)) * found.layer.error * stretch
    return float(np.nan_to_num(half, nan=np.inf).max())


def read_until(store: Store, width: float, read: Callable[[int], None]) -> None:
    """Read clips until all half-widths are at most `width`; mark the views of unread clips as not needed.

    `read` computes all views before a row number. The manifest lists the checks, so that a resumed run stops
    at the same check. All clips are left to be read if the intervals of the last check are too wide.
    """
    clip = store.views["clip"]
    names = clip.unique()
    checks: list[dict] = store.manifest.get("until", {}).get("checks", [])
    for k, size in enumerate(check_sizes(len(names))):
        if not len(store.to_do()):
            return
        first = set(names[:size])
        if k >= len(checks):
            read(int(clip.isin(first).sum()))
            checks = [*checks, {"clips": size, "half_width": widest_half_width(store, first)}]
            store.update_manifest(until={"width": width, "checks": checks})
        half = checks[k]["half_width"]
        log.info(
            "%d clips: half-width of the widest interval: %s", size, half if half is None else f"{half:.3f}"
        )
        if half is not None and half <= width:
            log.warning(
                "stopped after %d of %d clips, because all intervals of content, motion, appearance and "
                "residual are at most +- %g wide",
                size,
                len(names),
                width,
            )
            store.leave_rest()
            return
