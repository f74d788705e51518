"""Frames of one video, from wherever they are, as uint8 RGB: a folder of images, a video file, or the
SQLite frame store of Class Feature Pyramids."""

from __future__ import annotations

import io
import os
import re
import sqlite3
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from static_dynamic.errors import UserError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"}
# beyond these a file is taken for broken or hostile
MAX_PIXELS, MAX_FRAMES = 50_000_000, 500_000
# a folder that holds this file is a frame store
STORE_NAME = "frames.db"
# decoding this many frames costs less than a seek
SEEK_FROM = 32
# the last number of a name, whatever stands behind it: an ending, or other letters
NUMBER = re.compile(r"(\d+)\D*(?:\.[^.]*)?$")


# makes the array that frames are written to, as np.empty does
Room = Callable[[tuple[int, ...], type], NDArray]


class BadFrames(UserError):
    """A video that cannot be read: one input among many, which a run may skip."""


class Images(ABC):
    """Images in the order of the numbers in their names (any zero-padding)."""

    fps = None

    def __init__(self, path: Path):
        self.path = path

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """The names of the images, in order."""

    @abstractmethod
    def _decoded(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """The images at `indices`, one by one."""

    @cached_property
    def numbers(self) -> list[int]:
        """The number in the name of each frame, in order."""
        return [number(name) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int], room: Room = np.empty) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based positions): (n, H, W, 3) RGB."""
        if max(indices) >= len(self):
            raise BadFrames(f"{self.path} has {len(self)} frames, {max(indices) + 1} are needed")
        return _stack(list(self._decoded(indices)), self.path, room)


class FrameFolder(Images):
    """A folder of images."""

    @cached_property
    def names(self) -> list[str]:
        """The names of the images, in order."""
        try:
            with os.scandir(self.path) as entries:
                images = [entry.name for entry in entries if is_image(entry.name)]
        except OSError as error:
            raise BadFrames(f"{self.path} cannot be listed ({error.strerror})") from error
        return in_order(images, self.path)

    def _decoded(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return (read_image(self.path / self.names[i]) for i in indices)


class FrameStore(Images):
    """A folder with an SQLite file: table ``Images(ObjId, frames)``, key ``VIDEO/frame_%05d``, encoded
    images."""

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        file = self.path / STORE_NAME
        # read-only, and opened by the process that reads: a connection does not survive a fork
        uri = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                yield connection
        except sqlite3.Error as error:
            raise BadFrames(f"{file} is not a readable frame store ({error})") from error

    @cached_property
    def names(self) -> list[str]:
        """The keys of this video's frames, in order."""
        with self._connection() as connection:
            keys = connection.execute("SELECT ObjId FROM Images LIMIT ?", (MAX_FRAMES + 1,))
            names = [key for (key,) in keys if str(key).startswith(f"{self.path.name}/")]
        return in_order(names, self.path)

    def _decoded(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return (read_image(io.BytesIO(data), name) for name, data in self.encoded(indices))

    def encoded(self, indices: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        """Key and bytes, as stored, of the frames at `indices`."""
        with self._connection() as connection:
            for name in (self.names[i] for i in indices):
                query = "SELECT frames FROM Images WHERE ObjId = ?"
                (data,) = connection.execute(query, (name,)).fetchone()
                if not isinstance(data, bytes):
                    raise BadFrames(
                        f"{self.path / STORE_NAME}: {name} holds no bytes but {type(data).__name__}"
                    )
                yield f"{self.path / STORE_NAME}: {name}", data


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
            packets = filter(_holds_frame, container.demux(stream))
            count = header or sum(1 for _ in islice(packets, MAX_FRAMES + 1))
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

    def read(self, indices: Sequence[int], room: Room = np.empty) -> NDArray[np.uint8]:
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
        return _stack([found[i] for i in indices], self.path, room)

    def frames(self, start: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decode one by one: number and frame, from a key frame at or before `start`."""
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # workers are processes already
            yield from _frames_from(container, stream, start)


Frames = FrameFolder | FrameStore | VideoFile


def open_frames(path: Path) -> Frames:
    """Open a folder of images, a folder that holds a frame store, or a video file.

    Raises
    ------
    BadFrames
        Where there is none of them.
    """
    if path.is_dir():
        return FrameStore(path) if (path / STORE_NAME).is_file() else FrameFolder(path)
    if path.is_file():
        return VideoFile(path)
    raise BadFrames(f"{path} does not exist")


def is_image(name: str) -> bool:
    """Whether a file of that name is taken for a frame."""
    return name[-5:].lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def number(name: str) -> int:
    """The last number in a name, its ending aside: ``frame_00012.jpg`` -> 12; -1 where there is none."""
    found = NUMBER.search(name)
    return int(found[1]) if found else -1


def in_order(names: list[str], path: Path) -> list[str]:
    """Sort the names of frames by their numbers; refuse more of them than any video has."""
    if len(names) > MAX_FRAMES:
        raise BadFrames(f"{path} holds more than {MAX_FRAMES} frames: not read")
    return sorted(names, key=lambda name: (number(name), name))


def read_image(source: Path | io.BytesIO, name: str = "") -> NDArray[np.uint8]:
    """Decode one image, (H, W, 3) RGB; `name` is what an error calls it.

    Raises
    ------
    BadFrames
        What is no image, or claims to be too large.
    """
    name = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadFrames(f"{name} claims {image.width}x{image.height} pixels: not read")
                return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFrames(f"{name} is not a readable image ({error})") from error


def _stack(frames: list[NDArray], path: Path, room: Room) -> NDArray[np.uint8]:
    if len({frame.shape for frame in frames}) > 1:
        raise BadFrames(f"{path} holds frames of different sizes: {sorted({f.shape[1::-1] for f in frames})}")
    return np.stack(frames, out=room((len(frames), *frames[0].shape), np.uint8))


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
