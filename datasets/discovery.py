"""Videos below the folder of a style: folders of images, frame stores and video files, in class folders or
not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from static_dynamic.datasets.frames import (
    STORE_NAME,
    VIDEO_SUFFIXES,
    BadFrames,
    VideoFile,
    is_image,
    open_frames,
)
from static_dynamic.errors import UserError


@dataclass(frozen=True)
class Measure:
    """What a look at one video says: its length, its frame rate where the file knows it, and what is wrong
    with the numbers of its frames (gaps: positions would shift)."""

    length: int
    fps: float | None
    steps: tuple[int, ...] = ()  # frame numbers counted from the first, unless they are 0, 1, 2 ...
    first: int = 0

    @property
    def fault(self) -> str | None:
        """Why these frames are not all that the video had, or None."""
        if self.steps:
            missing = sorted(set(range(self.steps[-1])) - set(self.steps))
            if not missing:
                return "two files have the same frame number"
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            return f"frame {self.first + missing[0]}{more} of {self.steps[-1] + 1} is missing"
        return None if self.first in (0, 1) else f"its first frame has the number {self.first}, not 0 or 1"


def list_videos(folder: Path) -> Iterator[str]:
    """Names of the videos below `folder`, in order: ``VIDEO``, or ``CLASS/VIDEO`` below a class folder.

    A folder that holds folders or video files, and no image, is a class folder.
    """
    for entry in _entries(folder):
        name = _video_name(entry)
        if name is None:
            continue
        members = {}
        if _is_folder(entry) and not _holds_frames(entry.path) and not leads_back(folder, name):
            inside = _entries(Path(entry.path))
            members = {member: None for e in inside if (member := _video_name(e)) is not None}
        yield from (f"{name}/{member}" for member in members) if members else [name]


def require_videos(folder: Path) -> list[str]:
    """Names of the videos below `folder`, each once.

    Raises
    ------
    UserError
        Where there are none.
    """
    names = list(dict.fromkeys(list_videos(folder)))
    if not names:
        raise UserError(f"{folder} holds no videos")
    return names


def find_video(folder: Path, name: str) -> Path:
    """The folder of frames, or the video file, of that name.

    Raises
    ------
    BadFrames
        Where there is none, or the name leads out of the folder. A link that lies there is followed: it is
        the user's own.
    """
    if leads_out(name):
        raise BadFrames(f"{name!r} leads out of {folder}")
    path = folder / name
    if leads_back(folder, name):
        raise BadFrames(f"{path} is a link that leads back to a folder that holds it")
    if path.is_dir():
        return path
    for suffix in sorted(VIDEO_SUFFIXES):
        file = folder / f"{name}{suffix}"
        if file.is_file():
            return file
    lost = " (a link that leads nowhere)" if path.is_symlink() else ""
    raise BadFrames(f"{path} does not exist{lost} (neither as a folder of frames nor as a video file)")


def leads_out(name: str) -> bool:
    """Whether a name from an annotation file points to anything but what lies below a folder."""
    path = PurePosixPath(name)
    return not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name


def leads_back(folder: Path, name: str) -> bool:
    """Whether a video or class folder is a link to `folder`, or to one that `folder` lies in."""
    path = folder / name
    return path.is_symlink() and path.exists() and folder.resolve().is_relative_to(path.resolve())


def measure(path: Path) -> Measure:
    """Look at one video without decoding it.

    Raises
    ------
    BadFrames
        Where it cannot be opened.
    """
    frames = open_frames(path)
    length, fps = len(frames), frames.fps
    if isinstance(frames, VideoFile) or not length:
        return Measure(length, fps)
    first = frames.numbers[0]
    steps = tuple(n - first for n in frames.numbers)
    return Measure(length, fps, () if steps == tuple(range(length)) else steps, first)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            # folders first: a folder of frames goes before a video file of the same name
            return sorted(entries, key=lambda e: (_stem(e.name), e.name))
    except OSError as error:
        raise BadFrames(f"{folder} cannot be listed ({error.strerror})") from error


def _holds_frames(folder: str) -> bool:
    # the first image ends the look: tens of thousands of folders are looked at
    try:
        with os.scandir(folder) as entries:
            return any(is_image(entry.name) or entry.name == STORE_NAME for entry in entries)
    except OSError:
        return True  # it is named when it is opened


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def _video_name(entry: os.DirEntry) -> str | None:
    if entry.name.startswith("."):
        return None
    stem = _stem(entry.name)
    # a link that leads nowhere is listed too, so that it is named when it is opened
    lost = entry.is_symlink() and not os.path.exists(entry.path)
    return stem if stem != entry.name or _is_folder(entry) or lost else None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False
