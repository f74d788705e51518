"""The quality card: whether each style of a data set kept motion, changed appearance and does not flicker.

How good a stylization is, is a hidden variable of every result that rests on it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from static_dynamic.datasets.clips import Clip, ClipList, list_clips, parse_styles
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.errors import UserError
from static_dynamic.stylize.flow import dense_flow
from static_dynamic.stylize.measures import Frame, Look, Motion, motion_error, wobble

log = logging.getLogger(__name__)
ORIGINAL = 0
MEASURES = ("motion", "flicker", "contrast", "colour", "texture")
MIN_WOBBLE = 0.2  # pixels: what interpolation alone leaves in a clip that stands still
THUMBNAIL = 220  # pixels wide
# Version 0.1 hashed these three with the options; unchanged, so that folders keep their names.
IN_EVERY_DIGEST = {
    "name": "style_quality",
    "about": "how good a stylization is: motion kept, appearance changed, flicker; "
    "table, csv and contact sheet",
    "run": "stylize.quality.run",
}
T = TypeVar("T")


@dataclass(frozen=True)
class ClipCard:
    """What was measured of one clip."""

    clip: str
    rows: list[dict]  # one a style: clip, style and MEASURES
    distances: list[dict]  # one a pair of styles: clip, a, b, colour, texture
    pictures: dict[int, Frame]  # style -> one small frame


def list_with_originals(cfg: DictConfig) -> ClipList:
    """Clips of the data set, in its styles and as they were.

    Raises
    ------
    UserError
        Where the originals are missing.
    """
    styles = parse_styles(cfg.styles)
    originals, root = (
        Path(folder).expanduser() if folder else None for folder in (cfg.normal_data_root, cfg.dataset.root)
    )
    if root is not None and root.is_dir() and originals is None and not (root / f"style_{ORIGINAL}").is_dir():
        raise UserError(
            f"{root} has no style_{ORIGINAL}: the quality card needs the videos before stylization, under "
            "the names of the stylized ones: give normal_data_root=DIR"
        )
    # styles first: what was never stylized is not asked for
    wanted = (*(style for style in styles if style != ORIGINAL), ORIGINAL)
    return list_clips(cfg.dataset, wanted, cfg.n_examples, cfg.on_error, originals)


def measure_all(
    listing: ClipList, clips: list[Clip], task: DictConfig, workers: int, on_error: str
) -> tuple[list[ClipCard], list[list[str]]]:
    """Cards in the order of `clips`, and [clip, reason] of those that could not be read."""
    cards, skipped = {}, []
    settings = (task.frame_pairs, task.min_motion, task.min_moving)
    # threads: OpenCV lets go of the lock, and its own threads would not survive a fork
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {pool.submit(measure_clip, listing, clip, *settings): clip.id for clip in clips}
        try:
            for future in tqdm(as_completed(futures), desc="measure", unit="clip", total=len(clips)):
                try:
                    cards[futures[future]] = future.result()
                except BadFrames as error:
                    if on_error != "skip":
                        raise
                    skipped.append([futures[future], str(error)])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not cards:
        raise UserError(f"none of {len(clips)} clips can be read, the first: {skipped[0][1]}")
    if skipped:
        log.warning("%d clips were skipped, the first: %s (%s)", len(skipped), *skipped[0])
    return [cards[clip.id] for clip in clips if clip.id in cards], sorted(skipped)


def measure_clip(
    listing: ClipList, clip: Clip, frame_pairs: int, min_motion: float, min_moving: float
) -> ClipCard:
    """Measure one clip in every style, on pairs of neighbouring frames spread over it."""
    starts = clip.first + np.unique(np.linspace(0, clip.length - 2, frame_pairs).round().astype(int))
    frames = {}
    for style in listing.styles:
        seen = dict.fromkeys(int(i) for t in starts for i in (t, t + 1))
        frames[style] = dict(zip(seen, listing.frames_of(clip.video, style).read(list(seen)), strict=True))
    height, width = frames[listing.styles[0]][int(starts[0])].shape[:2]
    videos = {
        style: [(fit(seen[t], width, height), fit(seen[t + 1], width, height)) for t in map(int, starts)]
        for style, seen in frames.items()
    }
    motions = [Motion.between(*pair) for pair in videos[ORIGINAL]]
    moving = [motion.moving(min_motion) for motion in motions]
    judged = [i for i, where in enumerate(moving) if where.mean() >= min_moving]
    looks = {style: Look.of([first for first, _ in pairs]) for style, pairs in videos.items()}
    wobbles = {
        style: np.mean([wobble(motion, *pair) for motion, pair in zip(motions, pairs, strict=True)])
        for style, pairs in videos.items()
    }
    rows = []
    for style, pairs in sorted(videos.items()):
        errors = [motion_error(motions[i], dense_flow(*pairs[i]), moving[i]) for i in judged]
        rows.append(
            {
                "clip": clip.id,
                "style": style,
                "motion": float(np.median(errors)) if errors else float("nan"),
                "flicker": float(wobbles[style] / max(wobbles[ORIGINAL], MIN_WOBBLE)),
                "contrast": looks[style].contrast / max(looks[ORIGINAL].contrast, 1.0),
                "colour": looks[style].colour_distance(looks[ORIGINAL]),
                "texture": looks[style].texture_distance(looks[ORIGINAL]),
            }
        )
    distances = [
        {
            "clip": clip.id,
            "a": a,
            "b": b,
            "colour": looks[a].colour_distance(looks[b]),
            "texture": looks[a].texture_distance(looks[b]),
        }
        for a, b in combinations(sorted(looks), 2)
    ]
    middle = len(starts) // 2
    pictures = {
        style: fit(pairs[middle][0], THUMBNAIL, max(1, round(THUMBNAIL * height / width)))
        for style, pairs in sorted(videos.items())
    }
    return ClipCard(clip.id, rows, distances, pictures)


def fit(frame: Frame, width: int, height: int) -> Frame:
    """A frame at the size of the others."""
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, evenly spread over them."""
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def summarise(rows: pd.DataFrame, distances: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Medians over clips: one row a style (with the number of clips that move), one row a pair of styles."""
    styles = rows.groupby("style")[list(MEASURES)].median()
    styles.insert(0, "moving_clips", rows.groupby("style")["motion"].count())
    pairs = distances.groupby(["a", "b"])[["colour", "texture"]].median()
    return styles, pairs


def judge(styles: pd.DataFrame, pairs: pd.DataFrame, task: DictConfig) -> dict[int, list[str]]:
    """Why each style fails, by the limits of the task; an empty list where it does not."""
    failures: dict[int, list[str]] = {}
    for style, row in styles.drop(index=ORIGINAL).iterrows():
        failures[style] = reasons = []
        for measure, limit in task.limits.items():
            most, least = limit.get("most", np.inf), limit.get("least", -np.inf)
            if not np.isnan(row[measure]) and not least <= row[measure] <= most:
                bound = f"at most {most}" if row[measure] > most else f"at least {least}"
                reasons.append(f"{limit.says} ({measure} {row[measure]:.2f}, {bound} is good)")
        if np.isnan(row["motion"]):
            reasons.append("no clip moves: whether motion is kept cannot be told")
    for (a, b), row in pairs.iterrows():
        if row["colour"] < task.alike.colour and row["texture"] < task.alike.texture:
            numbers = f"(colour {row['colour']:.1f}, texture {row['texture']:.2f})"
            other = "the original" if a == ORIGINAL else f"style {a}"
            failures[b].append(f"it looks like {other} {numbers}")
    return failures


def run_folder(cfg: DictConfig, listing: ClipList) -> Path:
    """Folder of this card: another listing or other settings, another folder."""
    if cfg.run_dir:
        return Path(cfg.run_dir)
    identity = [str(listing.root.resolve()), str(listing.normal_root), listing.listing_sha256]
    identity.append(OmegaConf.to_container(cfg.task, resolve=True) | IN_EVERY_DIGEST)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return Path(cfg.save_dir) / "style_quality" / f"{listing.name}-{digest}"
