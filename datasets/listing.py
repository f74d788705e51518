"""List the clips of a data set on disk: find the video of each annotation, and inspect its files."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.errors import UserError

from .annotations import LAYOUTS, Annotated
from .clips import Clip, ClipList, style_folder
from .discovery import VideoInfo, find_video, list_videos, points_outside, video_info
from .frames import BadFrames
from .rates import equal_rates, span

# Number of threads that inspect videos; the threads mostly wait for the disk.
THREADS = 4
# Videos are inspected in chunks of this number, until a chunk completes the wanted number of clips.
CHUNK = 256
# A video may be shorter than its annotation says by at most this number of seconds.
SLACK_SECONDS = 1.0
GAPS = "the frame numbers have gaps: the frames are used as if no frame were missing"


class Filtered(Exception):
    """Exception for a clip that the rules of the data set exclude, or whose video is not on disk."""


def list_clips(
    dataset: DictConfig,
    styles: tuple[int, ...],
    limit: int | None = None,
    on_error: str = "error",
    normal_root: str | Path | None = None,
) -> ClipList:
    """List the first `limit` usable clips of a data set, in the order of its annotations.

    `dataset` is a row of ``configs/dataset``; its ``layout`` names the function that reads the annotations.
    With ``on_error="skip"`` broken videos are left out and recorded with the reason. Unstylized videos
    (style 0) are in `normal_root` (None: ``root/style_0``).

    Raises UserError if a folder is missing, a video is broken (``on_error="error"``), or no clip is left.
    """
    if dataset.layout not in LAYOUTS:
        raise UserError(
            f"dataset={dataset.name} is for networks that take images and flow (model=matnet, fusionseg, "
            "rtnet); for other networks, dataset=folder reads any folder of stylized videos"
        )
    if not dataset.root:
        raise UserError(f"dataset {dataset.name!r} needs a folder: give stylized_data_dir=DIR")
    root = Path(dataset.root).expanduser()
    normal = Path(normal_root).expanduser() if normal_root else None
    folders = {style: style_folder(root, style, normal) for style in styles}
    require_folders(root, folders)
    names = {style: dict.fromkeys(list_videos(folder)) for style, folder in folders.items()}
    annotated = list(LAYOUTS[dataset.layout](dataset, root, list(names[styles[0]])))
    clips: list[Clip] = []
    filtered, skipped = [], []
    classes_of: dict[tuple[str, int], int] = {}
    for entry, found in _find_clips(dataset, annotated, folders, names):
        if isinstance(found, Clip):
            place = (found.video, found.first)
            if place in classes_of and classes_of[place] != entry.label:
                found = BadFrames(f"{found.video} is listed twice, with different classes")
            elif place in classes_of:
                found = Filtered("listed a second time")
            classes_of.setdefault(place, entry.label)
        if isinstance(found, Filtered):
            filtered.append((entry.id, str(found)))
        elif isinstance(found, BadFrames):
            skipped.append((entry.id, str(found)))
        elif limit is None or len(clips) < limit:
            clips.append(found)
        else:
            break
    if skipped and on_error != "skip":
        more = f" (the first of {len(skipped)} such videos)" if len(skipped) > 1 else ""
        raise UserError(
            f"video {skipped[0][0]!r}{more}: {skipped[0][1]}: repair the file, or "
            "leave the video out with on_error=skip"
        )
    if not clips:
        reasons = Counter(reason for _, reason in filtered + skipped).most_common(3)
        why = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UserError(
            f"no usable video below {folders[styles[0]]} "
            f"({len(filtered) + len(skipped)} clips were left out{': ' if why else ''}{why})"
        )
    classes = 1 + max((entry.label for entry in annotated), default=-1)
    return ClipList(
        dataset.name, root, styles, tuple(clips), tuple(skipped), tuple(filtered), normal, classes
    )


def require_folders(root: Path, folders: dict[int, Path]) -> None:
    """Raise UserError if the root or the folder of a style is missing."""
    if not root.is_dir():
        raise UserError(f"stylized_data_dir={root} does not exist or is not a folder")
    for style, folder in folders.items():
        if folder.is_dir():
            continue
        if folder.name != f"style_{style}":
            raise UserError(f"normal_data_root={folder} does not exist or is not a folder")
        present = ", ".join(sorted(p.name for p in root.glob("style_*"))) or "no style_* folder"
        raise UserError(
            f"{root} has no style_{style} (it has {present}): stylize the videos first, or give styles=..."
        )


def _find_clips(
    dataset: DictConfig,
    annotated: list[Annotated],
    folders: dict[int, Path],
    names: dict[int, dict[str, None]],
) -> Iterator[tuple[Annotated, Clip | Filtered | BadFrames]]:
    """Yield one tuple (annotation, clip) per annotation; for an unusable clip, (annotation, exception)."""

    def find(entry: Annotated) -> Clip | Filtered | BadFrames:
        try:
            return make_clip(dataset, entry, folders, names)
        except (Filtered, BadFrames) as reason:
            return reason

    entries = iter(annotated)
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(desc="list", unit="clip", total=len(annotated), delay=2) as bar,
    ):
        while chunk := list(islice(entries, CHUNK)):
            yield from zip(chunk, pool.map(find, chunk), strict=True)
            bar.update(len(chunk))


def make_clip(
    dataset: DictConfig, entry: Annotated, folders: dict[int, Path], names: dict[int, dict[str, None]]
) -> Clip:
    """Make a clip from its annotation, given the folder and the video names of each style.

    Raises Filtered if the data set excludes the clip, or the clip is not on disk. Raises BadFrames if the
    annotation or a file is broken.
    """
    if entry.broken:
        raise BadFrames(entry.broken)
    if entry.filtered:
        raise Filtered(entry.filtered)
    if any(map(points_outside, entry.names)):
        raise BadFrames("the video name points outside the data set")
    name = next((n for n in entry.names if any(on_disk(n, folders[k], names[k]) for k in names)), None)
    if name is None:
        raise Filtered("not on disk")
    info = common_info({k: video_info(find_video(folder, name)) for k, folder in folders.items()})
    if info.fault and (dataset.get("frames") or info.repeated is not None):
        raise BadFrames(info.fault)
    notes = (*info.notes, *([GAPS] if info.missing else []))
    fps = info.fps or dataset.get("fps")
    if entry.images and info.fps is None:
        first, length = image_range(entry.images, info.length)
    else:
        first, length = frame_range(entry, info.length, fps, info.times)
    least = (dataset.get("filters") or {}).get("min_frames", 2)
    if entry.seconds is None and length < least:
        raise Filtered(f"fewer than {least} frames")
    shown = info.times and tuple(t - info.times[first] for t in info.times[first : first + length])
    return Clip(entry.id, name, first, length, entry.label, entry.cluster, fps, times=shown, notes=notes)


def on_disk(name: str, folder: Path, known: dict[str, None]) -> bool:
    """Return whether `folder` has the video `name`; `known` lists the names of its videos."""
    if name in known or name.count("/") < 2:
        return name in known
    try:
        return find_video(folder, name) is not None
    except BadFrames:
        return False


def common_info(by_style: dict[int, VideoInfo]) -> VideoInfo:
    """Return the length and frame rate of a video; both must be equal in all styles that store them.

    Raises BadFrames if the styles differ, or if the video has fewer than two frames.
    """
    for what, name in (("number of frames", "length"), ("frame rate", "fps")):
        values = {k: getattr(info, name) for k, info in by_style.items() if getattr(info, name) is not None}
        equal = equal_rates(list(values.values())) if name == "fps" else len(set(values.values())) < 2
        if not equal:
            counts = ", ".join(f"style_{k} has {value}" for k, value in values.items())
            raise BadFrames(f"the styles of the video differ in {what}: {counts}")
    if len({info.offsets for info in by_style.values()}) > 1:
        faults = "; ".join(f"style_{k}: {info.fault}" for k, info in by_style.items() if info.offsets)
        raise BadFrames(f"the styles of the video have different frame numbers ({faults})")
    first = {k: info.first for k, info in by_style.items() if info.fps is None}
    if len(set(first.values())) > 1 and not set(first.values()) <= {0, 1}:
        counts = ", ".join(f"style_{k} begins with {number}" for k, number in first.items())
        raise BadFrames(f"the styles of the video begin with different frame numbers: {counts}")
    common = next(iter(by_style.values()))
    # images store no frame rate: use the rate of a video file in another style
    if common.fps is None:
        stored = next((info for info in by_style.values() if info.fps), common)
        common = replace(common, fps=stored.fps, times=stored.times)
    common = replace(common, notes=tuple(dict.fromkeys(n for info in by_style.values() for n in info.notes)))
    if common.length < 2:
        raise BadFrames(f"the video has {common.length} frames, but a shuffled order needs at least two")
    return common


def image_range(images: tuple[int, int], available: int) -> tuple[int, int]:
    """Return a tuple (first frame, number of frames) of a clip whose video is a folder of `available` images.

    Raises BadFrames if the folder has fewer images than the annotation needs.
    """
    first, end = images
    if not 0 <= first < end - 1 or end > available:
        raise BadFrames(f"the video has {available} frames, but its annotation says frames {first} to {end}")
    return first, end - first


def frame_range(
    entry: Annotated, available: int, fps: float | None, times: tuple[float, ...] | None = None
) -> tuple[int, int]:
    """Return a tuple (first frame, number of frames) of a clip whose video has `available` frames.

    `times` are the times of these frames in seconds; None if the frame rate is constant.

    Raises BadFrames if the video has fewer frames than its annotation needs.
    """
    if entry.seconds is None:
        wanted = available if entry.frames is None else entry.frames
        if wanted > available:
            raise BadFrames(f"the video has {available} frames, but its annotation says {wanted} frames")
        return 0, wanted
    if fps is None:
        raise UserError(
            f"clip {entry.id!r} is annotated in seconds, but its frame rate is unknown: "
            "give dataset.fps=FRAMES_PER_SECOND"
        )
    first, end = span(entry.seconds, fps, times)
    if end - available > SLACK_SECONDS * fps or min(end, available) - first < 2:
        raise BadFrames(
            f"the video has {available} frames, but the clip ends at frame {end} at {fps:g} frames/s "
            "(is dataset.fps the rate at which the frames were extracted?)"
        )
    return first, min(end, available) - first
