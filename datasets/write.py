"""Frames to disk: folders of images named as a data set names them, and SQLite frame stores; whole or not at
all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.datasets.frames import STORE_NAME, BadFrames, FrameFolder, Frames, FrameStore, open_frames
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, temporary_folder

# frames of a video that are in memory at a time
AT_A_TIME = 64


def in_threads(work: Callable, items: Sequence, workers: int | None, desc: str, unit: str) -> list:
    """Do a piece of work for every item, several at a time, under a progress bar; return what came of each.

    They are threads, since decoders and OpenCV let go of the lock, and OpenCV's own would not survive a fork.
    `workers` None: one a core.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            return list(tqdm(pool.map(work, items), total=len(items), desc=desc, unit=unit))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # whoever stops the command does not wait for the rest
            raise


def resample(count: int, fps: float, to_fps: float) -> NDArray[np.int64]:
    """Which of `count` frames at rate `fps` make a video at `to_fps`: the last one before each moment."""
    return (np.arange(max(1, int(count * to_fps / fps))) * (fps / to_fps)).astype(np.int64)


def read_in_parts(frames: Frames, indices: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
    """Decode frames one by one, a few at a time in memory."""
    indices = [int(i) for i in indices]
    for start in range(0, len(indices), AT_A_TIME):
        yield from frames.read(indices[start : start + AT_A_TIME])


def encode(frame: NDArray[np.uint8], suffix: str, quality: int = 95) -> bytes:
    """An RGB frame (H, W, 3) as the bytes of an image file; `quality` is of jpg."""
    done, data = cv2.imencode(
        suffix, np.ascontiguousarray(frame[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not done:
        raise UserError(f"a frame of {frame.shape[1]}x{frame.shape[0]} cannot be written as {suffix}")
    return data.tobytes()


def fit(frame: NDArray[np.uint8], short_side: int | None) -> NDArray[np.uint8]:
    """Scale a frame down to a short side; one that is small already stays."""
    if short_side is None or min(frame.shape[:2]) <= short_side:
        return frame
    factor = short_side / min(frame.shape[:2])
    height, width = (max(1, round(side * factor)) for side in frame.shape[:2])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def frame_name(pattern: str, number: int) -> str:
    """Name of a frame by a pattern such as ``image_%05d.jpg``.

    Raises
    ------
    UserError
        A pattern without a place for the number, or one that names a folder.
    """
    try:
        name = pattern % number
    except (TypeError, ValueError) as error:
        raise UserError(f"{pattern!r} is no pattern for frame names, such as %06d.jpg ({error})") from error
    if "/" in name or Path(name).suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"{pattern!r} is no pattern for frame names, such as %06d.jpg or image_%05d.png")
    return name


def write_folder(frames: Iterable[NDArray], folder: Path, pattern: str, first: int, quality: int = 95) -> int:
    """Write frames as ``folder/PATTERN``, numbered from `first`; return how many."""
    count = 0
    with whole_folder(folder) as temporary:
        for count, frame in enumerate(frames, start=1):
            name = frame_name(pattern, first + count - 1)
            (temporary / name).write_bytes(encode(frame, Path(name).suffix, quality))
    return count


def write_store(source: Path, folder: Path, first: int = 1) -> int:
    """Put the frames of a video into ``folder/frames.db``; return how many.

    Images are stored as they are, those of a video file as png: nothing is lost.
    """
    frames = open_frames(source)
    if not len(frames):
        raise BadFrames(f"{source} holds no frames")
    with atomic_path(folder / STORE_NAME) as temporary, closing(sqlite3.connect(temporary)) as connection:
        connection.execute("CREATE TABLE Images (ObjId TEXT PRIMARY KEY, frames BLOB NOT NULL)")
        keys = (f"{folder.name}/frame_{first + i:05d}" for i in range(len(frames)))
        connection.executemany("INSERT INTO Images VALUES (?, ?)", zip(keys, encoded(frames), strict=True))
        connection.commit()
    return len(frames)


def encoded(frames: Frames) -> Iterator[bytes]:
    """The images of a video as they are stored; those of a video file as png."""
    if isinstance(frames, FrameFolder):
        yield from ((frames.path / name).read_bytes() for name in frames.names)
    elif isinstance(frames, FrameStore):
        yield from (data for _, data in frames.encoded(range(len(frames))))
    else:
        yield from (encode(frame.to_ndarray(format="rgb24"), ".png") for _, frame in frames.frames())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which takes the name `folder` on a clean exit.

    Raises
    ------
    UserError
        Where `folder` is there already.
    """
    if folder.exists():
        raise UserError(f"{folder} is there already: remove it, or write to another place")
    with temporary_folder(folder) as room:
        new = room / "new"
        new.mkdir()
        yield new
        new.rename(folder)
