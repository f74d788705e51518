"""Clips of a data set on disk: which stretch of which video, in which styles."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from static_dynamic.datasets.annotations import LAYOUTS, Annotated
from static_dynamic.datasets.discovery import Measure, find_video, leads_out, list_videos, measure
from static_dynamic.datasets.frames import BadFrames, Frames, open_frames
from static_dynamic.errors import UserError

# threads wait for the disk; so many videos are looked at between two looks at the limit
THREADS, CHUNK = 4, 256
# an annotation and a file may differ by this much in how long a video is
SLACK_SECONDS = 1.0
# frame rates nearer than this, relatively, are the same (29.97 and 30)
RATE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Clip:
    """One stretch of one video: frames ``first`` .. ``first + length - 1`` (0-based positions).

    ``cluster`` is what the bootstrap draws: clips of one cluster share a video. ``label`` is -1 where there
    is none, ``fps`` None where the frame rate is not known.
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
    """The clips of a data set and what was left out, with the reason.

    ``filtered`` clips are not wanted by the rules of the data set, or not on disk in any style; ``skipped``
    ones are broken. The frames of a clip in style k are those of ``root/style_<k>/<video>``: a folder of
    images, a frame store or a video file; unstylized ones (style 0) may lie in ``normal_root`` instead.
    """

    name: str
    root: Path
    styles: tuple[int, ...]
    clips: tuple[Clip, ...]
    skipped: tuple[tuple[str, str], ...] = ()  # (clip id, reason)
    filtered: tuple[tuple[str, str], ...] = ()
    normal_root: Path | None = None
    rows_per_view: int = 1  # rows that a network yields of one look at a clip

    def frames_of(self, video: str, style: int) -> Frames:
        """Open the frames of one video in one style."""
        return open_frames(find_video(style_folder(self.root, style, self.normal_root), video))

    @property
    def listing_sha256(self) -> str:
        """Hash of what was listed: another listing is another experiment."""
        return hashlib.sha256(repr([self.styles, *map(astuple, self.clips)]).encode()).hexdigest()

    @property
    def filtered_by_reason(self) -> dict[str, list[str]]:
        """Reason -> the clips that were left out for it."""
        reasons: dict[str, list[str]] = {}
        for clip, reason in self.filtered:
            reasons.setdefault(reason, []).append(clip)
        return reasons

    @property
    def frame_rates(self) -> dict[float | None, int]:
        """Frame rate -> number of clips, most frequent first."""
        return dict(Counter(clip.fps for clip in self.clips).most_common())

    def left_out(self) -> list[str]:
        """What was skipped or filtered, a line each reason."""
        lines = []
        if self.skipped:
            clip, reason = self.skipped[0]
            lines.append(f"{len(self.skipped)} clips were skipped, the first: {clip} ({reason})")
        for reason, ids in self.filtered_by_reason.items():
            lines.append(f"{len(ids)} clips were left out, {reason}: {ids[0]}{' ...' if ids[1:] else ''}")
        return lines

    def remarks(self, assumed_fps: float, resample_fps: float | None, window: int = 1) -> list[str]:
        """What a user should know of this list, for a network whose sampling counts in `assumed_fps` and
        that is shown windows of so many frames."""
        lines = self.left_out()
        rates = {resample_fps: len(self.clips)} if resample_fps else self.frame_rates
        others = {fps: n for fps, n in rates.items() if fps and abs(fps / assumed_fps - 1) > RATE_TOLERANCE}
        if others:
            said = ", ".join(f"{n} at {fps:g}" for fps, n in list(others.items())[:4])
            lines.append(
                f"frame rate: the network's sampling counts in {assumed_fps:g} frames a second, but {said}: "
                f"motion is not as fast as it was trained on (resample_fps={assumed_fps:g} mends it)"
            )
        if None in rates:
            lines.append(
                f"frame rate: not known of {rates[None]} clips (images do not say it), "
                f"the network's sampling counts in {assumed_fps:g} frames a second"
            )
        paces = [(clip.fps or resample_fps) / resample_fps if resample_fps else 1 for clip in self.clips]
        short = [c for c, pace in zip(self.clips, paces, strict=True) if int(c.length / pace) < window]
        if short:
            lines.append(
                f"short clips: {len(short)} of {len(self.clips)} have fewer frames than the window of "
                f"{window} (the first: {short[0].id}): theirs start again from the beginning "
                "(a shorter n_sample_frames avoids it)"
            )
        return lines


