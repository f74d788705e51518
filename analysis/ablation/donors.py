"""Choose for each view the view whose activations replace its own (activation patching)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.errors import UserError
from static_dynamic.rng import generator

# Values of the option ``task.replace`` that take activations from another view -> the message if a run has no
# such view.
DONORS = {
    "clip": "no other video has a clip in the same style and order",
    "order": "no clip and style was read in two orders",
    "style": "no clip was read in two styles",
}


def donor_rows(views: pd.DataFrame, replace: str, seed: int) -> pd.Series:
    """Return the row number of the donor of each view, indexed by row number; views without donor are absent.

    `views` is a table as from `kept_views`, `replace` a key of `DONORS`. ``order``: the other order of the
    same clip and style. ``style``: the same clip and order, in the next style. ``clip``: the same style and
    order of a random clip of another video, the same one for all views of a clip.
    """
    keys = ["clip", "style", "altered", "position"]
    wanted = views[keys].copy()
    if replace == "order":
        wanted["altered"] = 1 - wanted["altered"]
    elif replace == "style":
        following = {clip: next_of(np.sort(own.unique())) for clip, own in views.groupby("clip")["style"]}
        wanted["style"] = [following[c].get(s, s) for c, s in zip(views["clip"], views["style"], strict=True)]
    else:
        wanted["clip"] = views["clip"].map(other_clips(views, seed))
    place = pd.Series(views.index, index=pd.MultiIndex.from_frame(views[keys]))
    donors = place.reindex(pd.MultiIndex.from_frame(wanted)).to_numpy(float)
    found = np.isfinite(donors) & (donors != views.index.to_numpy())
    if not found.any():
        raise UserError(f"task.replace={replace}: {DONORS[replace]}: give task.replace=mean")
    return pd.Series(donors[found].astype(np.int64), index=views.index[found])


def next_of(styles: NDArray) -> dict[int, int]:
    """Map each style to the next style, and the last style to the first."""
    return dict(zip(styles.tolist(), np.roll(styles, -1).tolist(), strict=True))


def other_clips(views: pd.DataFrame, seed: int) -> dict[str, str]:
    """Draw for each clip a clip of another video; clips without another video are absent."""
    clips = views.drop_duplicates("clip").set_index("clip")["cluster"]
    drawn = {}
    for clip, cluster in clips.items():
        others = clips.index[clips != cluster]
        if len(others):
            drawn[str(clip)] = str(generator(seed, str(clip), "ablation donor").choice(others.to_numpy()))
    return drawn
