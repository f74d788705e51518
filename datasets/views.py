"""Make the tables of views and pairs of a run, before any forward pass.

A view is a clip in one style and one frame order; for networks that see optical flow, flow colours are
jittered instead of frames shuffled. A pair is two views that share one factor (0 dynamic, 1 static).

Views and pairs depend on the clips, the options and the seed alone. Each clip has its own random streams (see
`static_dynamic.rng`), so that the views of a clip do not depend on the other clips. Pairs of two clips
(``app_shuffle=false`` or ``m_same=false``) are the exception.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.errors import UserError, nearest
from static_dynamic.rng import digest, generator
from static_dynamic.spacing import subsample_positions

from .clips import Clip
from .davis import FrameClip
from .jitter import draw_jitter

log = logging.getLogger(__name__)

DYNAMIC, STATIC = 0, 1  # numbers of the two factors
# UNALTERED: frames or flow as recorded. ALTERED: shuffled frames, or jittered flow if the network sees flow.
UNALTERED, ALTERED = 0, 1
# Orders of the frames that a network sees.
FORWARD, SHUFFLED, RESHUFFLED, REVERSED, FROZEN = "forward", "shuffled", "reshuffled", "reversed", "frozen"
ALTERED_ORDERS = (SHUFFLED, RESHUFFLED, REVERSED, FROZEN)
# Numbers of alterations that may be added to a run; positive numbers are shuffled frames or flow jitters.
FURTHER_ALTERATIONS = {RESHUFFLED: -1, REVERSED: -2, FROZEN: -3}
# Name of the altered order of networks that see flow: forward frames with jittered flow colours.
JITTERED = "jittered"
FLOW = "Flow"  # name of the pathway that sees optical flow
DIRECTIONS = 2  # number of flow directions: to the next frame and to the previous frame
# Range [low, high) of the random offset of the second frame, for networks that see two frames and flow.
SECOND_FRAME_OFFSETS = (-10, 10)


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
    orders: Sequence[str] = (FORWARD, SHUFFLED),
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the tables of views and pairs of all clips.

    Parameters
    ----------
    pathways
        Number of frames per pathway. The pathway named ``Flow`` sees optical flow.
    n_sample_frames, window, resample_fps
        Each pathway subsamples its frames uniformly from a window; see `window_frames`.
    pairs
        Per clip, with S styles: ``factorial`` makes S(S-1)/2 dynamic and S static pairs from every style in
        both orders. ``both`` makes one pair per factor from two styles in both orders. ``paper`` makes one
        pair, with factors balanced over the clips.
    app_shuffle
        True: a static pair is a clip in both orders. False: two clips of different classes in one style.
    m_same
        True: a dynamic pair is one clip in two styles. False: two videos of one class in two styles.
    use_normal_app, repeats
        With ``use_normal_app``, static pairs show the unstylized videos (style 0). ``repeats`` is the number
        of pairs per clip with ``pairs=paper``; the factors of these pairs alternate.
    orders
        ``forward``, ``shuffled``, and further orders (`FURTHER_ALTERATIONS`), in which every style of a clip
        is shown too. No pair contains a view in a further order; the decomposition uses these views.

    Returns
    -------
    views
        One row per view, indexed by row number, with the columns clip, video, cluster, label, style, order,
        and ``frames_<pathway>``: the frame numbers that the pathway sees. Networks that see flow have one row
        per frame of a view, and three more columns: ``flow`` (0: not jittered, k: the k-th jitter),
        ``jitter`` (hue, saturation, hue_first per flow image; empty if not jittered) and ``frame``.
    pairs
        One row per pair: factor, a, b (row numbers in `views`), clip and cluster of a.
    """
    for option, value, known in (("pairs", pairs, SCHEMES), ("window", window, WINDOWS)):
        if value not in known:
            raise UserError(f"unknown {option}={value}{nearest(value, known)} (known: {', '.join(known)})")
    if not isinstance(repeats, int) or repeats < 1:
        raise UserError(f"dataset.nreps={repeats} is not a positive integer")
    further = further_alterations(orders, pairs)
    if len(set(styles)) < 2:
        raise UserError(f"styles={','.join(map(str, styles))}: a dynamic pair needs two different styles")
    rows_of: Callable[..., Iterator[list[dict]]]
    if FLOW in pathways:
        rows_of = partial(flow_rows, pathways, seed, pairs == "paper")
    elif min(pathways.values()) < 2:
        raise UserError("this network sees one frame at a time: there is no order to shuffle")
    else:
        rows_of = partial(ordered_rows, pathways, seed, n_sample_frames, window, resample_fps)
    count = repeats if pairs == "paper" else 1
    plan = plan_pairs(clips, list(styles), SCHEMES[pairs], seed, app_shuffle, use_normal_app, m_same, count)
    wanted = defaultdict(set)  # clip number -> (style, alteration) of each view of the clip
    for _, *members in plan:
        for i, style, alteration in members:
            wanted[i].add((style, alteration))
    if pairs != "paper":
        altered = [ALTERED] if app_shuffle and not use_normal_app else []
        for i in wanted:
            shown = {style for style, _ in wanted[i]}
            wanted[i] |= set(product(shown, [*altered, *further]))

    view_rows: list[dict] = []
    row_range: dict[Member, range] = {}
    for i, clip in enumerate(clips):
        about = {"clip": clip.id, "video": clip.video, "cluster": clip.cluster, "label": clip.label}
        variants = sorted(wanted[i], key=lambda variant: (variant[0], variant[1] < 0, abs(variant[1])))
        for (style, alteration), rows in zip(variants, rows_of(clip, variants), strict=True):
            row_range[i, style, alteration] = range(len(view_rows), len(view_rows) + len(rows))
            view_rows += [{**about, "style": style, **row} for row in rows]
    pair_rows = [
        {"factor": f, "a": row_a, "b": row_b, "clip": clips[a[0]].id, "cluster": clips[a[0]].cluster}
        for f, a, b in plan
        for row_a, row_b in zip(row_range[a], row_range[b], strict=True)
    ]
    return pd.DataFrame(view_rows), pd.DataFrame(pair_rows)


