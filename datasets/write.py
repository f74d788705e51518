"""Write frames to disk as folders of images or SQLite frame stores; both appear only when complete."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path, temporary_folder

from .frames import STORE_NAME, BadFrames, FrameFolder, Frames, FrameStore, open_frames

# Number of frames of one video that are held in memory at a time.
CHUNK = 64


def in_threads(work: Callable, items: Sequence, workers: int | None, desc: str, unit: str) -> list:
    """Return ``[work(item) for item in items]``, computed by `workers` threads (None: one per core).

    Threads suffice, because the decoders and OpenCV release the interpreter lock. Processes would have to be
    forked, which OpenCV's threads do not survive. `desc` and `unit` label the progress bar.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            return list(tqdm(pool.map(work, items), total=len(items), desc=desc, unit=unit))
        except BaseException:
            # after an error or interrupt, work on no further item
            pool.shutdown(cancel_futures=True)
            raise


def read_in_parts(frames: Frames, indices: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames at `indices` one by one; decode `CHUNK` frames at a time, to limit memory."""
    indices = [int(i) for i in indices]
    for start in range(0, len(indices), CHUNK):
        yield from frames.read(indices[start : start + CHUNK])


def encode(frame: NDArray, suffix: str, quality: int = 95) -> bytes:
    """Encode an RGB frame (H, W, 3) in the image format of `suffix`; `quality` applies only to jpg."""
    # The quality is set only for jpg, because OpenCV prints a warning if it is set for another format.
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in (".jpg", ".jpeg") else []
    done, data = cv2.imencode(suffix, np.ascontiguousarray(frame[..., ::-1]), settings)
    if not done:
        raise UserError(f"a frame of {frame.shape[1]}x{frame.shape[0]} cannot be written as {suffix}")
    return data.tobytes()


def fit(frame: NDArray, short_side: int | None) -> NDArray:
    """Scale a frame down so that its short side is `short_side`; return a smaller frame unchanged."""
    if short_side is None or min(frame.shape[:2]) <= short_side:
        return frame
    factor = short_side / min(frame.shape[:2])
    height, width = (max(1, round(side * factor)) for side in frame.shape[:2])
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def frame_name(pattern: str, number: int) -> str:
    """Return the file name of the frame `number`, made from a pattern such as ``image_%05d.jpg``.

    Raises UserError if the pattern has no field for the number, contains a folder, or has no image suffix.
    """
    try:
        name = pattern % number
    except (TypeError, ValueError) as error:
        raise UserError(f"{pattern!r} is not a frame name pattern such as %06d.jpg ({error})") from error
    if "/" in name or Path(name).suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UserError(f"{pattern!r} is not a frame name pattern such as %06d.jpg or image_%05d.png")
    return name


def write_folder(frames: Iterable[NDArray], folder: Path, pattern: str, first: int, quality: int = 95) -> int:
    """Write frames to `folder`, with file names made from `pattern`; return the number of frames.

    The first frame has the number `first`. The folder appears when all frames are written.

    Raises UserError if the folder exists already.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: remove this folder, or give another folder")
    count = 0
    with temporary_folder(folder) as temporary:
        new = temporary / "new"
        new.mkdir()
        for count, frame in enumerate(frames, start=1):
            name = frame_name(pattern, first + count - 1)
            (new / name).write_bytes(encode(frame, Path(name).suffix, quality))
        new.rename(folder)
    return count


def write_store(source: Path, folder: Path, first: int = 1) -> int:
    """Write the frames of a video to the frame store ``folder/frames.db``; return the number of frames.

    Image files are copied byte by byte. Frames of a video file are stored as png, without loss.
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
    """Yield a video's frames as encoded images: image files unchanged, frames of a video file as png."""
    if isinstance(frames, FrameFolder):
        yield from ((frames.path / name).read_bytes() for name in frames.names)
    elif isinstance(frames, FrameStore):
        yield from (data for _, data in frames.encoded(range(len(frames))))
    else:
        yield from (encode(frame, ".png") for frame in frames.frames())
