"""Views and pairs: what the network will see, decided before any forward pass.

A view is a clip in a style and an order; a pair is two views that share one factor (0 dynamic, 1 static).
Everything is a function of the clips, the options and the seed: each clip draws from a generator of its own,
so that neither the number of workers nor the other clips matter (but where a pair takes another clip:
``app_shuffle`` or ``m_same`` false).
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs import UserError, nearest
from datasets.clips import Clip

log = logging.getLogger(__name__)

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
    window: str = "drawn",
    resample_fps: float | None = None,
    app_shuffle: bool = True,
    use_normal_app: bool = False,
    m_same: bool = True,
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
    window
        Where the window starts: a key of `WINDOWS`.
    resample_fps
        The window counts frames at this rate, whatever rate a clip has; None: the clip's own frames.
    app_shuffle
        A static pair is a clip and itself shuffled; false: it and one of another class, in the same style.
    use_normal_app
        Static pairs show the unstylized videos, style 0.
    m_same
        A dynamic pair is one video in two styles; false: two videos of one class.

    Returns
    -------
    views
        One row a view, its index the row number: clip, video, cluster, label, style, order, and for each
        pathway the frame numbers that it sees (``frames_<pathway>``).
    pairs
        factor, a, b (row numbers of views), clip, cluster: those of a's clip.
    """
    for option, value, known in (("pairs", pairs, SCHEMES), ("window", window, WINDOWS)):
        if value not in known:
            raise UserError(f"{option}={value}{nearest(value, known)} (known: {', '.join(known)})")
    if len(set(styles)) < 2:
        raise UserError(f"styles={','.join(map(str, styles))}: a dynamic pair needs two different styles")
    if min(pathways.values()) < 2:
        raise UserError("this network sees one frame at a time: there is no order to shuffle")
    plan = plan_pairs(clips, list(styles), SCHEMES[pairs], seed, app_shuffle, use_normal_app, m_same)
    wanted = defaultdict(set)  # clip -> its views, each one once
    for _, *members in plan:
        for i, style, order in members:
            wanted[i].add((style, order))

    view_rows, row_of = [], {}
    for i, clip in enumerate(clips):
        if not wanted[i]:
            continue
        frames = {order: {} for order in (FORWARD, SHUFFLED)}
        draw = generator(seed, clip.id, "window")
        shown = window_frames(clip, n_sample_frames, draw, window, resample_fps)
        for name, count in pathways.items():
            forward = shown[subsample(n_sample_frames, count)]
            frames[FORWARD][f"frames_{name}"] = forward
            if any(order == SHUFFLED for _, order in wanted[i]):
                draw = generator(seed, clip.id, f"order {name}")
                frames[SHUFFLED][f"frames_{name}"] = shuffle(forward, draw)
        about = {"clip": clip.id, "video": clip.video, "cluster": clip.cluster, "label": clip.label}
        for style, order in sorted(wanted[i]):
            row_of[i, style, order] = len(view_rows)
            view_rows.append({**about, "style": style, "order": order, **frames[order]})
    pair_rows = [
        {"factor": f, "a": row_of[a], "b": row_of[b], "clip": clips[a[0]].id, "cluster": clips[a[0]].cluster}
        for f, a, b in plan
    ]
    return pd.DataFrame(view_rows), pd.DataFrame(pair_rows)


Member = tuple[int, int, str]  # clip number, style, order


def plan_pairs(
    clips: Sequence[Clip],
    styles: list[int],
    scheme: Callable[..., list],
    seed: int,
    app_shuffle: bool,
    use_normal_app: bool,
    m_same: bool,
) -> list[tuple[int, Member, Member]]:
    """Every pair as factor and two members, in the order of the clips; each one once."""
    by_rank = sorted(range(len(clips)), key=lambda i: _digest(seed, clips[i].id, "rank"))
    parity = np.empty(len(clips), dtype=int)
    parity[by_rank] = np.arange(len(clips)) % 2  # balanced over the clips, and drawn
    partner = {DYNAMIC: range(len(clips)), STATIC: range(len(clips))}
    if not m_same:
        partner[DYNAMIC] = same_class(clips, seed)
    if not app_shuffle:
        partner[STATIC] = other_class(clips, seed)

    plan = {}
    for i, clip in enumerate(clips):
        for factor, (s, first), (t, second) in scheme(styles, generator(seed, clip.id, "styles"), parity[i]):
            if factor == STATIC and use_normal_app:
                s = t = 0
            if factor == STATIC and not app_shuffle:
                second = first  # what differs is the video
            if partner[factor][i] is not None:
                plan[factor, (i, s, first), (partner[factor][i], t, second)] = None
    return list(plan)


