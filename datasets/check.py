"""Decode every frame of a data set and list the faults of its videos."""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from .clips import RATE_TOLERANCE
from .discovery import find_video, list_videos, unknown_files, video_info
from .frames import BadFrames, VideoFile, open_frames
from .rates import equal_rates


@dataclass(frozen=True)
class VideoReport:
    """Result of decoding one video in one style; ``faults`` holds one message per fault."""

    video: str
    style: int
    length: int = 0
    fps: float | None = None
    # (width, height) of the video's first frame.
    size: tuple[int, int] | None = None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # see `VideoFile.notes`


def read_video(folders: dict[int, Path], video_and_style: tuple[str, int]) -> VideoReport:
    """Decode every frame of one video in one style; `folders` maps each style to its folder."""
    video, style = video_and_style
    sizes: Counter[tuple[int, int]] = Counter()
    faults, decoded = [], 0
    try:
        path = find_video(folders[style], video)
        info = video_info(path)
        if info.fault:
            faults.append(f"{path}: {info.fault}")
        frames = open_frames(path)
        if isinstance(frames, VideoFile):
            for frame in frames.frames():
                sizes[frame.shape[1::-1]] += 1
                decoded += 1
        for i in range(0 if isinstance(frames, VideoFile) else len(frames)):
            try:
                sizes[frames.read([i]).shape[2:0:-1]] += 1
            except BadFrames as error:
                faults.append(str(error))
            decoded += 1
    except BadFrames as error:
        return VideoReport(video, style, faults=(*faults, str(error)))
    if decoded != info.length:
        faults.append(f"{path} should have {info.length} frames, but {decoded} decode")
    if len(sizes) > 1:
        faults.append(f"{path} holds frames of different sizes: {sorted(sizes)}")
    size = next(iter(sizes), None)
    return VideoReport(video, style, info.length, info.fps, size, tuple(faults), info.notes)


def check_videos(
    folders: dict[int, Path], workers: int | None = None
) -> tuple[list[str], list[str], int, int]:
    """Decode every video in every style and collect the faults.

    Returns (list of faults, list of notes about sound videos, number of videos, number of frames).
    """
    names = {style: dict.fromkeys(list_videos(folder)) for style, folder in folders.items()}
    videos = sorted({video for known in names.values() for video in known})
    wanted = [(video, style) for video in videos for style in folders if video in names[style]]
    missing = [f"{v}: missing in style_{k}" for v in videos for k in folders if v not in names[k]]
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(partial(read_video, folders), wanted)
        reports = list(tqdm(done, total=len(wanted), desc="check", unit="video"))
    faults = missing + [fault for report in reports for fault in report.faults]
    notes = Counter(note for report in reports for note in report.notes)
    first = {note: report.video for report in reversed(reports) for note in report.notes}
    unknown = [f"style_{k}/{name}" for k, folder in folders.items() for name in unknown_files(folder)]
    lines = [f"note: {len(unknown)} files are not videos, first {unknown[0]}"] if unknown else []
    lines += [f"note: {count} video files, first {first[note]}: {note}" for note, count in notes.items()]
    return faults + list(outliers(reports)), lines, len(videos), sum(report.length for report in reports)


def outliers(reports: Iterable[VideoReport]) -> Iterator[str]:
    """Yield messages about videos that differ between styles, or have an unusual frame size or frame rate."""
    by_video: dict[str, list[VideoReport]] = {}
    for report in reports:
        if report.length:
            by_video.setdefault(report.video, []).append(report)
    for video, styles in by_video.items():
        for what in ("length", "size", "fps"):
            values = {f"style_{report.style}": getattr(report, what) for report in styles}
            known = [value for value in values.values() if value is not None]  # images: fps is None
            equal = equal_rates(known) if what == "fps" else len(set(values.values())) < 2
            if not equal:
                counts = ", ".join(f"{style} {value}" for style, value in values.items())
                yield f"{video}: its styles differ in {NAMES[what]} ({counts})"
    first = [styles[0] for styles in by_video.values()]
    sides = Counter(min(report.size) for report in first if report.size)
    rates = Counter(report.fps for report in first if report.fps)
    side, rate = (counts.most_common(1)[0][0] if counts else None for counts in (sides, rates))
    for report in first:
        if side and report.size and not side / 2 <= min(report.size) <= side * 2:
            yield f"{report.video}: {report.size[0]}x{report.size[1]}, most have a short side of {side}"
        if rate and report.fps and abs(report.fps / rate - 1) > RATE_TOLERANCE:
            yield f"{report.video}: {report.fps:g} frames per second, most have {rate:g}"


NAMES = {"length": "their number of frames", "size": "the size of their frames", "fps": "their frame rate"}
