"""Tabulate the views of each clip and style, in forward and in one altered frame order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.datasets.orders import FORWARD, JITTERED

from .constant import settle

# At most this many float64 numbers are held in memory for one block of units.
NUMBERS = 4e6


@dataclass(frozen=True)
class OrderTable:
    """Row numbers of the views of each clip and style, in forward and in one altered frame order.

    A style of a clip is kept if its views in both orders were computed, and a clip if two styles are kept.
    """

    # (clips, styles, 2 orders) row numbers of views; 0 where a view is missing
    rows: NDArray
    # (clips, styles) True where the views in both frame orders were computed
    kept: NDArray
    # (clips,) index of each clip's video, ascending
    video: NDArray
    # (videos,) names of the videos
    names: NDArray

    @classmethod
    def of_views(cls, views: pd.DataFrame, done: NDArray, altered: str, base: str = FORWARD) -> Self | None:
        """Tabulate the computed views (`done`); return None if no clip has two styles in both frame orders.

        `altered` names the altered order, which is compared with the order `base`. For networks that see
        flow, the altered order is the jittered flow, and each frame of a view counts as a clip of its own.
        """
        table = views.assign(row=np.arange(len(views)), is_altered=alteration(views, altered, base))
        # number the frames within each view, which may contain a frame twice
        if "frame" in views:
            table["frame"] = table.groupby(["clip", "style", "order", "flow"]).cumcount()
        table = table[done]
        table = table[table["is_altered"] >= 0]
        keys = ["cluster", "clip", *(["frame"] if "frame" in views else [])]
        if table["is_altered"].nunique() < 2 or table.duplicated([*keys, "style", "is_altered"]).any():
            return None
        wide = table.pivot(index=keys, columns=["style", "is_altered"], values="row")
        styles = sorted(table["style"].unique())
        wide = wide.reindex(columns=pd.MultiIndex.from_product([styles, (0, 1)])).sort_index()
        rows = wide.to_numpy(float).reshape(len(wide), len(styles), 2)
        kept = np.isfinite(rows).all(-1)
        enough = kept.sum(1) >= 2
        if not enough.any():
            return None
        rows, kept = rows[enough], kept[enough]
        rows = np.where(kept[..., None], rows, 0).astype(np.int64)
        names, video = np.unique(wide.index.get_level_values("cluster")[enough], return_inverse=True)
        return cls(rows, kept, video, names)

    @property
    def videos(self) -> int:
        """Number of videos."""
        return len(self.names)

    def of_videos(self, names: NDArray) -> Self:
        """Return a table with only the videos whose names are in `names`."""
        chosen = np.isin(self.names, names)
        own = chosen[self.video]
        video = np.unique(self.video[own], return_inverse=True)[1]
        return type(self)(self.rows[own], self.kept[own], video, self.names[chosen])

    @property
    def complete(self) -> bool:
        """Whether every clip has every style in both frame orders."""
        return bool(self.kept.all())

    def read(self, activations: NDArray, units: slice) -> tuple[NDArray, NDArray]:
        """Return the activations of a slice of units, and the largest absolute activation of each unit.

        Activations (K, S, 2, C) are returned less those of one kept view, and 0 where no view is kept.
        """
        y = activations[:, units][self.rows].astype(np.float64)
        if not self.complete:
            y[~self.kept] = y[0, int(np.argmax(self.kept[0])), 0]
        largest = np.abs(y).max((0, 1, 2))
        settle(y)
        y -= y[0, int(np.argmax(self.kept[0])), 0].copy()
        return y, largest

    def per_video(self, terms: NDArray) -> NDArray:
        """Add up the `terms` (clips, ...) of the clips of each video. Returned shape: (videos, ...)."""
        return np.add.reduceat(terms, np.flatnonzero(np.diff(self.video, prepend=-1)), axis=0)

    def unit_blocks(self, units: int) -> Iterator[slice]:
        """Yield slices of units whose activations fit into memory."""
        styles = self.kept.shape[1]
        per_unit = 2 * styles * (len(self.video) + self.videos * (1 if self.complete else styles))
        width = max(1, int(NUMBERS / per_unit))
        yield from (slice(start, min(units, start + width)) for start in range(0, units, width))


def alteration(views: pd.DataFrame, altered: str, base: str = FORWARD) -> NDArray:
    """Return 0 for each view in the order `base`, 1 for each in the order `altered`, and -1 otherwise."""
    order = views["order"].to_numpy()
    if "flow" not in views:
        return np.select([order == base, order == altered], [0, 1], -1)
    # Views with jittered flow have the order "forward" and a number above 0 in the column "flow".
    jittered = views["flow"].to_numpy() > 0
    of_altered = jittered if altered == JITTERED else order == altered
    return np.select([(order == FORWARD) & ~jittered, of_altered], [0, 1], -1)