def first_altered_order(views: pd.DataFrame) -> str:
    """Return the altered order of a run's static pairs: shuffled frames, or jittered flow.

    An imported run without shuffled frames has one altered order, of any name.
    """
    if "flow" in views:
        return JITTERED
    altered = [order for order in views["order"].unique() if order != FORWARD]
    return SHUFFLED if SHUFFLED in altered or not altered else altered[0]


def further_alterations(orders: Sequence[str], pairs: str) -> list[int]:
    """Return the numbers of the orders beyond forward and shuffled; raise UserError for unusable orders."""
    known = (FORWARD, *ALTERED_ORDERS)
    for order in orders:
        if order not in known:
            raise UserError(f"unknown orders={order}{nearest(str(order), known)} (known: {', '.join(known)})")
    if not {FORWARD, SHUFFLED} <= set(orders):
        raise UserError(
            f"orders={','.join(orders)}: {FORWARD} and {SHUFFLED} are always needed, "
            f"give for example orders=[{FORWARD},{SHUFFLED},{REVERSED}]"
        )
    further = [number for order, number in FURTHER_ALTERATIONS.items() if order in orders]
    if further and pairs == "paper":
        raise UserError(
            "pairs=paper shows no clip in two styles and both orders: omit orders, or give pairs=both"
        )
    return further


# (style, alteration) of a view; the alteration is 0 (none), k (k-th), or one of `FURTHER_ALTERATIONS`.
Variant = tuple[int, int]


