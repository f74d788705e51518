"""Frames of one video, from wherever they are, as uint8 RGB: a folder of images or a video file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from configs import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"}
# beyond these a file is taken for broken or hostile
MAX_PIXELS, MAX_FRAMES = 50_000_000, 1_000_000
# decoding this many frames costs less than a seek
SEEK_FROM = 32


class BadFrames(UserError):
    """A video that cannot be read: one input among many, which a run may skip."""


class FrameFolder:
    """A folder of images in the order of the numbers in their names (any zero-padding)."""

    fps = None

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def files(self) -> list[Path]:
        """The image files, in order."""
        images = [p for p in self.path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
        return sorted(images, key=lambda p: (number(p.stem), p.stem))

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based positions): (n, H, W, 3) RGB."""
        if max(indices) >= len(self):
            raise BadFrames(f"{self.path} has {len(self)} frames, {max(indices) + 1} are needed")
        return _stack([_read_image(self.files[i]) for i in indices], self.path)


class VideoFile:
    """A video file; decoded by one thread, from the key frame before the first frame that is wanted."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def _header(self) -> tuple[int, float | None]:
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            # the header of an AVI counts place holders too
            header = 0 if container.format.name == "avi" else stream.frames
            count = header or sum(map(_holds_frame, container.demux(stream)))
            if stream.width * stream.height > MAX_PIXELS or count > MAX_FRAMES:
                raise BadFrames(
                    f"{self.path} claims {count} frames of {stream.width}x{stream.height}: not read"
                )
            return count, float(stream.average_rate) if stream.average_rate else None

    @property
    def fps(self) -> float | None:
        """Frames a second, as the file says."""
        return self._header[1]

    def __len__(self) -> int:
        return self._header[0]

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based, in the order shown): (n, H, W, 3) RGB."""
        wanted, found, last = set(indices), {}, -1
        for last, frame in self.frames(min(wanted)):
            if last in wanted:
                found[last] = frame.to_ndarray(format="rgb24")
            if last >= max(wanted):
                break
        if len(found) < len(wanted):
            raise BadFrames(
                f"{self.path} ends after {last + 1} frames, {max(wanted) + 1} are needed (truncated?)"
            )
        return _stack([found[i] for i in indices], self.path)

    def frames(self, start: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode one by one: number and frame, from a key frame at or before `start`."""
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # workers are processes already
            yield from _frames_from(container, stream, start)


def open_frames(path: Path) -> FrameFolder | VideoFile:
    """Open a folder of images or a video file.

    Raises
    ------
    BadFrames
        Where there is neither.
    """
    if path.is_dir():
        return FrameFolder(path)
    if path.is_file():
        return VideoFile(path)
    raise BadFrames(f"{path} does not exist")


def number(stem: str) -> int:
    """The last number in a file name: ``frame_00012`` -> 12; -1 where there is none."""
    digits = re.findall(r"\d+", stem)
    return int(digits[-1]) if digits else -1


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadFrames(f"{path} claims {image.width}x{image.height} pixels: not read")
                return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFrames(f"{path} is not a readable image ({error})") from error


def _stack(frames: list[NDArray], path: Path) -> NDArray[np.uint8]:
    if len({frame.shape for frame in frames}) > 1:
        raise BadFrames(f"{path} holds frames of different sizes: {sorted({f.shape[1::-1] for f in frames})}")
    return np.stack(frames)


class _opened:
    """A container whose errors, at opening or at decoding, name the file."""

    def __init__(self, path: Path):
        self.path = path

    def __enter__(self):
        try:
            self.container = av.open(str(self.path), metadata_errors="ignore")
        except (av.FFmpegError, OSError) as error:
            raise BadFrames(f"{self.path} is not a readable video ({error.strerror or error})") from error
        if not self.container.streams.video:
            self.container.close()
            raise BadFrames(f"{self.path} holds no video stream")
        return self.container

    def __exit__(self, kind, error, trace):
        self.container.close()
        if isinstance(error, av.FFmpegError):
            raise BadFrames(f"{self.path} does not decode ({error.strerror or error}; truncated?)") from error


def _holds_frame(packet: av.Packet) -> bool:
    # one byte: the place holder that packed B-frames (Xvid) leave
    return packet.size > 1


def _frames_from(container, stream, index: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield numbered frames in the order shown, from a key frame at or before frame `index`."""
    times = []
    if index >= SEEK_FROM:
        times = sorted(p.pts for p in container.demux(stream) if _holds_frame(p) and p.pts is not None)
        if index < len(times):
            container.seek(times[index], stream=stream, backward=True)
            frames = container.decode(stream)
            first = next(frames, None)
            if first is not None and first.pts in times and times.index(first.pts) <= index:
                yield from enumerate(chain([first], frames), start=times.index(first.pts))
                return
        container.seek(0)
    yield from enumerate(container.decode(stream))
