"""Judge whether each style of a data set keeps motion, changes appearance and does not flicker.

Results of a run depend on the quality of its stylization, which is not visible in the results themselves.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd
from omegaconf import DictConfig

from static_dynamic.datasets.clips import Clip, ClipList, parse_styles
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.datasets.listing import list_clips
from static_dynamic.datasets.write import in_threads
from static_dynamic.errors import UserError
from static_dynamic.spacing import evenly_spaced
from static_dynamic.stylize.flow import Frame, dense_flow
from static_dynamic.stylize.measures import Appearance, Motion, motion_error, residual_motion

log = logging.getLogger(__name__)
# ORIGINAL: style id of the unstylized videos
ORIGINAL = 0
MEASURES = ("motion", "flicker", "contrast", "colour", "texture")
# MIN_RESIDUAL_MOTION: pixels of residual motion that interpolation causes even in a static clip
MIN_RESIDUAL_MOTION = 0.2
# THUMBNAIL: width in pixels of the images on the contact sheet
THUMBNAIL = 220
T = TypeVar("T")


@dataclass(frozen=True)
class ClipQuality:
    """Quality measurements of one clip in all styles."""

    clip: str
    # `rows`: one dict per style, with the keys clip, style and MEASURES
    rows: list[dict]
    # `distances`: one dict (clip, a, b, colour, texture) per pair of styles a, b
    distances: list[dict]
    # `pictures`: style id -> thumbnail of one frame
    pictures: dict[int, Frame]


@dataclass(frozen=True)
class Quality:
    """Quality measurements and verdicts of all styles of a data set."""

    # `styles`: medians over clips, one row per style, with a column ``verdict``
    styles: pd.DataFrame
    # `pairs`: median distances over clips, one row per pair of styles
    pairs: pd.DataFrame
    # `failures`: style id -> reasons why the style fails
    failures: dict[int, list[str]]
    measured: list[ClipQuality]
    # `chosen`: ids of the clips that were selected for measurement
    chosen: list[str]
    # `skipped`: [clip, reason] of each clip that could not be read
    skipped: list[list[str]]


def list_with_originals(cfg: DictConfig) -> ClipList:
    """List the clips of a data set in the chosen styles and in the unstylized version (style 0).

    Raises UserError if the unstylized videos are missing.
    """
    styles = parse_styles(cfg.styles)
    folders = cfg.normal_data_root, cfg.dataset.root
    originals, root = (Path(folder).expanduser() if folder else None for folder in folders)
    if root is not None and root.is_dir() and originals is None and not (root / f"style_{ORIGINAL}").is_dir():
        raise UserError(
            f"{root} has no style_{ORIGINAL}, but task=style_quality needs the unstylized videos: give "
            "normal_data_root=DIR, where DIR holds the unstylized videos under the names of the stylized ones"
        )
    # Clips are listed from the first style of `wanted`, so videos that exist only unstylized are not listed.
    wanted = (*(style for style in styles if style != ORIGINAL), ORIGINAL)
    return list_clips(cfg.dataset, wanted, cfg.n_examples, cfg.on_error, originals)


def assess(listing: ClipList, task: DictConfig, workers: int, on_error: str) -> Quality:
    """Measure the stylization quality of some clips and judge each style (``task=style_quality``)."""
    chosen = spread(listing.clips, task.clips)
    measured, skipped = measure_all(listing, chosen, task, workers, on_error)
    rows = pd.DataFrame([row for one in measured for row in one.rows])
    distances = pd.DataFrame([row for one in measured for row in one.distances])
    styles = rows.groupby("style")[list(MEASURES)].median()
    styles.insert(0, "moving_clips", rows.groupby("style")["motion"].count())
    pairs = distances.groupby(["a", "b"])[["colour", "texture"]].median()
    failures = judge(styles, pairs, task)
    styles["verdict"] = ["; ".join(failures[k]) or "good" if k != ORIGINAL else "" for k in styles.index]
    return Quality(styles, pairs, failures, measured, [clip.id for clip in chosen], skipped)


def measure_all(
    listing: ClipList, clips: list[Clip], task: DictConfig, workers: int, on_error: str
) -> tuple[list[ClipQuality], list[list[str]]]:
    """Measure clips in parallel threads; return the results, and [clip, error] of each unreadable clip."""
    skipped: list[list[str]] = []

    def measure(clip: Clip) -> ClipQuality | None:
        try:
            return measure_clip(listing, clip, task.frame_pairs, task.min_motion, task.min_moving)
        except BadFrames as error:
            if on_error != "skip":
                raise
            skipped.append([clip.id, str(error)])
            return None

    results = in_threads(measure, clips, max(1, workers), "measure", "clip")
    measured = [result for result in results if result is not None]
    skipped.sort()
    if not measured:
        raise UserError(f"none of {len(clips)} clips can be read; the first error is: {skipped[0][1]}")
    if skipped:
        log.warning("%d clips were skipped, the first: %s (%s)", len(skipped), *skipped[0])
    return measured, skipped


def measure_clip(
    listing: ClipList, clip: Clip, frame_pairs: int, min_motion: float, min_moving: float
) -> ClipQuality:
    """Measure one clip in every style from pairs of consecutive frames, evenly spaced over the clip."""
    starts = (clip.first + evenly_spaced(frame_pairs, max(clip.length - 1, 1))).tolist()
    needed = sorted({*starts, *(t + 1 for t in starts)})
    frames = {
        style: dict(zip(needed, listing.frames_of(clip.video, style).read(needed), strict=True))
        for style in listing.styles
    }
    height, width = frames[listing.styles[0]][starts[0]].shape[:2]
    videos = {
        style: [(resize(of[t], width, height), resize(of[t + 1], width, height)) for t in starts]
        for style, of in frames.items()
    }
    motions = [Motion.between(*pair) for pair in videos[ORIGINAL]]
    moving = [motion.moving(min_motion) for motion in motions]
    judged = [i for i, where in enumerate(moving) if where.mean() >= min_moving]
    appearances = {style: Appearance.of([first for first, _ in pairs]) for style, pairs in videos.items()}
    residual_motions = {
        style: float(np.mean([residual_motion(m, *pair) for m, pair in zip(motions, pairs, strict=True)]))
        for style, pairs in videos.items()
    }
    original, rows = appearances[ORIGINAL], []
    for style, pairs in sorted(videos.items()):
        errors = [motion_error(motions[i], dense_flow(*pairs[i]), moving[i]) for i in judged]
        rows.append(
            {
                "clip": clip.id,
                "style": style,
                "motion": float(np.median(errors)) if errors else float("nan"),
                "flicker": residual_motions[style] / max(residual_motions[ORIGINAL], MIN_RESIDUAL_MOTION),
                "contrast": appearances[style].contrast / max(original.contrast, 1.0),
                **appearances[style].distances(original),
            }
        )
    distances = [
        {"clip": clip.id, "a": a, "b": b, **appearances[a].distances(appearances[b])}
        for a, b in combinations(sorted(appearances), 2)
    ]
    middle, size = len(starts) // 2, (THUMBNAIL, max(1, round(THUMBNAIL * height / width)))
    pictures = {style: resize(pairs[middle][0], *size) for style, pairs in sorted(videos.items())}
    return ClipQuality(clip.id, rows, distances, pictures)


def resize(frame: Frame, width: int, height: int) -> Frame:
    """Resize a frame (H, W, 3) by area averaging."""
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return at most `count` items, evenly spaced over the sequence."""
    return [items[i] for i in evenly_spaced(count, len(items), np.trunc)]


def judge(styles: pd.DataFrame, pairs: pd.DataFrame, task: DictConfig) -> dict[int, list[str]]:
    """Return a dict {style id: list of reasons why the style fails}; a good style has an empty list."""
    failures: dict[int, list[str]] = {}
    for style, row in styles.drop(index=ORIGINAL).iterrows():
        failures[style] = reasons = []
        for measure, limit in task.limits.items():
            most, least = limit.get("most", np.inf), limit.get("least", -np.inf)
            if not np.isnan(row[measure]) and not least <= row[measure] <= most:
                bound = f"at most {most}" if row[measure] > most else f"at least {least}"
                reasons.append(f"{limit.says} ({measure} {row[measure]:.2f}, {bound} is good)")
        if np.isnan(row["motion"]):
            reasons.append("no clip moves: whether motion is kept is unknown")
    for (a, b), row in pairs.iterrows():
        if row["colour"] < task.alike.colour and row["texture"] < task.alike.texture:
            numbers = f"(colour {row['colour']:.1f}, texture {row['texture']:.2f})"
            other = "the original" if a == ORIGINAL else f"style {a}"
            failures[b].append(f"it looks like {other} {numbers}")
    return failures
