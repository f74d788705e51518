"""Read the frames of one video as uint8 RGB, from a folder of images, a video file, or an SQLite frame store
(the format of the Class Feature Pyramids code)."""

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
# An image of more than MAX_PIXELS pixels, or a video of more than MAX_FRAMES frames, raises BadFrames.
MAX_PIXELS, MAX_FRAMES = 50_000_000, 500_000
# A folder that holds a file of this name is a frame store, an SQLite database of images.
STORE_NAME = "frames.db"
# A frame before this index is reached by decoding from the start, which is cheaper than a seek.
SEEK_FROM = 32
# Matches the last number of a file name; letters and the suffix may follow the number.
NUMBER = re.compile(r"(\d+)\D*(?:\.[^.]*)?$")

# A function of this type allocates an output array from a shape and a dtype, as np.empty does.
Allocate = Callable[[tuple[int, ...], type], NDArray]


class BadFrames(UserError):
    """Exception for a video that cannot be read. A run may skip the video and go on with the next one."""


class ImageSequence(ABC):
    """Encoded images of one video, ordered by the frame number in each image name."""

    fps = None

    def __init__(self, path: Path):
        self.path = path

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Names of the images, sorted by frame number."""

    @abstractmethod
    def _decoded(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """Yield the decoded images at `indices`, one by one."""

    @cached_property
    def numbers(self) -> list[int]:
        """Frame numbers in the image names, in ascending order."""
        return [number(name) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int], allocate: Allocate = np.empty) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based positions) to an RGB array (n, H, W, 3)."""
        if max(indices) >= len(self):
            raise BadFrames(f"{self.path} has {len(self)} frames, {max(indices) + 1} are needed")
        return _stack(list(self._decoded(indices)), self.path, allocate)


