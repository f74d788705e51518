"""Read the input videos of the stylization commands a few frames at a time, and write output images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from static_dynamic.datasets.discovery import find_video, list_videos
from static_dynamic.datasets.frames import BadFrames, FrameFolder, Frames, VideoFile, open_frames
from static_dynamic.datasets.write import encode
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path
from static_dynamic.stylize.flow import Frame

JPEG_QUALITY = 95
# CHUNK: number of frames that are decoded together
CHUNK = 16


@dataclass(frozen=True)
class Video:
    """Input video: its frames and its name ('' if the input path is the video itself)."""

    name: str
    frames: Frames

    @property
    def stems(self) -> list[str]:
        """Frame names: file names without suffix, or 00001, 00002, ... for the frames of a video file."""
        if isinstance(self.frames, VideoFile):
            return [f"{i:05d}" for i in range(1, len(self.frames) + 1)]
        stems = [Path(name).stem for name in self.frames.names]
        if len(set(stems)) < len(stems):
            raise BadFrames(f"{self.frames.path} holds images that differ only in suffix: remove duplicates")
        return stems

    def read(self, indices: Iterable[int]) -> Iterator[tuple[int, Frame]]:
        """Decode the frames at `indices` in order, `CHUNK` frames at a time; yield (index, frame)."""
        size, waiting = None, iter(indices)
        while chunk := list(islice(waiting, CHUNK)):
            for i, frame in zip(chunk, self.frames.read(chunk), strict=True):
                if frame.shape != (size := size or frame.shape):
                    raise BadFrames(
                        f"{self.frames.path} holds frames of different sizes (see frame {i + 1}): "
                        "scale the frames to one size"
                    )
                yield i, frame

    def neighbours(self, indices: Iterable[int], step: int) -> Iterator[tuple[int, Frame, Frame]]:
        """Yield the tuple (t, frame t, frame t + step) for each t in `indices`; decode each frame once.

        The order of `indices` is the direction of `step`: ascending for +1, descending for -1.
        """
        wanted = dict.fromkeys(indices)
        previous: Frame | None = None
        for i, frame in self.read(dict.fromkeys(i for t in wanted for i in (t, t + step))):
            if i - step in wanted:
                assert previous is not None, "frame t is read directly before frame t + step"
                yield i - step, previous, frame
            previous = frame


def find_videos(path: Path) -> list[Video]:
    """Find the videos at a path: a folder of frames, a video file, or a folder that holds several videos.

    Raises UserError if there is no video, or a video has fewer than two frames.
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
            raise UserError(f"{video.frames.path} has {len(video.frames)} frames, but at least 2 are needed")
    return videos


def write_image(path: Path, image: Frame) -> None:
    """Write an RGB image atomically; the suffix of `path` chooses the file format."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode(image, path.suffix, JPEG_QUALITY))
