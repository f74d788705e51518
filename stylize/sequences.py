"""Videos of the temporal tools: frames in any order, a few in memory at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from static_dynamic.datasets.discovery import find_video, list_videos
from static_dynamic.datasets.frames import BadFrames, FrameFolder, Frames, VideoFile, open_frames
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
CHUNK = 16  # frames decoded at once


@dataclass(frozen=True)
class Video:
    """One video of the input: its name ('' where the input is it), its frames and their names."""

    name: str
    frames: Frames

    @property
    def stems(self) -> list[str]:
        """File names of the frames without ending; of a video file: 00001, 00002, ..."""
        if isinstance(self.frames, VideoFile):
            return [f"{i:05d}" for i in range(1, len(self.frames) + 1)]
        stems = [Path(name).stem for name in self.frames.names]
        if len(set(stems)) < len(stems):
            raise BadFrames(f"{self.frames.path} holds two images of one name: keep one of them")
        return stems

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, Frame]]:
        """Decode the frames at `indices`, in their order, a few at a time."""
        size, waiting = None, iter(indices)
        while chunk := list(islice(waiting, CHUNK)):
            for i, frame in zip(chunk, self.frames.read(chunk), strict=True):
                if frame.shape != (size := size or frame.shape):
                    raise BadFrames(f"{self.frames.path} holds frames of different sizes (frame {i + 1})")
                yield i, frame

    def neighbours(self, indices: Iterable[int], step: int) -> Iterator[tuple[int, Frame, Frame]]:
        """Each frame t of `indices` (in the order of `step`) with frame t + step; each is decoded once."""
        wanted = dict.fromkeys(indices)
        previous = None
        for i, frame in self.read(dict.fromkeys(i for t in wanted for i in (t, t + step))):
            if i - step in wanted:
                yield i - step, previous, frame
            previous = frame


def find_videos(path: Path) -> list[Video]:
    """The videos at a path.

    Raises
    ------
    UserError
        Where there is none, or a video has fewer than two frames.
    """
    frames = open_frames(path)
    if isinstance(frames, FrameFolder) and not frames.names:
        names = dict.fromkeys(list_videos(path))
        videos = [Video(name, open_frames(find_video(path, name))) for name in names]
    else:
        videos = [Video("", frames)]
    if not videos:
        raise UserError(f"--input {path} holds neither images nor videos")
    for video in videos:
        if len(video.frames) < 2:
            raise UserError(f"{video.frames.path} has {len(video.frames)} frames: two are needed at least")
    return videos


def write_png(path: Path, image: Frame) -> None:
    """Write an RGB image, whole or not at all."""
    data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
