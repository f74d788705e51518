"""Find the videos of a style: folders of images, frame stores and video files. A video may be directly in the
folder of the style, or in a class folder below it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from static_dynamic.errors import UserError

from .frames import STORE_NAME, VIDEO_SUFFIXES, BadFrames, VideoFile, open_frames
from .numbering import frame_numbers, is_image

# Folders that network drives and archive programs create; they hold no videos.
NOT_VIDEOS = {"@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found"}
# A folder with at least this number of images is a video, even if it also holds some video files.
ENOUGH_IMAGES = 16
# Files with these suffixes may lie beside the videos of a data set, so they are not reported as unknown.
KNOWN_FILES = {".csv", ".json", ".md", ".txt", ".xz", ".yaml", ".yml", ".zip"}


@dataclass(frozen=True)
class VideoInfo:
    """Length and frame rate of one video, and the numbers in the names of its images.

    A gap in these numbers means that frames are missing: every position after the gap would be wrong.
    """

    length: int
    # Frames per second; None if the file does not store the frame rate.
    fps: float | None
    # Frame numbers minus `first`; empty if frame numbers are consecutive.
    offsets: tuple[int, ...] = ()
    # Frame number in the name of the first image.
    first: int = 0
    # Frame times in seconds; None if the frame rate is constant.
    times: tuple[float, ...] | None = None
    # Messages about unusual properties of the file, see `VideoFile.notes`.
    notes: tuple[str, ...] = ()

    @property
    def repeated(self) -> int | None:
        """First frame number that occurs in two file names; None if all frame numbers differ."""
        return next((self.first + a for a, b in pairwise(self.offsets) if a == b), None)

    @property
    def missing(self) -> int:
        """Number of frames that are missing between the first and the last frame."""
        return self.offsets[-1] + 1 - len(set(self.offsets)) if self.offsets else 0

    @property
    def fault(self) -> str | None:
        """Message about missing or duplicate frames; None if frame numbers are consecutive from 0 or 1."""
        if self.repeated is not None:
            return f"two files have the frame number {self.repeated}"
        if self.missing:
            # Only the first missing number is named, because one misnamed file can cause a huge gap.
            gap = next(k for k, offset in enumerate(self.offsets) if offset != k)
            more = f" and {self.missing - 1} more" if self.missing > 1 else ""
            return f"frame {self.first + gap}{more} of {self.offsets[-1] + 1} is missing"
        return None if self.first in (0, 1) else f"its first frame has the number {self.first}, not 0 or 1"


def list_videos(folder: Path) -> Iterator[str]:
    """List the names of the videos below `folder`, sorted: ``VIDEO``, or ``CLASS/VIDEO`` in a class folder.

    A folder that holds folders or video files, but no frames, is a class folder. Raises UserError if a name
    is not valid UTF-8, because no result could be written under this name.
    """
    for entry in _entries(folder):
        name = _video_name(entry)
        if name is None:
            continue
        members = {}
        if _is_folder(entry) and not _holds_frames(entry.path) and not links_to_parent(folder, name):
            inside = _entries(Path(entry.path))
            members = {member: None for e in inside if (member := _video_name(e)) is not None}
        yield from (f"{name}/{member}" for member in members) if members else [name]


def require_videos(folder: Path) -> list[str]:
    """List the distinct names of the videos below `folder`; raise UserError if there is no video."""
    names = list(dict.fromkeys(list_videos(folder)))
    if not names:
        raise UserError(
            f"{folder} holds no videos: give a folder of video files, folders of images or frame stores"
        )
    return names


def find_video(folder: Path, name: str) -> Path:
    """Return the path of a video in `folder`: a folder of frames, or a video file.

    Symbolic links inside `folder` are followed, because the user placed them there. Raises BadFrames if there
    is no such video, or its name points outside `folder`.
    """
    if points_outside(name):
        raise BadFrames(f"the video name {name!r} points outside {folder}")
    path = folder / name
    if links_to_parent(folder, name):
        raise BadFrames(f"{path} is a link to a folder that contains the link")
    if path.is_dir():
        return path
    suffixes = sorted(VIDEO_SUFFIXES)
    for suffix in (*suffixes, *map(str.upper, suffixes)):
        file = folder / f"{name}{suffix}"
        if file.is_file():
            return file
    # search for suffixes in mixed case, such as .Mp4
    if path.parent.is_dir():
        for entry in _entries(path.parent):
            if _stem(entry.name) == path.name != entry.name and entry.is_file():
                return Path(entry.path)
    broken = " (broken link)" if path.is_symlink() else ""
    raise BadFrames(f"{path} does not exist{broken} (neither as a folder of frames nor as a video file)")


def unknown_files(folder: Path) -> Iterator[str]:
    """List the files below `folder` that are neither videos nor of a kind in `KNOWN_FILES`."""
    for entry in _entries(folder):
        if _is_folder(entry):
            if (
                _video_name(entry)
                and not _holds_frames(entry.path)
                and not links_to_parent(folder, entry.name)
            ):
                members = [e for e in _entries(Path(entry.path)) if not _is_folder(e)]
                yield from (f"{entry.name}/{e.name}" for e in members if _is_unknown(e.name))
        elif _is_unknown(entry.name):
            yield entry.name


def points_outside(name: str) -> bool:
    """Return whether a video name from an annotation file is empty or leads outside the data set's folder."""
    path = PurePosixPath(name)
    return not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name


