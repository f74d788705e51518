"""List the clips of a data set on disk: the video, frame range and styles of each clip."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.errors import UserError

from .annotations import LAYOUTS, Annotated
from .discovery import VideoInfo, find_video, list_videos, points_outside, video_info
from .frames import BadFrames, Frames, open_frames

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from .loader import Decoded, ViewBatches

# THREADS videos are inspected at the same time, because inspecting a video mostly means waiting for the disk.
# Videos are inspected in chunks of CHUNK videos, so that inspection ends soon after `limit` clips are found.
THREADS, CHUNK = 4, 256
# A video may be shorter than its annotation says by at most this number of seconds.
SLACK_SECONDS = 1.0
# Frame rates count as equal if their relative difference is at most this value (29.97 and 30 are equal).
RATE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Clip:
    """A range of frames of one video: ``first`` .. ``first + length - 1`` (0-based positions).

    The bootstrap resamples clusters: clips with equal ``cluster`` come from one video. ``label`` is -1 if the
    clip has no class, ``fps`` is None if the frame rate is not known.
    """

    id: str
    video: str
    first: int
    length: int
    label: int = -1
    cluster: str = ""
    fps: float | None = None


@dataclass(frozen=True)
class ClipList:
    """The clips of a data set, and the clips that were left out, with the reasons.

    ``filtered`` clips are excluded by the rules of the data set, or missing on disk in every style.
    ``skipped`` clips are broken. The frames of a clip in style k are in ``root/style_<k>/<video>``: a folder
    of images, a frame store or a video file. Unstylized videos (style 0) may be in ``normal_root`` instead.
    """

    name: str
    root: Path
    styles: tuple[int, ...]
    clips: tuple[Clip, ...]
    skipped: tuple[tuple[str, str], ...] = ()  # (clip id, reason)
    filtered: tuple[tuple[str, str], ...] = ()
    normal_root: Path | None = None
    classes: int = 0  # number of classes that the annotations number, from 0 on; 0: none
    rows_per_view: int = 1  # rows of activations per view: for networks that see flow, one per frame

    def frames_of(self, video: str, style: int) -> Frames:
        """Open the frames of one video in one style."""
        return open_frames(find_video(style_folder(self.root, style, self.normal_root), video))

    def batches(self, views: pd.DataFrame, rows: NDArray, batch_rows: int, spec) -> ViewBatches:
        """Return a `ViewBatches`: the views at the row numbers `rows`, in batches of `batch_rows` views.

        `spec` is the input spec of the network.
        """
        from .loader import ViewBatches  # imported here, because loader.py imports clips.py

        return ViewBatches(self, views, rows, batch_rows)

    def to_inputs(
        self, batch: list[Decoded], spec, device: torch.device
    ) -> Tensor | list[Tensor] | dict[str, Tensor]:
        """Convert a decoded batch to network input on `device`; `spec` is the input spec of the network.

        Returns one tensor (B, 3, T, crop, crop), or a list of such tensors if there are several pathways.
        """
        from .loader import to_inputs

        pathways = to_inputs(batch, spec, device)
        return pathways if len(pathways) > 1 else pathways[0]

    @property
    def listing_sha256(self) -> str:
        """SHA-256 of the styles and the clips, one of the values that identify a run."""
        return hashlib.sha256(repr([self.styles, *map(astuple, self.clips)]).encode()).hexdigest()

    @property
    def filtered_by_reason(self) -> dict[str, list[str]]:
        """Map each reason to the ids of the clips that were filtered out for this reason."""
        reasons: dict[str, list[str]] = {}
        for clip, reason in self.filtered:
            reasons.setdefault(reason, []).append(clip)
        return reasons

    @property
    def frame_rates(self) -> dict[float | None, int]:
        """Map each frame rate to its number of clips, most frequent first."""
        return dict(Counter(clip.fps for clip in self.clips).most_common())

    def left_out(self) -> list[str]:
        """Return messages: one for all skipped (broken) clips, and one per reason for the filtered clips."""
        lines = []
        if self.skipped:
            clip, reason = self.skipped[0]
            lines.append(f"{len(self.skipped)} clips were skipped, the first: {clip} ({reason})")
        for reason, ids in self.filtered_by_reason.items():
            lines.append(f"{len(ids)} clips were left out, {reason}: {ids[0]}{' ...' if ids[1:] else ''}")
        return lines

    def remarks(self, assumed_fps: float, resample_fps: float | None, window: int = 1) -> list[str]:
        """Return a list of messages about left-out clips, unexpected frame rates and too short clips.

        `assumed_fps` is the frame rate that the network expects.
        """
        lines = self.left_out()
        rates: dict[float | None, int] = {resample_fps: len(self.clips)} if resample_fps else self.frame_rates
        others = {fps: n for fps, n in rates.items() if fps and abs(fps / assumed_fps - 1) > RATE_TOLERANCE}
        if others:
            counts = ", ".join(f"{n} clips are at {fps:g}" for fps, n in list(others.items())[:4])
            lines.append(
                f"frame rate: the network expects {assumed_fps:g} frames per second, but {counts}: "
                f"the speed of motion differs from training (resample_fps={assumed_fps:g} corrects it)"
            )
        if None in rates:
            lines.append(
                f"frame rate: unknown for {rates[None]} clips (folders of images do not store it), "
                f"the network expects {assumed_fps:g} frames per second: dataset.fps=FPS states the rate"
            )
        strides = [(clip.fps or resample_fps) / resample_fps if resample_fps else 1 for clip in self.clips]
        short = [c for c, stride in zip(self.clips, strides, strict=True) if int(c.length / stride) < window]
        if short:
            lines.append(
                f"short clips: {len(short)} of {len(self.clips)} have fewer frames than the window of "
                f"{window} (the first: {short[0].id}): their frames are repeated from the start of the clip "
                "(a shorter n_sample_frames avoids it)"
            )
        return lines


class Filtered(Exception):
    """Exception for a clip that the rules of the data set exclude, or that is not on disk."""


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
    listed = set()
    for entry, found in _find_clips(dataset, annotated, folders, names):
        if entry.id in listed:
            found = Filtered("listed a second time")
        listed.add(entry.id)
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


def parse_styles(styles: str | int) -> tuple[int, ...]:
    """Return the style ids in the value of ``--styles``, a comma-separated list."""
    try:
        return tuple(int(style) for style in str(styles).strip("[]").split(","))
    except ValueError as error:
        raise UserError(f"styles={styles} is not a comma-separated list of style ids (1,2,3,4)") from error


def style_folder(root: Path, style: int, normal_root: Path | None = None) -> Path:
    """Return the folder that holds the videos in one style."""
    return normal_root if style == 0 and normal_root is not None else root / f"style_{style}"


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
    """Yield (annotation, clip) in order, or (annotation, exception with the reason) for an unusable clip."""

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
    name = next((n for n in entry.names for known in names.values() if n in known), None)
    if name is None:
        raise Filtered("not on disk")
    info = common_info({k: video_info(find_video(folder, name)) for k, folder in folders.items()})
    if dataset.get("frames") and info.fault:
        raise BadFrames(info.fault)
    fps = info.fps or dataset.get("fps")
    first, length = frame_range(entry, info.length, fps)
    least = (dataset.get("filters") or {}).get("min_frames", 2)
    if entry.seconds is None and length < least:
        raise Filtered(f"fewer than {least} frames")
    return Clip(entry.id, name, first, length, entry.label, entry.cluster, fps)


def common_info(by_style: dict[int, VideoInfo]) -> VideoInfo:
    """Return the length and frame rate of a video; these values must be equal in all styles that store them.

    Raises BadFrames if the styles differ, or if the video has fewer than two frames.
    """
    for what, field in (("number of frames", "length"), ("frame rate", "fps")):
        values = {k: getattr(info, field) for k, info in by_style.items() if getattr(info, field) is not None}
        if len(set(values.values())) > 1:
            counts = ", ".join(f"style_{k} has {value}" for k, value in values.items())
            raise BadFrames(f"the styles of the video differ in {what}: {counts}")
    if len({info.offsets for info in by_style.values()}) > 1:
        faults = "; ".join(f"style_{k}: {info.fault}" for k, info in by_style.items() if info.offsets)
        raise BadFrames(f"the styles of the video have different frames ({faults})")
    common = next(iter(by_style.values()))
    if common.fps is None:  # images store no frame rate, but the video file of another style may store one
        common = replace(common, fps=next((info.fps for info in by_style.values() if info.fps), None))
    if common.length < 2:
        raise BadFrames(f"the video has {common.length} frames, but a shuffled order needs at least two")
    return common


def frame_range(entry: Annotated, available: int, fps: float | None) -> tuple[int, int]:
    """Return a tuple (first frame, number of frames) of a clip whose video has `available` frames.

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
    first, end = (int(fps * second) for second in entry.seconds)
    if end - available > SLACK_SECONDS * fps or min(end, available) - first < 2:
        raise BadFrames(
            f"the video has {available} frames, but the clip ends at frame {end} at {fps:g} frames/s "
            "(is dataset.fps the rate at which the frames were extracted?)"
        )
    return first, min(end, available) - first
