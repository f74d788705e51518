"""Read every frame of a data set once and name what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from static_dynamic.datasets.clips import RATE_TOLERANCE
from static_dynamic.datasets.discovery import find_video, list_videos, measure
from static_dynamic.datasets.frames import BadFrames, VideoFile, open_frames


@dataclass(frozen=True)
class Look:
    """One video in one style: what a whole read of it says. ``faults`` are files that do not decode."""

    video: str
    style: int
    length: int = 0
    fps: float | None = None
    size: tuple[int, int] | None = None  # width, height of the first frame
    faults: tuple[str, ...] = ()


def look_at(folders: dict[int, Path], wanted: tuple[str, int]) -> Look:
    """Decode every frame of one video in one style."""
    video, style = wanted
    faults, sizes, shown = [], Counter(), 0
    try:
        path = find_video(folders[style], video)
        seen = measure(path)
        if seen.fault:
            faults.append(f"{path}: {seen.fault}")
        frames = open_frames(path)
        if isinstance(frames, VideoFile):
            for _, frame in frames.frames():
                sizes[frame.width, frame.height] += 1
                shown += 1
        for i in range(0 if isinstance(frames, VideoFile) else len(frames)):
            try:
                sizes[frames.read([i]).shape[2:0:-1]] += 1
            except BadFrames as error:
                faults.append(str(error))
            shown += 1
    except BadFrames as error:
        return Look(video, style, faults=(*faults, str(error)))
    if shown != seen.length:
        faults.append(f"{path} says that it has {seen.length} frames, {shown} decode")
    if len(sizes) > 1:
        faults.append(f"{path} holds frames of different sizes: {sorted(sizes)}")
    return Look(video, style, seen.length, seen.fps, next(iter(sizes), None), tuple(faults))


def check_videos(folders: dict[int, Path], workers: int | None = None) -> tuple[list[str], int, int]:
    """Look at every video in every style; return the faults, and the numbers of videos and frames."""
    names = {style: dict.fromkeys(list_videos(folder)) for style, folder in folders.items()}
    videos = sorted({video for known in names.values() for video in known})
    wanted = [(video, style) for video in videos for style in folders if video in names[style]]
    missing = [f"{v}: missing in style_{k}" for v in videos for k in folders if v not in names[k]]
    with ProcessPoolExecutor(workers) as pool:
        looks = list(
            tqdm(pool.map(partial(look_at, folders), wanted), total=len(wanted), desc="check", unit="video")
        )
    faults = missing + [fault for look in looks for fault in look.faults]
    return faults + list(outliers(looks)), len(videos), sum(look.length for look in looks)


def outliers(looks: Iterable[Look]) -> Iterator[str]:
    """Name videos whose styles differ, and those of another size or frame rate than most."""
    looks = [look for look in looks if look.length]
    by_video: dict[str, list[Look]] = {}
    for look in looks:
        by_video.setdefault(look.video, []).append(look)
    for video, styles in by_video.items():
        for what in ("length", "size", "fps"):
            values = {f"style_{look.style}": getattr(look, what) for look in styles}
            if len(set(values.values())) > 1:
                counts = ", ".join(f"{style} {value}" for style, value in values.items())
                yield f"{video}: its styles differ in {NAMES[what]} ({counts})"
    first = [styles[0] for styles in by_video.values()]
    shapes = Counter(min(look.size) for look in first if look.size)
    rates = Counter(look.fps for look in first if look.fps)
    side, rate = (counts.most_common(1)[0][0] if counts else None for counts in (shapes, rates))
    for look in first:
        if side and look.size and not side / 2 <= min(look.size) <= side * 2:
            yield f"{look.video}: {look.size[0]}x{look.size[1]}, most have a short side of {side}"
        if rate and look.fps and abs(look.fps / rate - 1) > RATE_TOLERANCE:
            yield f"{look.video}: {look.fps:g} frames a second, most have {rate:g}"


NAMES = {"length": "their number of frames", "size": "the size of their frames", "fps": "their frame rate"}
