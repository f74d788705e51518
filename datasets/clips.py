"""Clips of a data set on disk: which stretch of which video, in which styles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

from omegaconf import DictConfig

from configs import UserError
from datasets.frames import VIDEO_SUFFIXES, BadFrames, open_frames


@dataclass(frozen=True)
class Clip:
    """One stretch of one video: frames ``first`` .. ``first + length - 1`` (0-based positions).

    ``cluster`` is what the bootstrap draws: clips of one cluster share a video. ``label`` is -1 where there
    is none.
    """

    id: str
    video: str
    first: int
    length: int
    label: int = -1
    cluster: str = ""


@dataclass(frozen=True)
class ClipList:
    """The clips of a data set and what was left out, with the reason.

    The frames of a clip in style k are those of ``root/style_<k>/<video>``: a folder of images or a video
    file.
    """

    name: str
    root: Path
    styles: tuple[int, ...]
    clips: tuple[Clip, ...]
    skipped: tuple[tuple[str, str], ...]  # (clip id, reason)

    def frames_of(self, video: str, style: int):
        """Open the frames of one video in one style."""
        return open_frames(find_video(self.root / f"style_{style}", video))

    @property
    def listing_sha256(self) -> str:
        """Hash of what was listed: another listing is another experiment."""
        return hashlib.sha256(repr([self.styles, *map(astuple, self.clips)]).encode()).hexdigest()


def list_clips(
    dataset: DictConfig, styles: tuple[int, ...], limit: int | None = None, on_error: str = "error"
) -> ClipList:
    """List the clips of a data set, in file order; the first `limit` of them.

    Parameters
    ----------
    dataset
        A row of ``configs/dataset``: its ``layout`` chooses how annotations become clips.
    on_error
        ``error`` refuses a data set in which a video cannot be used, ``skip`` leaves such videos out, with
        the reason.

    Raises
    ------
    UserError
        A folder that is not there, a video that cannot be used, or no clip at all.
    """
    if not dataset.root:
        raise UserError(f"dataset {dataset.name!r} needs a folder: give stylized_data_dir=DIR")
    root = Path(dataset.root).expanduser()
    if not root.is_dir():
        raise UserError(f"stylized_data_dir={root} does not exist or is not a folder")
    for style in styles:
        if not (root / f"style_{style}").is_dir():
            have = ", ".join(sorted(p.name for p in root.glob("style_*"))) or "no style_* folder"
            raise UserError(
                f"{root} has no style_{style} (it has {have}): stylize it first, or give styles=..."
            )
    clips, skipped = LAYOUTS[dataset.layout](root, styles)
    if skipped and on_error != "skip":
        more = f" (the first of {len(skipped)} such videos)" if len(skipped) > 1 else ""
        raise UserError(
            f"video {skipped[0][0]!r}{more}: {skipped[0][1]}: mend it, or give on_error=skip to leave it out"
        )
    if not clips:
        raise UserError(
            f"no video that can be used below {root}/style_{styles[0]} ({len(skipped)} were left out)"
        )
    return ClipList(dataset.name, root, styles, tuple(clips[:limit]), tuple(skipped))


def list_folder(root: Path, styles: tuple[int, ...]) -> tuple[list[Clip], list[tuple[str, str]]]:
    """A plain stylized folder: each video below ``style_<k>`` is one clip, over all of its frames."""
    clips, skipped = [], []
    for name in sorted(video_name(p) for p in (root / f"style_{styles[0]}").iterdir() if is_video(p)):
        try:
            lengths = {style: len(open_frames(find_video(root / f"style_{style}", name))) for style in styles}
        except BadFrames as error:
            skipped.append((name, str(error)))
            continue
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"style_{style} has {count}" for style, count in lengths.items())
            skipped.append((name, f"its styles differ in their number of frames: {counts}"))
        elif min(lengths.values()) < 2:
            skipped.append((name, f"{min(lengths.values())} frames: an order needs two at least"))
        else:
            clips.append(Clip(id=name, video=name, first=0, length=lengths[styles[0]], cluster=name))
    return clips, skipped


LAYOUTS: dict[str, Callable[[Path, tuple[int, ...]], tuple[list[Clip], list[tuple[str, str]]]]] = {
    "folder": list_folder
}


def is_video(path: Path) -> bool:
    """Whether `path` may hold frames: a folder, or a file whose name ends like a video's."""
    return not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES)


def video_name(path: Path) -> str:
    """Name of the video at `path`: without the ending of a video file."""
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name


def find_video(folder: Path, name: str) -> Path:
    """The folder of frames, or the video file, of that name.

    Raises
    ------
    BadFrames
        Where there is none, or the name leads out of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BadFrames(f"{name!r} leads out of {folder}")
    if path.is_dir():
        return path
    for suffix in sorted(VIDEO_SUFFIXES):
        file = folder / f"{name}{suffix}"
        if file.is_file():
            return file
    raise BadFrames(f"{path} does not exist (neither as a folder of frames nor as a video file)")
