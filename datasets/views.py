"""Views and pairs: what the network will see, decided before any forward pass.

A view is a clip in a style and an order (of networks that see optical flow: with its flow as it is, or
jittered); a pair is two views that share one factor (0 dynamic, 1 static).
Everything is a function of the clips, the options and the seed: each clip draws from a generator of its own,
so that neither the number of workers nor the other clips matter (but where a pair takes another clip:
``app_shuffle`` or ``m_same`` false).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.datasets.clips import Clip
from static_dynamic.datasets.jitter import draw_jitter
from static_dynamic.rng import digest, generator
from static_dynamic.errors import UserError, nearest

log = logging.getLogger(__name__)

DYNAMIC, STATIC = 0, 1
# a clip as it is, or with other dynamics: shuffled, or (the networks that have such a pathway) flow jittered
PLAIN, CHANGED = 0, 1
FORWARD, SHUFFLED = "forward", "shuffled"
FLOW = "Flow"
DIRECTIONS = 2  # flow to the next frame, flow to the one before
# the second frame of networks that see two is so many frames away: from .. up to, but not with
OTHER_FRAME = (-10, 10)


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
    repeats: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lay out the views of all clips, and their pairs.

    Parameters
    ----------
    pathways
        Pathway name -> number of frames that it sees. One that is called ``Flow`` sees optical flow.
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
    repeats
        ``paper`` draws so many pairs for each clip, of both factors in turn.

    Returns
    -------
    views
        One row a view, its index the row number: clip, video, cluster, label, style, order, and for each
        pathway the frame numbers that it sees (``frames_<pathway>``). With flow also ``flow`` (0: as it is,
        k: the k-th jitter), ``jitter`` (hue, saturation, hue_first of each picture; none where flow is as
        it is) and ``frame``: such networks yield a row for each frame that they see, so that a view of two
        frames is two rows.
    pairs
        factor, a, b (row numbers of views), clip, cluster: those of a's clip.
    """
    for option, value, known in (("pairs", pairs, SCHEMES), ("window", window, WINDOWS)):
        if value not in known:
            raise UserError(f"{option}={value}{nearest(value, known)} (known: {', '.join(known)})")
    if not isinstance(repeats, int) or repeats < 1:
        raise UserError(f"dataset.nreps={repeats}: a whole number from 1 on is expected")
    if len(set(styles)) < 2:
        raise UserError(f"styles={','.join(map(str, styles))}: a dynamic pair needs two different styles")
    if FLOW in pathways:
        show = partial(with_flow, pathways=pathways, seed=seed)
    elif min(pathways.values()) < 2:
        raise UserError("this network sees one frame at a time: there is no order to shuffle")
    else:
        show = partial(
            in_order,
            pathways=pathways,
            seed=seed,
            n_sample_frames=n_sample_frames,
            window=window,
            resample_fps=resample_fps,
        )
    draws = repeats if pairs == "paper" else 1
    plan = plan_pairs(clips, list(styles), SCHEMES[pairs], seed, app_shuffle, use_normal_app, m_same, draws)
    wanted = defaultdict(set)  # clip -> its views, each one once
    for _, *members in plan:
        for i, style, change in members:
            wanted[i].add((style, change))

    view_rows, row_of = [], {}
    for i, clip in enumerate(clips):
        about = {"clip": clip.id, "video": clip.video, "cluster": clip.cluster, "label": clip.label}
        looks = sorted(wanted[i])
        for (style, change), rows in zip(looks, show(clip, looks), strict=True):
            row_of[i, style, change] = range(len(view_rows), len(view_rows) + len(rows))
            view_rows += [{**about, "style": style, **row} for row in rows]
    pair_rows = [
        {"factor": f, "a": row_a, "b": row_b, "clip": clips[a[0]].id, "cluster": clips[a[0]].cluster}
        for f, a, b in plan
        for row_a, row_b in zip(row_of[a], row_of[b], strict=True)
    ]
    return pd.DataFrame(view_rows), pd.DataFrame(pair_rows)


Look = tuple[int, int]  # style, change: PLAIN, or k for the k-th change