class Filtered(Exception):
    """A clip that the data set does not want, or that was never fetched: no fault of any file."""


def list_clips(
    dataset: DictConfig,
    styles: tuple[int, ...],
    limit: int | None = None,
    on_error: str = "error",
    normal_root: str | Path | None = None,
) -> ClipList:
    """List the clips of a data set, in the order of its annotations; the first `limit` of them.

    Parameters
    ----------
    dataset
        A row of ``configs/dataset``: its ``layout`` chooses how annotations become clips.
    on_error
        ``error`` refuses a data set in which a video cannot be used, ``skip`` leaves such videos out, with
        the reason.
    normal_root
        Where the unstylized videos lie, if style 0 is among `styles`; None: ``root/style_0``.

    Raises
    ------
    UserError
        A folder that is not there, a video that cannot be used, or no clip at all.
    """
    if dataset.layout not in LAYOUTS:
        raise UserError(
            f"dataset={dataset.name} is for networks that take images and flow (model=matnet, fusionseg, "
            "rtnet); dataset=folder takes any folder of stylized videos"
        )
    if not dataset.root:
        raise UserError(f"dataset {dataset.name!r} needs a folder: give stylized_data_dir=DIR")
    root = Path(dataset.root).expanduser()
    normal = Path(normal_root).expanduser() if normal_root else None
    folders = {style: style_folder(root, style, normal) for style in styles}
    require_folders(root, folders)
    names = {style: dict.fromkeys(list_videos(folder)) for style, folder in folders.items()}
    annotated = list(LAYOUTS[dataset.layout](dataset, root, list(names[styles[0]])))
    clips, filtered, skipped = [], [], []
    seen = set()
    for entry, found in _look(dataset, annotated, folders, names):
        if entry.id in seen:
            found = Filtered("listed a second time")
        seen.add(entry.id)
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
            f"video {skipped[0][0]!r}{more}: {skipped[0][1]}: mend it, or give on_error=skip to leave it out"
        )
    if not clips:
        reasons = Counter(reason for _, reason in filtered + skipped).most_common(3)
        why = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UserError(
            f"no video that can be used below {folders[styles[0]]} "
            f"({len(filtered) + len(skipped)} were left out{': ' if why else ''}{why})"
        )
    return ClipList(dataset.name, root, styles, tuple(clips), tuple(skipped), tuple(filtered), normal)


def parse_styles(styles: str | int) -> tuple[int, ...]:
    """Style ids of a comma list, as ``--styles`` has it."""
    try:
        return tuple(int(style) for style in str(styles).strip("[]").split(","))
    except ValueError as error:
        raise UserError(f"styles={styles} is not a comma list of style numbers such as 1,2,3,4") from error


def style_folder(root: Path, style: int, normal_root: Path | None = None) -> Path:
    """The folder of one style."""
    return normal_root if style == 0 and normal_root is not None else root / f"style_{style}"


def require_folders(root: Path, folders: dict[int, Path]) -> None:
    """Raise where the root or a style is not there."""
    if not root.is_dir():
        raise UserError(f"stylized_data_dir={root} does not exist or is not a folder")
    for style, folder in folders.items():
        if folder.is_dir():
            continue
        if folder.name != f"style_{style}":
            raise UserError(f"normal_data_root={folder} does not exist or is not a folder")
        have = ", ".join(sorted(p.name for p in root.glob("style_*"))) or "no style_* folder"
        raise UserError(f"{root} has no style_{style} (it has {have}): stylize it first, or give styles=...")