class FrameFolder(ImageSequence):
    """A folder that holds the images of one video."""

    @cached_property
    def names(self) -> list[str]:
        """Names of the images, sorted by frame number."""
        try:
            with os.scandir(self.path) as entries:
                images = [entry.name for entry in entries if is_image(entry.name)]
        except OSError as error:
            raise BadFrames(f"{self.path} cannot be listed ({error.strerror})") from error
        return in_order(images, self.path)

    def _decoded(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return (read_image(self.path / self.names[i]) for i in indices)


class FrameStore(ImageSequence):
    """A folder with an SQLite file of encoded images. Its table ``Images(ObjId, frames)`` has the keys
    ``VIDEO/frame_%05d`` in ``ObjId``."""

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        file = self.path / STORE_NAME
        # The file is opened anew for each read, because an SQLite connection must not be used after a fork.
        uri = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                yield connection
        except sqlite3.Error as error:
            raise BadFrames(f"{file} is not a readable frame store ({error})") from error

    @cached_property
    def names(self) -> list[str]:
        """Database keys of the frames, sorted by frame number."""
        with self._connection() as connection:
            keys = connection.execute("SELECT ObjId FROM Images LIMIT ?", (MAX_FRAMES + 1,))
            names = [key for (key,) in keys if str(key).startswith(f"{self.path.name}/")]
        return in_order(names, self.path)

    def _decoded(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return (read_image(io.BytesIO(data), name) for name, data in self.encoded(indices))

    def encoded(self, indices: Sequence[int]) -> Iterator[tuple[str, bytes]]:
        """Yield (frame name for error messages, encoded image) for each frame at `indices`."""
        file = self.path / STORE_NAME
        with self._connection() as connection:
            for name in (self.names[i] for i in indices):
                query = "SELECT frames FROM Images WHERE ObjId = ?"
                (data,) = connection.execute(query, (name,)).fetchone()
                if not isinstance(data, bytes):
                    raise BadFrames(f"{file}: {name} holds {type(data).__name__}, not bytes")
                yield f"{file}: {name}", data


class VideoFile:
    """A video file, decoded by one thread from the key frame before the first requested frame."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def _header(self) -> tuple[int, float | None]:
        with _open_container(self.path) as container:
            stream = container.streams.video[0]
            # The frame count in an AVI header includes empty placeholder packets, so packets are counted.
            header = 0 if container.format.name == "avi" else stream.frames
            packets = filter(_holds_frame, container.demux(stream))
            count = header or sum(1 for _ in islice(packets, MAX_FRAMES + 1))
            if stream.width * stream.height > MAX_PIXELS or count > MAX_FRAMES:
                size = f"{stream.width}x{stream.height}"
                raise BadFrames(f"{self.path} claims {count} frames of {size}: too large")
            return count, float(stream.average_rate) if stream.average_rate else None

    @property
    def fps(self) -> float | None:
        """Frames per second as stored in the file; None if the file stores no frame rate."""
        return self._header[1]

    def __len__(self) -> int:
        return self._header[0]

    def read(self, indices: Sequence[int], allocate: Allocate = np.empty) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based, in display order) to an RGB array (n, H, W, 3)."""
        wanted, found, last = set(indices), {}, -1
        for last, frame in self.frames(min(wanted)):
            if last in wanted:
                found[last] = frame.to_ndarray(format="rgb24")
            if last >= max(wanted):
                break
        if len(found) < len(wanted):
            raise BadFrames(
                f"{self.path} ends after {last + 1} frames, but {max(wanted) + 1} are needed "
                "(is the file truncated?)"
            )
        return _stack([found[i] for i in indices], self.path, allocate)

    def frames(self, start: int = 0) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield (index, decoded frame) one by one; begin with a key frame at or before index `start`."""
        with _open_container(self.path) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1  # one decoding thread, because worker processes run in parallel
            yield from _frames_from(container, stream, start)


Frames = FrameFolder | FrameStore | VideoFile


def open_frames(path: Path) -> Frames:
    """Open a folder of images, a frame store or a video file; raise BadFrames if `path` does not exist."""
    if path.is_dir():
        return FrameStore(path) if (path / STORE_NAME).is_file() else FrameFolder(path)
    if path.is_file():
        return VideoFile(path)
    raise BadFrames(f"{path} does not exist")


def is_image(name: str) -> bool:
    """Return whether a file name has a known image suffix and is not hidden."""
    return name[-5:].lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def number(name: str) -> int:
    """Return the last number in a file name without suffix (``frame_00012.jpg``: 12), -1 if there is none."""
    found = NUMBER.search(name)
    return int(found[1]) if found else -1


def in_order(names: list[str], path: Path) -> list[str]:
    """Sort frame names by frame number; raise BadFrames for more than `MAX_FRAMES` names."""
    if len(names) > MAX_FRAMES:
        raise BadFrames(f"{path} holds more than {MAX_FRAMES} frames: too large")
    return sorted(names, key=lambda name: (number(name), name))


def read_image(source: Path | io.BytesIO, name: str = "") -> NDArray[np.uint8]:
    """Decode one image to an RGB array (H, W, 3); `name` stands for the image in error messages.

    Raises BadFrames if the data is not an image, or has more than `MAX_PIXELS` pixels.
    """
    name = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadFrames(f"{name} claims {image.width}x{image.height} pixels: too large")
                return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFrames(f"{name} is not a readable image ({error})") from error


def _stack(frames: list[NDArray], path: Path, allocate: Allocate) -> NDArray[np.uint8]:
    if len({frame.shape for frame in frames}) > 1:
        raise BadFrames(f"{path} holds frames of different sizes: {sorted({f.shape[1::-1] for f in frames})}")
    return np.stack(frames, out=allocate((len(frames), *frames[0].shape), np.uint8))


@contextmanager
def _open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a video file in a ``with`` block; an error while opening or decoding becomes BadFrames."""
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise BadFrames(f"{path} is not a readable video ({error.strerror or error})") from error
    with container:
        if not container.streams.video:
            raise BadFrames(f"{path} holds no video stream")
        try:
            yield container
        except av.FFmpegError as error:
            reason = f"{error.strerror or error}; is the file truncated?"
            raise BadFrames(f"{path} cannot be decoded ({reason})") from error


def _holds_frame(packet: av.Packet) -> bool:
    # Videos with packed B-frames (Xvid) contain one-byte placeholder packets, which hold no frame.
    return packet.size > 1


def _frames_from(container, stream, index: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield (index, frame) in display order; begin with a key frame at or before frame `index`."""
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
