"""Read the frames of one video as uint8 RGB, from a folder of images, a video file, or an SQLite frame store
(the format of the Class Feature Pyramids code)."""

import io
import os
import re
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from .numbering import frame_numbers, is_image
from .pixels import MAX_FRAMES, Allocate, BadFrames, read_image, stack
from .videos import VideoFile

VIDEO_SUFFIXES = set(
    ".3gp .avi .flv .gif .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)
# A folder that holds a file of this name is a frame store: an SQLite database of encoded images.
STORE_NAME = "frames.db"
# Largest accepted size of an encoded image in a frame store, in bytes.
MAX_BYTES = 2**28
# Matches the SQL definition of a virtual table or of a table with computed columns.
COMPUTED = re.compile(r"\bVIRTUAL\b|\bGENERATED\b|\bAS\s*\(", re.IGNORECASE)


class ImageSequence(ABC):
    """Encoded images of one video, ordered by the frame number in each image name."""

    fps = None
    times = None
    notes = ()

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
        return frame_numbers(self.names, self.path)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, indices: Sequence[int], allocate: Allocate = np.empty) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based positions) to an RGB array (n, H, W, 3)."""
        if max(indices) >= len(self):
            raise BadFrames(f"{self.path} has {len(self)} frames, but {max(indices) + 1} are needed")
        return stack(list(self._decoded(indices)), self.path, allocate)


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
    """A folder with an SQLite file, whose table ``Images(ObjId, frames)`` holds one encoded image per row.
    ``ObjId`` is ``VIDEO/frame_%05d``."""

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        file = self.path / STORE_NAME
        # The file is reopened for each read, because an SQLite connection must not be used after a fork.
        uri = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                connection.execute("PRAGMA trusted_schema = OFF")
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_BYTES)
                # Only ordinary tables are read, because reading views or computed columns may never end.
                query = (
                    "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'Images' COLLATE NOCASE"
                )
                found = connection.execute(query).fetchone()
                if not found or COMPUTED.search(str(found[0])):
                    raise BadFrames(
                        f"{file} has no ordinary table Images: make the file with misc/make_frames_db.py"
                    )
                yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # a frame name that is not UTF-8 raises UnicodeDecodeError
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
        """Yield (frame name for error messages, encoded image) of each frame at `indices`."""
        file = self.path / STORE_NAME
        with self._connection() as connection:
            for name in (self.names[i] for i in indices):
                query = "SELECT frames FROM Images WHERE ObjId = ?"
                # If the table's index is damaged, the query finds no row, although `names` lists one.
                (data,) = connection.execute(query, (name,)).fetchone() or (None,)
                if not isinstance(data, bytes):
                    raise BadFrames(f"{file}: frame {name} holds {type(data).__name__}, not bytes")
                yield f"{file}: {name}", data


Frames = FrameFolder | FrameStore | VideoFile


def open_frames(path: Path) -> Frames:
    """Open a folder of images, a frame store or a video file; raise BadFrames if `path` does not exist."""
    if path.is_dir():
        return FrameStore(path) if (path / STORE_NAME).is_file() else FrameFolder(path)
    if path.is_file():
        return VideoFile(path)
    raise BadFrames(f"{path} does not exist")


def in_order(names: list[str], path: Path) -> list[str]:
    """Sort frame names by frame number; raise BadFrames for more than `MAX_FRAMES` names."""
    if len(names) > MAX_FRAMES:
        raise BadFrames(f"{path} holds more than {MAX_FRAMES} frames: too large")
    return [name for _, name in sorted(zip(frame_numbers(names, path), names, strict=True))]