Found = Clip | Filtered | BadFrames


def _look(
    dataset: DictConfig, annotated: list[Annotated], folders: dict[int, Path], names: dict[int, dict]
) -> Iterator[tuple[Annotated, Found]]:
    """Find what became of each annotation, in order; lazily, so that a limit ends the look at the disk."""
    look = partial(_outcome, dataset, folders, names)
    entries = iter(annotated)
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(desc="list", unit="clip", total=len(annotated), delay=2) as bar,
    ):
        while chunk := list(islice(entries, CHUNK)):
            yield from zip(chunk, pool.map(look, chunk), strict=True)
            bar.update(len(chunk))


def _outcome(dataset: DictConfig, folders: dict, names: dict, entry: Annotated) -> Found:
    try:
        return make_clip(dataset, entry, folders, names)
    except (Filtered, BadFrames) as reason:
        return reason


def make_clip(
    dataset: DictConfig, entry: Annotated, folders: dict[int, Path], names: dict[int, Iterable[str]]
) -> Clip:
    """Join what an annotation says of a clip with what is on disk.

    Raises
    ------
    Filtered, BadFrames
        Where there is no clip: not wanted, or broken.
    """
    if entry.broken:
        raise BadFrames(entry.broken)
    if entry.filtered:
        raise Filtered(entry.filtered)
    if any(map(leads_out, entry.names)):
        raise BadFrames("its name leads out of the data set: refused")
    name = next((n for n in entry.names for known in names.values() if n in known), None)
    if name is None:
        raise Filtered("not on disk")
    seen = same_in_all_styles({k: measure(find_video(folder, name)) for k, folder in folders.items()})
    if dataset.get("frames") and seen.fault:
        raise BadFrames(seen.fault)
    fps = seen.fps or dataset.get("fps")
    first, length = stretch(entry, seen.length, fps)
    least = (dataset.get("filters") or {}).get("min_frames", 2)
    if entry.seconds is None and length < least:
        raise Filtered(f"fewer than {least} frames")
    return Clip(entry.id, name, first, length, entry.label, entry.cluster, fps)


def same_in_all_styles(seen: dict[int, Measure]) -> Measure:
    """What all styles of a video agree on.

    Raises
    ------
    BadFrames
        Where they do not, or a video is too short for an order.
    """
    for what, values in {
        "number of frames": {k: m.length for k, m in seen.items()},
        "frame rate": {k: m.fps for k, m in seen.items()},
    }.items():
        if len(set(values.values())) > 1:
            counts = ", ".join(f"style_{k} has {value}" for k, value in values.items())
            raise BadFrames(f"its styles differ in their {what}: {counts}")
    if len({m.steps for m in seen.values()}) > 1:
        faults = "; ".join(f"style_{k}: {m.fault}" for k, m in seen.items() if m.steps)
        raise BadFrames(f"its styles differ in which frames they have ({faults})")
    common = next(iter(seen.values()))
    if common.length < 2:
        raise BadFrames(f"{common.length} frames: an order needs two at least")
    return common


def stretch(entry: Annotated, available: int, fps: float | None) -> tuple[int, int]:
    """First frame and number of frames of a clip, of those that are on disk.

    Raises
    ------
    BadFrames
        Where the disk has less than the annotation says.
    """
    if entry.seconds is None:
        wanted = available if entry.frames is None else entry.frames
        if wanted > available:
            raise BadFrames(f"it has {available} frames, its annotation says {wanted}")
        return 0, wanted
    if fps is None:
        raise UserError(
            f"clip {entry.id!r}: its annotation counts in seconds: give dataset.fps=FRAMES_A_SECOND"
        )
    first, end = (int(fps * second) for second in entry.seconds)
    if end - available > SLACK_SECONDS * fps or min(end, available) - first < 2:
        raise BadFrames(
            f"it has {available} frames, its segment ends at {end} at {fps:g} frames a second "
            "(is dataset.fps what the frames were extracted at?)"
        )
    return first, min(end, available) - first
