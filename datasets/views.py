"""Views and pairs: what the network will see, decided before any forward pass.

A view is a clip in a style and an order; a pair is two views that share one factor (0 dynamic, 1 static).
Everything is a function of the clips, the options and the seed: each clip draws from a generator of its own,
so that neither the number of workers nor the other clips matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import UserError, nearest
from datasets.clips import Clip

DYNAMIC, STATIC = 0, 1
FORWARD, SHUFFLED = "forward", "shuffled"


def make_views(
    clips: Sequence[Clip],
    styles: Sequence[int],
    pathways: Mapping[str, int],
    *,
    n_sample_frames: int,
    pairs: str = "factorial",
    seed: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lay out the views of all clips, and their pairs.

    Parameters
    ----------
    pathways
        Pathway name -> number of frames that it sees.
    n_sample_frames
        Length of the window that those frames are taken from uniformly.
    pairs
        ``factorial``: every style in both orders, S(S-1)/2 dynamic and S static pairs a clip; ``both``: one
        of each from three views; ``paper``: one pair a clip, factors balanced over the clips.

    Returns
    -------
    views
        One row a view, its index the row number: clip, video, cluster, label, style, order, and for each
        pathway the frame numbers that it sees (``frames_<pathway>``).
    pairs
        factor, a, b (row numbers of views), clip, cluster.
    """
    if pairs not in SCHEMES:
        raise UserError(f"pairs={pairs}{nearest(pairs, SCHEMES)} (known: {', '.join(SCHEMES)})")
    if len(set(styles)) < 2:
        raise UserError(f"styles={','.join(map(str, styles))}: a dynamic pair needs two different styles")
    if min(pathways.values()) < 2:
        raise UserError("this network sees one frame at a time: there is no order to shuffle")
    by_rank = sorted(range(len(clips)), key=lambda i: _digest(seed, clips[i].id, "rank"))
    parity = np.empty(len(clips), dtype=int)
    parity[by_rank] = np.arange(len(clips)) % 2  # balanced over the clips, and drawn

    view_rows, pair_rows = [], []
    for clip, factor in zip(clips, parity, strict=True):
        wanted, clip_pairs = SCHEMES[pairs](list(styles), generator(seed, clip.id, "styles"), factor)
        frames = {order: {} for order in (FORWARD, SHUFFLED)}
        window = window_frames(clip, n_sample_frames, generator(seed, clip.id, "window"))
        for name, count in pathways.items():
            forward = window[subsample(n_sample_frames, count)]
            frames[FORWARD][f"frames_{name}"] = forward
            frames[SHUFFLED][f"frames_{name}"] = shuffle(forward, generator(seed, clip.id, f"order {name}"))
        about = {"clip": clip.id, "video": clip.video, "cluster": clip.cluster, "label": clip.label}
        row_of = {view: len(view_rows) + k for k, view in enumerate(wanted)}
        view_rows += [{**about, "style": style, "order": order, **frames[order]} for style, order in wanted]
        pair_rows += [
            {"factor": f, "a": row_of[a], "b": row_of[b], "clip": clip.id, "cluster": clip.cluster}
            for f, a, b in clip_pairs
        ]
    return pd.DataFrame(view_rows), pd.DataFrame(pair_rows)


View = tuple[int, str]  # style, order
Scheme = tuple[list[View], list[tuple[int, View, View]]]  # views in row order; pairs as factor, a, b


def factorial(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """Every style in both orders."""
    views = [(style, order) for style in styles for order in (FORWARD, SHUFFLED)]
    dynamic = [(DYNAMIC, (s, FORWARD), (t, FORWARD)) for s, t in combinations(styles, 2)]
    static = [(STATIC, (s, FORWARD), (s, SHUFFLED)) for s in styles]
    return views, dynamic + static


def both(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """One pair of each factor from three views of two styles that are drawn."""
    s, t = (int(style) for style in draw.choice(styles, size=2, replace=False))
    views = [(s, FORWARD), (s, SHUFFLED), (t, FORWARD)]
    return views, [(DYNAMIC, views[0], views[2]), (STATIC, views[0], views[1])]


def paper(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """One pair, of the factor that falls to this clip."""
    views, pairs = both(styles, draw, factor)
    return [view for view in views if view in pairs[factor]], [pairs[factor]]


SCHEMES = {"factorial": factorial, "both": both, "paper": paper}


def generator(seed: int, clip: str, purpose: str) -> np.random.Generator:
    """The random generator of one clip for one purpose."""
    return np.random.default_rng(list(_digest(seed, clip, purpose)))


def _digest(seed: int, clip: str, purpose: str) -> bytes:
    return hashlib.sha256(f"{seed}|{clip}|{purpose}".encode()).digest()


def window_frames(clip: Clip, length: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Frame numbers of the window: `length` consecutive frames from a start that is drawn, cycled where
    the clip is shorter."""
    start = int(draw.integers(0, clip.length - length + 1)) if clip.length > length else 0
    return clip.first + start + np.arange(length) % min(clip.length, length)


def subsample(length: int, count: int) -> NDArray[np.int64]:
    """Uniform temporal subsampling of a window: positions trunc(linspace(0, length - 1, count))."""
    return np.linspace(0, length - 1, count).astype(np.int64)


def shuffle(frames: NDArray[np.int64], draw: np.random.Generator) -> NDArray[np.int64]:
    """Put frames in another order; never the one they have."""
    if len(set(frames.tolist())) < 2:
        raise UserError(f"frames {frames.tolist()}: all are the same, there is no order to shuffle")
    while True:
        shuffled = draw.permutation(frames)
        if not np.array_equal(shuffled, frames):
            return shuffled