def links_to_parent(folder: Path, name: str) -> bool:
    """Return whether the entry `name` of `folder` is a symbolic link to `folder` or to a parent of it."""
    path = folder / name
    return path.is_symlink() and path.exists() and folder.resolve().is_relative_to(path.resolve())


def video_info(path: Path) -> VideoInfo:
    """Read the length, frame rate and frame numbers of one video, if possible without decoding frames.

    Raises BadFrames if the video cannot be opened.
    """
    frames = open_frames(path)
    length, fps = len(frames), frames.fps
    if isinstance(frames, VideoFile):
        times = None if frames.times is None else tuple(frames.times.tolist())
        return VideoInfo(length, fps, times=times, notes=frames.notes)
    if not length:
        folders = [entry.name for entry in _entries(path) if _is_folder(entry)]
        if folders:
            raise BadFrames(
                f"{path} holds no images, but folders such as {folders[0]!r}: move the videos into the "
                "folder of the style, or into class folders there"
            )
        return VideoInfo(length, fps)
    first = frames.numbers[0]
    offsets = tuple(n - first for n in frames.numbers)
    return VideoInfo(length, fps, () if offsets == tuple(range(length)) else offsets, first)


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            # A folder of frames takes precedence over a video file of the same stem, so it is sorted first.
            found = sorted(entries, key=lambda e: (_stem(e.name), e.name))
    except OSError as error:
        raise BadFrames(f"{folder} cannot be listed ({error.strerror})") from error
    for entry in found:
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{entry.path}: the name is not valid UTF-8: rename this file or folder"
            ) from error
    return found


def _holds_frames(folder: str) -> bool:
    """Return whether the images in a folder are the frames of one video, or the folder is a frame store.

    A class folder of video files may hold images too: some covers, which are not numbered from 0 or 1, or a
    thumbnail per video. The search ends after `ENOUGH_IMAGES` images if there is no video file, because a
    data set has tens of thousands of folders.
    """
    images, videos = [], set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_image(entry.name):
                    images.append(entry.name)
                elif _stem(entry.name) != entry.name and not entry.name.startswith("."):
                    videos.add(_stem(entry.name))
                if entry.name == STORE_NAME or (len(images) == ENOUGH_IMAGES and not videos):
                    return True
    except OSError:
        # treat the folder as a video, so that opening the folder later raises an error that names the folder
        return True
    if not images or videos >= {os.path.splitext(name)[0] for name in images}:
        return False
    return not videos or len(images) >= ENOUGH_IMAGES or _are_numbered(images)


def _are_numbered(images: list[str]) -> bool:
    """Return whether the image names are numbered 0, 1, 2 ... or 1, 2, 3 ..., without gaps."""
    try:
        numbers = sorted(frame_numbers(images, Path()))
    except BadFrames:
        return False
    return any(numbers == list(range(first, first + len(images))) for first in (0, 1))


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES else name


def _video_name(entry: os.DirEntry) -> str | None:
    if entry.name.startswith(".") or entry.name in NOT_VIDEOS:
        return None
    stem = _stem(entry.name)
    # A broken link is listed too, so that opening the link raises an error that names the link.
    broken = entry.is_symlink() and not os.path.exists(entry.path)
    return stem if stem != entry.name or _is_folder(entry) or broken else None


def _is_unknown(name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and suffix not in VIDEO_SUFFIXES | KNOWN_FILES


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # a symbolic link that points to itself raises OSError
        return False
