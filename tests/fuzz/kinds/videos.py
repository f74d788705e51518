"""Mutants of video files in several containers and codecs, of images, and of frame stores."""

import hashlib
import sqlite3
import tempfile
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

from static_dynamic.datasets.discovery import video_info
from static_dynamic.datasets.frames import open_frames
from tests.conftest import moving_square
from tests.fuzz.mutations import MUTATIONS
from tests.fuzz.registry import Trial, fuzzer

# File name of each video -> its codec.
VIDEOS = {"a.mp4": "libx264", "b.mkv": "libx264", "c.avi": "mpeg4", "d.webm": "libvpx-vp9", "e.mov": "mjpeg"}
PICTURES = ("jpg", "png")
FRAMES = 40  # seeks begin at frame 32
SIDE = 32


@fuzzer
def videos(rng: np.random.Generator, folder: Path) -> tuple[str, Trial]:
    """Mutate a video file. Codecs have no checksums, so other pixels are no fault if nothing was noticed."""
    name = list(VIDEOS)[rng.integers(len(VIDEOS))]
    mutations = {**MUTATIONS, "reordered blocks": reorder}
    what = list(mutations)[rng.integers(len(mutations))]
    path = folder / name
    path.write_bytes(mutations[what](rng, encoded()[name]))
    original = whole(name)
    return f"{what}: {name}", lambda: trial(path, original)


@fuzzer
def pictures(rng: np.random.Generator, folder: Path) -> tuple[str, Trial]:
    """Mutate an image in a folder of frames, or a frame store."""
    kind = (*PICTURES, "frames.db")[rng.integers(3)]
    what = list(MUTATIONS)[rng.integers(len(MUTATIONS))]
    path, original = folder / "v", whole(kind)
    path.mkdir()
    if kind == "frames.db":
        (path / kind).write_bytes(MUTATIONS[what](rng, store()))
    else:
        for k, data in enumerate(images(kind)):
            (path / f"{k:06d}.{kind}").write_bytes(data if k != 1 else MUTATIONS[what](rng, data))
    return f"{what}: {kind}", lambda: trial(path, original)


def reorder(rng: np.random.Generator, data: bytes) -> bytes:
    """Exchange two of the file's blocks of equal size."""
    size = len(data) // int(rng.integers(8, 65))
    blocks = [data[i : i + size] for i in range(0, len(data), size)]
    first, second = rng.choice(len(blocks), 2, replace=False)
    blocks[first], blocks[second] = blocks[second], blocks[first]
    return b"".join(blocks)


def trial(path: Path, original: str) -> str:
    """Inspect and read a video as a run does; compare the pixels with those of the original."""
    info = video_info(path)
    assert 0 <= info.length <= 500_000 and str(info.fault).isprintable()
    frames = open_frames(path)
    indices = list(range(min(len(frames), FRAMES)))
    if not indices:
        return "no frames"
    pixels = frames.read(indices)
    last = open_frames(path).read(indices[-5:])
    # The mjpeg decoder leaves parts of earlier frames in a damaged frame, and does not report the damage.
    equal = path.suffix == ".mov" or np.array_equal(last, pixels[-5:])
    assert equal, "a seek gives other frames than decoding from the start"
    return "same numbers" if digest(pixels) == original else "other numbers"


def digest(pixels: np.ndarray) -> str:
    return f"{pixels.shape} {hashlib.sha256(pixels.tobytes()).hexdigest()}"


@cache
def whole(name: str) -> str:
    """Return the digest of the pixels of an original."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-video-"))
    if name in VIDEOS:
        path = folder / name
        path.write_bytes(encoded()[name])
    else:
        path = folder / "v"
        path.mkdir()
        if name == "frames.db":
            (path / name).write_bytes(store())
        else:
            for k, data in enumerate(images(name)):
                (path / f"{k:06d}.{name}").write_bytes(data)
    frames = open_frames(path)
    return digest(frames.read(list(range(len(frames)))))


@cache
def encoded() -> dict[str, bytes]:
    """Return the original video files."""
    frames = moving_square(0, n=FRAMES, side=SIDE)
    folder = Path(tempfile.mkdtemp(prefix="fuzz-video-"))
    for name, codec in VIDEOS.items():
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.gop_size = 12
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    return {name: (folder / name).read_bytes() for name in VIDEOS}


@cache
def images(kind: str) -> list[bytes]:
    """Return three encoded frames."""
    return [cv2.imencode(f".{kind}", frame)[1].tobytes() for frame in moving_square(0, n=3, side=SIDE)]


@cache
def store() -> bytes:
    """Return the content of a frame store of three frames."""
    file = Path(tempfile.mkdtemp(prefix="fuzz-video-")) / "frames.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE Images (ObjId TEXT PRIMARY KEY, frames BLOB)")
        rows = [(f"v/frame_{k:05d}", data) for k, data in enumerate(images("jpg"), start=1)]
        connection.executemany("INSERT INTO Images VALUES (?, ?)", rows)
    return file.read_bytes()