def ordered_rows(
    pathways: Mapping[str, int],
    seed: int,
    n_sample_frames: int,
    window: str,
    resample_fps: float | None,
    clip: Clip,
    variants: Sequence[Variant],
) -> Iterator[list[dict]]:
    """Yield the table row of each view of a clip: the order, and the frame numbers that each pathway sees."""
    names = {UNALTERED: FORWARD} | {number: order for order, number in FURTHER_ALTERATIONS.items()}
    shown = {alteration for _, alteration in variants}
    columns: dict[int, dict] = {number: {"order": names.get(number, SHUFFLED)} for number in shown}
    if variants:
        rng = generator(seed, clip.id, "window")
        frames = window_frames(clip, n_sample_frames, rng, window, resample_fps)
        seen = {
            name: frames[subsample_positions(n_sample_frames, count, np.float64)]
            for name, count in pathways.items()
        }
        fewest = min(seen.values(), key=len)
        still = fewest[len(fewest) // 2]  # all pathways repeat the same frame
        for alteration, (name, forward) in product(shown, seen.items()):
            shown_frames = forward
            if alteration == FURTHER_ALTERATIONS[REVERSED]:
                shown_frames = forward[::-1]
            elif alteration == FURTHER_ALTERATIONS[FROZEN]:
                shown_frames = np.full_like(forward, still)
            elif alteration != UNALTERED:
                shown_frames = shuffle(
                    forward, generator(seed, clip.id, f"{shuffle_purpose(alteration)} {name}")
                )
            columns[alteration][f"frames_{name}"] = shown_frames
    for _, alteration in variants:
        yield [columns[alteration]]


def shuffle_purpose(alteration: int) -> str:
    """Return the name of the random stream of a shuffled order: the k-th repeat's, or the second order's."""
    if alteration == FURTHER_ALTERATIONS[RESHUFFLED]:
        return "second order"
    return "order" if alteration == ALTERED else f"order {alteration}"


def flow_rows(
    pathways: Mapping[str, int], seed: int, paper: bool, clip: FrameClip, variants: Iterable[Variant]
) -> Iterator[list[dict]]:
    """Yield the table rows of each view of a clip, one row per frame, for a network that sees flow.

    With `paper` (``pairs=paper``) every style of a clip has a flow jitter of its own; else all styles share
    the jitter, as the decomposition needs it. A reshuffled view has a second jitter.

    Frames after the first are drawn once per clip, from positions that wrap around the ends of the video.
    """
    frames = [clip.first]
    for k in range(1, pathways[FLOW]):
        offset = int(generator(seed, clip.id, f"other frame {k}").integers(*SECOND_FRAME_OFFSETS))
        frames.append((clip.first + offset) % clip.video_length)
    columns = {f"frames_{name}": np.array(frames) for name in pathways}
    for style, alteration in variants:
        further = {number: order for order, number in FURTHER_ALTERATIONS.items()}.get(alteration)
        jittered = alteration > UNALTERED or further == RESHUFFLED
        purpose = f"flow {style} {alteration}" if paper else f"flow {alteration}"
        rng = generator(seed, clip.id, purpose)
        flow_images = len(frames) * DIRECTIONS if jittered else 0
        jitter = np.array([draw_jitter(rng) for _ in range(flow_images)]).ravel()
        common = {"order": further or FORWARD, "flow": max(0, alteration), "jitter": jitter}
        yield [{**common, "frame": frame, **columns} for frame in frames]


Member = tuple[int, int, int]  # one view of a pair: (clip number, style, alteration)


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
    """List every distinct pair as (factor, member a, member b), in the order of the clips."""
    by_rank = sorted(range(len(clips)), key=lambda i: digest(seed, clips[i].id, "rank"))
    parity = np.empty(len(clips), dtype=int)
    parity[by_rank] = np.arange(len(clips)) % 2  # random factor per clip; half of the clips get each factor
    partner: dict[int, Sequence[int | None]] = {f: range(len(clips)) for f in (DYNAMIC, STATIC)}
    if not m_same:
        partner[DYNAMIC] = same_class(clips, seed)
    if not app_shuffle:
        partner[STATIC] = other_class(clips, seed)

    plan: dict[tuple[int, Member, Member], None] = {}  # the keys form an ordered set of pairs
    for i, k in product(range(len(clips)), range(repeats)):
        rng = generator(seed, clips[i].id, f"styles {k}" if k else "styles")
        for factor, (s, first), (t, second) in scheme(styles, rng, (parity[i] + k) % 2):
            if factor == STATIC and use_normal_app:
                s = t = 0
            if factor == STATIC and not app_shuffle:
                second = first  # the two views show different videos instead of different orders
            j = partner[factor][i]
            if j is not None:
                # Repeat k uses alteration k + 1 instead of 1, so that every repeat has a different jitter.
                first, second = (alteration and alteration + k for alteration in (first, second))
                plan[factor, (i, s, first), (j, t, second)] = None
    return list(plan)


def same_class(clips: Sequence[Clip], seed: int) -> list[int | None]:
    """Draw for each clip a clip of the same class from another video; None if no such clip exists."""
    members = _by_class(clips, "m_same=False makes dynamic pairs of two videos of one class")
    chosen: list[int | None] = []
    for clip in clips:
        others = [j for j in members[clip.label] if clips[j].cluster != clip.cluster]
        chosen.append(int(generator(seed, clip.id, "same class").choice(others)) if others else None)
    alone = chosen.count(None)
    if alone == len(clips):
        raise UserError("m_same=False: every class has only one video: give a larger n_examples")
    if alone:
        log.warning("m_same=False: %d clips are the only video of their class and get no dynamic pair", alone)
    return chosen


def other_class(clips: Sequence[Clip], seed: int) -> list[int]:
    """Draw for each clip a clip of another class: first draw the class, then a clip of that class."""
    members = _by_class(clips, "app_shuffle=False makes static pairs of two classes")
    if len(members) < 2:
        raise UserError("app_shuffle=False: all clips are of one class: give a larger n_examples")
    chosen = []
    for clip in clips:
        rng = generator(seed, clip.id, "other class")
        label = rng.choice([label for label in members if label != clip.label])
        chosen.append(int(rng.choice(members[label])))
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


PairsOfClip = list[tuple[int, Variant, Variant]]  # factor, a, b per pair


def factorial(styles: list[int], rng: np.random.Generator, factor: int) -> PairsOfClip:
    """Return one dynamic pair for every two styles of a clip, and one static pair for every style."""
    dynamic = [(DYNAMIC, (s, UNALTERED), (t, UNALTERED)) for s, t in combinations(styles, 2)]
    return dynamic + [(STATIC, (s, UNALTERED), (s, ALTERED)) for s in styles]


def both(styles: list[int], rng: np.random.Generator, factor: int) -> PairsOfClip:
    """Make one dynamic and one static pair of a clip in two random styles."""
    s, t = (int(style) for style in rng.choice(styles, size=2, replace=False))
    return [(DYNAMIC, (s, UNALTERED), (t, UNALTERED)), (STATIC, (s, UNALTERED), (s, ALTERED))]


def paper(styles: list[int], rng: np.random.Generator, factor: int) -> PairsOfClip:
    """Make one pair of the given factor (dynamic or static) in random styles."""
    return [both(styles, rng, factor)[factor]]


SCHEMES = {"factorial": factorial, "both": both, "paper": paper}

# In the rule drawn_short, the window of a short clip starts at least SHORT frames before the clip's end.
SHORT = 8
# Each rule returns the number of possible first frames of a window; one of these is drawn uniformly.
# drawn_short is the rule of the paper's code for SSv2 and Diving48.
WINDOWS: dict[str, Callable[[int, int], int]] = {
    "first": lambda clip, window: 1,
    "drawn": lambda clip, window: max(0, clip - window) + 1,
    "drawn_short": lambda clip, window: max(0, clip - (window if clip > window else SHORT)) + 1,
}


def window_frames(
    clip: Clip,
    length: int,
    rng: np.random.Generator | None,
    window: str = "drawn",
    resample_fps: float | None = None,
) -> NDArray[np.int64]:
    """Choose the window of a clip: `length` consecutive frame numbers, wrapped around at the end of the clip.

    `rng` draws the start of the window (None: the first frame) by the rule `window`, a key of `WINDOWS`.
    The clip is first resampled to the frame rate `resample_fps` (None: it is not resampled).
    """
    stride = 1.0
    if resample_fps is not None:
        if not clip.fps:
            raise UserError(
                f"resample_fps={resample_fps:g}: the frame rate of clip {clip.id!r} is unknown: "
                "give dataset.fps=FRAMES_PER_SECOND"
            )
        stride = clip.fps / resample_fps
    count = max(1, int(clip.length / stride))
    start = 0 if rng is None else int(rng.integers(WINDOWS[window](count, length)))
    wanted = start + np.arange(length) % min(count - start, length)
    return clip.first + np.minimum((wanted * stride).astype(np.int64), clip.length - 1)


def shuffle(frames: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Permute frame numbers at random until the order differs from the given order."""
    if len(set(frames.tolist())) < 2:
        raise UserError(f"all frame numbers are equal ({frames.tolist()}): there is no order to shuffle")
    while True:
        shuffled = rng.permutation(frames)
        if not np.array_equal(shuffled, frames):
            return shuffled
