"""Choose the frames, the frame order and the flow jitter of each view.

Each clip has its own random streams (see `static_dynamic.rng`), so that the views of a clip do not depend on
the other clips or orders.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.errors import UserError, nearest
from static_dynamic.rng import generator
from static_dynamic.spacing import subsample_positions

from .clips import Clip
from .davis import FrameClip
from .jitter import draw_jitter
from .rates import resample

# UNALTERED: frames or flow as recorded. ALTERED: shuffled frames, or jittered flow if the network sees flow.
UNALTERED, ALTERED = 0, 1
# Names of the frame orders in which a network can see a clip.
FORWARD, SHUFFLED, RESHUFFLED, REVERSED, FROZEN = "forward", "shuffled", "reshuffled", "reversed", "frozen"
# Orders in which the foreground is shown on a new background (`backgrounds.py`).
NEW_BACKGROUND, FROZEN_FOREGROUND = "new_background", "frozen_foreground"
SWAPPED = (NEW_BACKGROUND, FROZEN_FOREGROUND)
ALTERED_ORDERS = (SHUFFLED, RESHUFFLED, REVERSED, FROZEN, *SWAPPED)
# Optional order -> number of its alteration; positive numbers stand for shuffles or jitters.
FURTHER_ALTERATIONS = {RESHUFFLED: -1, REVERSED: -2, FROZEN: -3, NEW_BACKGROUND: -4, FROZEN_FOREGROUND: -5}
# Name of the altered order of networks that see flow: forward frames with jittered flow colours.
JITTERED = "jittered"
# Name of the pathway that sees optical flow.
FLOW = "Flow"
# Number of flow directions: to the next frame and to the previous frame.
DIRECTIONS = 2
# Networks that see flow of two frames: the second frame has a random offset in this range [low, high).
SECOND_FRAME_OFFSETS = (-10, 10)


def first_altered_order(views: pd.DataFrame) -> str:
    """Return the name of the altered order in a run's static pairs: ``shuffled``, or ``jittered`` for flow.

    An imported run without shuffled frames has one altered order, of any name.
    """
    if "flow" in views:
        return JITTERED
    altered = [order for order in views["order"].unique() if order != FORWARD]
    return SHUFFLED if SHUFFLED in altered or not altered else altered[0]


def further_alterations(orders: Sequence[str], pairs: str) -> list[int]:
    """Return the numbers in `FURTHER_ALTERATIONS` of the optional orders among `orders`.

    Raises UserError if an order is unknown, if ``forward`` or ``shuffled`` is missing, or if optional orders
    are combined with ``pairs=paper``.
    """
    known = (FORWARD, *ALTERED_ORDERS)
    for order in orders:
        if order not in known:
            raise UserError(f"unknown orders={order}{nearest(str(order), known)} (known: {', '.join(known)})")
    if not {FORWARD, SHUFFLED} <= set(orders):
        raise UserError(
            f"orders={','.join(orders)}: {FORWARD} and {SHUFFLED} are always needed, "
            f"give for example orders=[{FORWARD},{SHUFFLED},{REVERSED}]"
        )
    if FROZEN_FOREGROUND in orders and NEW_BACKGROUND not in orders:
        raise UserError(
            f"orders={','.join(orders)}: {FROZEN_FOREGROUND} is compared with {NEW_BACKGROUND}: give both"
        )
    further = [number for order, number in FURTHER_ALTERATIONS.items() if order in orders]
    if further and pairs == "paper":
        raise UserError(
            f"the orders {', '.join(FURTHER_ALTERATIONS)} need the orders forward and shuffled of each clip "
            "in two styles, which pairs=paper does not show: omit the option orders, or give pairs=both"
        )
    return further


# (style, alteration) of a view. Alteration 0 leaves the view unaltered, a positive number k means the k-th
# shuffle or jitter, and a negative number is a value of FURTHER_ALTERATIONS.
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
    """Yield one table row per view of a clip: frame order, and the frame numbers that each pathway sees."""
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
        # in the orders `frozen` and `frozen_foreground`, all pathways repeat this frame
        still = fewest[len(fewest) // 2]
        for alteration, (name, forward) in product(shown, seen.items()):
            shown_frames = forward
            if alteration == FURTHER_ALTERATIONS[REVERSED]:
                shown_frames = forward[::-1]
            elif alteration in (FURTHER_ALTERATIONS[FROZEN], FURTHER_ALTERATIONS[FROZEN_FOREGROUND]):
                shown_frames = np.full_like(forward, still)
            elif alteration not in (UNALTERED, FURTHER_ALTERATIONS[NEW_BACKGROUND]):
                shown_frames = shuffle(
                    forward, generator(seed, clip.id, f"{shuffle_purpose(alteration)} {name}")
                )
            columns[alteration][f"frames_{name}"] = shown_frames
    for _, alteration in variants:
        yield [columns[alteration]]


def shuffle_purpose(alteration: int) -> str:
    """Return the name of the random stream that draws the shuffled order for an alteration number."""
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


# In the rule drawn_short, the window of a short clip starts at least SHORT frames before the clip's end.
SHORT = 8
# Each rule returns the number of possible first frames of a window; the first frame is drawn uniformly.
# Kowal et al.'s code chooses windows in videos of SSv2 and Diving48 by the rule `drawn_short`.
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
    # index of the frame at each resampled time; None if the frame rate is constant or is not resampled
    shown = None
    if resample_fps is not None and clip.fps and clip.times is not None:
        shown = resample(clip.length, clip.fps, resample_fps, clip.times)
        count = len(shown)
    start = 0 if rng is None else int(rng.integers(WINDOWS[window](count, length)))
    wanted = start + np.arange(length) % min(count - start, length)
    if shown is not None:
        return clip.first + shown[wanted]
    return clip.first + np.minimum((wanted * stride).astype(np.int64), clip.length - 1)


def shuffle(frames: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Permute frame numbers at random, repeatedly if needed, so that their order changes."""
    if len(set(frames.tolist())) < 2:
        raise UserError(f"all frame numbers are equal ({frames.tolist()}): there is no order to shuffle")
    while True:
        shuffled = rng.permutation(frames)
        if not np.array_equal(shuffled, frames):
            return shuffled