def same_class(clips: Sequence[Clip], seed: int) -> list[int | None]:
    """For each clip another one of its class that shows another video, drawn; None where there is none."""
    members = _by_class(clips, "m_same=False makes dynamic pairs of two videos of one class")
    chosen = []
    for clip in clips:
        others = [j for j in members[clip.label] if clips[j].cluster != clip.cluster]
        chosen.append(int(generator(seed, clip.id, "same class").choice(others)) if others else None)
    alone = chosen.count(None)
    if alone == len(clips):
        raise UserError("m_same=False: no class has two videos among these clips: give a greater n_examples")
    if alone:
        log.warning("m_same=False: %d clips have no other video of their class, and no dynamic pair", alone)
    return chosen


def other_class(clips: Sequence[Clip], seed: int) -> list[int]:
    """For each clip one of another class: the class is drawn, then its clip."""
    members = _by_class(clips, "app_shuffle=False makes static pairs of two classes")
    if len(members) < 2:
        raise UserError("app_shuffle=False: all of these clips are of one class: give a greater n_examples")
    chosen = []
    for clip in clips:
        draw = generator(seed, clip.id, "other class")
        label = draw.choice([label for label in members if label != clip.label])
        chosen.append(int(draw.choice(members[label])))
    return chosen


def _by_class(clips: Sequence[Clip], why: str) -> dict[int, list[int]]:
    members = defaultdict(list)
    for i, clip in enumerate(clips):
        members[clip.label].append(i)
    if -1 in members:
        unlabelled = clips[members[-1][0]].id
        raise UserError(
            f"{why}, but clip {unlabelled!r} has no class: use a data set with annotations, or class folders"
        )
    return members


View = tuple[int, str]  # style, order
Scheme = list[tuple[int, View, View]]  # the pairs of a clip: factor, a, b


def factorial(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """Every style in both orders."""
    dynamic = [(DYNAMIC, (s, FORWARD), (t, FORWARD)) for s, t in combinations(styles, 2)]
    return dynamic + [(STATIC, (s, FORWARD), (s, SHUFFLED)) for s in styles]


def both(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """One pair of each factor from three views of two styles that are drawn."""
    s, t = (int(style) for style in draw.choice(styles, size=2, replace=False))
    return [(DYNAMIC, (s, FORWARD), (t, FORWARD)), (STATIC, (s, FORWARD), (s, SHUFFLED))]


def paper(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """One pair, of the factor that falls to this clip."""
    return [both(styles, draw, factor)[factor]]


SCHEMES = {"factorial": factorial, "both": both, "paper": paper}

# so many frames a window that starts within a short clip keeps
SHORT = 8
# name -> where a window starts in a clip; drawn_short is the paper's for SSv2 and Diving48
WINDOWS: dict[str, Callable[[int, int, np.random.Generator], int]] = {
    "first": lambda clip, window, draw: 0,
    "drawn": lambda clip, window, draw: int(draw.integers(0, max(0, clip - window) + 1)),
    "drawn_short": lambda clip, window, draw: int(
        draw.integers(0, max(0, clip - (window if clip > window else SHORT)) + 1)
    ),
}


def generator(seed: int, clip: str, purpose: str) -> np.random.Generator:
    """The random generator of one clip for one purpose."""
    return np.random.default_rng(list(_digest(seed, clip, purpose)))


def _digest(seed: int, clip: str, purpose: str) -> bytes:
    return hashlib.sha256(f"{seed}|{clip}|{purpose}".encode()).digest()


def window_frames(
    clip: Clip,
    length: int,
    draw: np.random.Generator,
    window: str = "drawn",
    resample_fps: float | None = None,
) -> NDArray[np.int64]:
    """Frame numbers of the window: `length` consecutive frames from its start, cycled where the clip ends
    before; counted at `resample_fps` where that is given."""
    pace = 1.0
    if resample_fps is not None:
        if not clip.fps:
            raise UserError(
                f"resample_fps={resample_fps:g}: the frame rate of clip {clip.id!r} is not known: "
                "give dataset.fps=FRAMES_A_SECOND"
            )
        pace = clip.fps / resample_fps
    count = max(1, int(clip.length / pace))
    start = WINDOWS[window](count, length, draw)
    wanted = start + np.arange(length) % min(count - start, length)
    return clip.first + np.minimum((wanted * pace).astype(np.int64), clip.length - 1)


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
