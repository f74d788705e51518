"""Frames of the clips that drive single units most."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import ClipList
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.errors import UserError

# frames of a view on the contact sheet: its first, its middle, its last
SHOWN = 3


def read_strips(store: Store, top: pd.DataFrame, root: str | None) -> dict[int, NDArray]:
    """Some frames of the views that `top` names, as the network's first pathway saw them: row -> (n, H, W,
    3).

    Read again from where the run's manifest says that its data lie, or from `root`.

    Raises
    ------
    UserError
        Where they are not there any more.
    """
    views = pd.read_parquet(store.path / "views.parquet")
    column = next(name for name in views if name.startswith("frames_"))
    place = Path(root or store.manifest["root"])
    listing = ClipList(store.manifest["identity"]["dataset"]["name"], place, (), ())
    strips = {}
    for row in tqdm(sorted(set(top["row"])), desc="frames", unit="clip", delay=2):
        view = views.iloc[row]
        frames = view[column]
        shown = frames[np.linspace(0, len(frames) - 1, SHOWN).astype(int)].tolist()
        try:
            strips[row] = listing.frames_of(view["video"], view["style"]).read(shown)
        except BadFrames as error:
            raise UserError(
                f"{store.path}: frames of its data set are not at {place} any more ({error}): "
                "give task.root=FOLDER, where style_1, style_2 ... lie now"
            ) from error
    return strips
