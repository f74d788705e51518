"""Make the tables of views and pairs of a run, before any forward pass.

A view is a clip in one style and one frame order; for networks that see optical flow, flow colours are
jittered instead of frames shuffled. A pair is two views that share one factor (0 dynamic, 1 static).

Views and pairs depend on the clips, the options and the seed alone. Each clip has its own random streams (see
`static_dynamic.rng`), so that the views of a clip do not depend on the other clips. Pairs of two clips
(``app_shuffle=false`` or ``m_same=false``) are the exception.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations, product

import numpy as np
import pandas as pd

from static_dynamic.errors import UserError, nearest, quoted
from static_dynamic.rng import digest, generator

from .clips import Clip
from .orders import (
    ALTERED,
    FLOW,
    FORWARD,
    SHUFFLED,
    UNALTERED,
    WINDOWS,
    Variant,
    flow_rows,
    further_alterations,
    ordered_rows,
)

log = logging.getLogger(__name__)

# Numbers of the two factors in the table of pairs.
DYNAMIC, STATIC = 0, 1
# Value of `pairs` for views without pairs: each clip in every style, in the order forward.
NO_PAIRS = "none"
PAIR_COLUMNS = ("factor", "a", "b", "clip", "cluster")


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
        pair, with factors balanced over the clips. ``none`` makes no pairs: the views are each clip in every
        style, in the order forward.
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
    for option, value, known in (("pairs", pairs, (*SCHEMES, NO_PAIRS)), ("window", window, WINDOWS)):
        if value not in known:
            raise UserError(f"unknown {option}={value}{nearest(value, known)} (known: {', '.join(known)})")
    if not isinstance(repeats, int) or repeats < 1:
        raise UserError(f"dataset.nreps={repeats} is not a positive integer")
    further = further_alterations(orders, pairs)
    if len(set(styles)) < 2 and pairs != NO_PAIRS:
        raise UserError(f"styles={','.join(map(str, styles))}: a dynamic pair needs two different styles")
    rows_of: Callable[..., Iterator[list[dict]]]
    if FLOW in pathways:
        rows_of = partial(flow_rows, pathways, seed, pairs == "paper")
    elif min(pathways.values()) < 2 and pairs != NO_PAIRS:
        raise UserError(
            "this network sees one frame at a time, so there is no order to shuffle: "
            "give a network that sees several frames"
        )
    else:
        rows_of = partial(ordered_rows, pathways, seed, n_sample_frames, window, resample_fps)
    # clip number -> (style, alteration) of each view of the clip
    wanted: dict[int, set[Variant]] = defaultdict(set)
    plan: list[tuple[int, Member, Member]] = []
    if pairs == NO_PAIRS:
        wanted |= {i: {(style, UNALTERED) for style in styles} for i in range(len(clips))}
    else:
        count = repeats if pairs == "paper" else 1
        plan = plan_pairs(
            clips, list(styles), SCHEMES[pairs], seed, app_shuffle, use_normal_app, m_same, count
        )
    for _, *members in plan:
        for i, style, alteration in members:
            wanted[i].add((style, alteration))
    if pairs not in ("paper", NO_PAIRS):
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
    # without pairs, the types of the columns must be given
    table = pd.DataFrame(pair_rows, columns=list(PAIR_COLUMNS))
    return pd.DataFrame(view_rows), table.astype(dict.fromkeys(PAIR_COLUMNS[:3], np.int64))


# One view of a pair: (clip number, style, alteration).
Member = tuple[int, int, int]


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
    """List each pair of views once, as (factor that the views share, view a, view b), in clip order."""
    by_rank = sorted(range(len(clips)), key=lambda i: digest(seed, clips[i].id, "rank"))
    parity = np.empty(len(clips), dtype=int)
    # for pairs=paper: a random half of the clips gets a dynamic pair first, the other half a static pair
    parity[by_rank] = np.arange(len(clips)) % 2
    partner: dict[int, Sequence[int | None]] = {f: range(len(clips)) for f in (DYNAMIC, STATIC)}
    if not m_same:
        partner[DYNAMIC] = same_class(clips, seed)
    if not app_shuffle:
        partner[STATIC] = other_class(clips, seed)

    # an ordered set of pairs: only the keys are used
    plan: dict[tuple[int, Member, Member], None] = {}
    for i, k in product(range(len(clips)), range(repeats)):
        rng = generator(seed, clips[i].id, f"styles {k}" if k else "styles")
        for factor, (s, first), (t, second) in scheme(styles, rng, (parity[i] + k) % 2):
            if factor == STATIC and use_normal_app:
                s = t = 0
            if factor == STATIC and not app_shuffle:
                # the two views show two videos, so both views have the same order
                second = first
            j = partner[factor][i]
            if j is not None:
                # Repeat k uses alteration k + 1 instead of 1, so that repeats share no shuffle or jitter.
                first, second = (alteration and alteration + k for alteration in (first, second))
                plan[factor, (i, s, first), (j, t, second)] = None
    return list(plan)


def same_class(clips: Sequence[Clip], seed: int) -> list[int | None]:
    """For each clip, draw a clip of the same class from another video; None if no such clip exists."""
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
    """For each clip, draw a clip of another class: first draw the class, then a clip of that class."""
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
            f"{why}, but clip {quoted(unlabelled)} has no class: use a data set with annotations, or folders "
            "of classes"
        )
    return members


PairsOfClip = list[tuple[int, Variant, Variant]]  # factor, a, b per pair


def factorial(styles: list[int], rng: np.random.Generator, factor: int) -> PairsOfClip:
    """Make the pairs of a clip: one dynamic pair per combination of two styles, one static pair per style."""
    dynamic = [(DYNAMIC, (s, UNALTERED), (t, UNALTERED)) for s, t in combinations(styles, 2)]
    return dynamic + [(STATIC, (s, UNALTERED), (s, ALTERED)) for s in styles]


def both(styles: list[int], rng: np.random.Generator, factor: int) -> PairsOfClip:
    """Make one dynamic and one static pair of a clip in two random styles."""
    s, t = (int(style) for style in rng.choice(styles, size=2, replace=False))
    return [(DYNAMIC, (s, UNALTERED), (t, UNALTERED)), (STATIC, (s, UNALTERED), (s, ALTERED))]


def paper(styles: list[int], rng: np.random.Generator, factor: int) -> PairsOfClip:
    """Make one pair of a clip in random styles; `factor` chooses a dynamic or a static pair."""
    return [both(styles, rng, factor)[factor]]


SCHEMES = {"factorial": factorial, "both": both, "paper": paper}


def frame_columns(views: pd.DataFrame) -> list[str]:
    """Return the names of the columns that hold frame numbers; imported activations have no such columns."""
    return [name for name in views if name.startswith("frames_")]