def in_order(
    clip: Clip,
    looks: Sequence[Look],
    *,
    pathways: Mapping[str, int],
    seed: int,
    n_sample_frames: int,
    window: str,
    resample_fps: float | None,
) -> Iterator[list[dict]]:
    """The row of each look at a clip: its frames in their order, or shuffled."""
    columns = {PLAIN: {"order": FORWARD}, CHANGED: {"order": SHUFFLED}}
    if looks:
        draw = generator(seed, clip.id, "window")
        shown = window_frames(clip, n_sample_frames, draw, window, resample_fps)
        for name, count in pathways.items():
            forward = shown[subsample(n_sample_frames, count)]
            columns[PLAIN][f"frames_{name}"] = forward
            if any(change for _, change in looks):
                draw = generator(seed, clip.id, f"order {name}")
                columns[CHANGED][f"frames_{name}"] = shuffle(forward, draw)
    for _, change in looks:
        yield [columns[change]]


def with_flow(
    clip: Clip, looks: Iterable[Look], *, pathways: Mapping[str, int], seed: int
) -> Iterator[list[dict]]:
    """The rows of each look at a frame, one for each frame that the network sees: with the flow as it is,
    or jittered.

    Frames beside the first are drawn once for a clip, from its whole video, which has no end.
    """
    frames = [clip.first]
    for k in range(1, pathways[FLOW]):
        step = int(generator(seed, clip.id, f"other frame {k}").integers(*OTHER_FRAME))
        frames.append((clip.first + step) % clip.video_length)
    shown = {f"frames_{name}": np.array(frames) for name in pathways}
    for style, change in looks:
        draw = generator(seed, clip.id, f"flow {style} {change}")
        pictures = len(frames) * DIRECTIONS if change else 0
        jitter = np.array([draw_jitter(draw) for _ in range(pictures)]).ravel()
        look = {"order": FORWARD, "flow": change, "jitter": jitter}
        yield [{**look, "frame": frame, **shown} for frame in frames]


Member = tuple[int, int, int]  # clip number, and a look at it


def plan_pairs(
    clips: Sequence[Clip],
    styles: list[int],
    scheme: Callable[..., list],
    seed: int,
    app_shuffle: bool,
    use_normal_app: bool,
    m_same: bool,
    repeats: int,
) -> list[tuple[int, Member, Member]]:
    """Every pair as factor and two members, in the order of the clips; each one once."""
    by_rank = sorted(range(len(clips)), key=lambda i: digest(seed, clips[i].id, "rank"))
    parity = np.empty(len(clips), dtype=int)
    parity[by_rank] = np.arange(len(clips)) % 2  # balanced over the clips, and drawn
    partner = {DYNAMIC: range(len(clips)), STATIC: range(len(clips))}
    if not m_same:
        partner[DYNAMIC] = same_class(clips, seed)
    if not app_shuffle:
        partner[STATIC] = other_class(clips, seed)

    plan = {}
    for i, k in product(range(len(clips)), range(repeats)):
        draw = generator(seed, clips[i].id, f"styles {k}" if k else "styles")
        for factor, (s, first), (t, second) in scheme(styles, draw, (parity[i] + k) % 2):
            if factor == STATIC and use_normal_app:
                s = t = 0
            if factor == STATIC and not app_shuffle:
                second = first  # what differs is the video
            if partner[factor][i] is not None:
                first, second = (change and change + k for change in (first, second))
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


Scheme = list[tuple[int, Look, Look]]  # the pairs of a clip: factor, a, b


def factorial(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """Every style, as it is and changed."""
    dynamic = [(DYNAMIC, (s, PLAIN), (t, PLAIN)) for s, t in combinations(styles, 2)]
    return dynamic + [(STATIC, (s, PLAIN), (s, CHANGED)) for s in styles]


def both(styles: list[int], draw: np.random.Generator, factor: int) -> Scheme:
    """One pair of each factor from three views of two styles that are drawn."""
    s, t = (int(style) for style in draw.choice(styles, size=2, replace=False))
    return [(DYNAMIC, (s, PLAIN), (t, PLAIN)), (STATIC, (s, PLAIN), (s, CHANGED))]


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
