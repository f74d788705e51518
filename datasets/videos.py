"""Read frames of a video file by number; numbers count the frames that decoding the whole file gives.

If the packets of a file do not announce its frames correctly, frames are counted by decoding the whole file,
and positions are reached by decoding from the start.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .packets import decoded, examined, index_is_complete, open_container, seek, survey
from .pixels import MAX_FRAMES, MAX_PIXELS, Allocate, BadFrames, stack

# A frame before this index is reached by decoding from the start, which is cheaper than a seek.
SEEK_FROM = 32
# File formats in which a seek to a key frame goes to exactly this frame.
EXACT_SEEK = ("mov", "matroska", "avi")


@dataclass(frozen=True)
class Header:
    """Properties of a video file that are known without decoding more than its first frame."""

    # Time of each frame in seconds, according to the packets; the first frame is at 0.
    seconds: NDArray[np.float64]
    # Average frame rate; None if the file stores no frame rate.
    fps: float | None
    # Whether the packets give the number and the times of the frames correctly.
    trusted: bool
    # Counterclockwise angle in degrees that turns the frames upright.
    rotation: int
    # Whether pixels are square.
    square: bool


class VideoFile:
    """A video file; one thread decodes it, starting at the last key frame before the first wanted frame."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def header(self) -> Header:
        """Frame times, frame rate and shape of the video, according to the packets and the first frame."""
        with open_container(self.path) as (container, stream):
            # If the index of an mp4 file has evenly spaced decoding times, they serve as the frame times.
            # The index has no presentation times: if the decoding times are uneven, all packets are read.
            entries = stream.index_entries if index_is_complete(container, self.path) else ()
            times = [entry.timestamp for entry in entries if not entry.is_discard]
            even = len(set(np.diff(times))) == 1
            packets, trusted, first = survey(container, stream, to_end=not even)
            if not even:
                times = sorted(time for time, _, shown in packets if shown and time is not None)
            count = max(len(times), stream.frames)
            if stream.width * stream.height > MAX_PIXELS or count > MAX_FRAMES:
                raise BadFrames(
                    f"{self.path} claims {count} frames of {stream.width}x{stream.height}: too large"
                )
            return Header(
                seconds=(np.asarray(times) - min(times, default=0)) * float(stream.time_base or 0),
                fps=float(stream.average_rate or stream.guessed_rate or 0) or None,
                trusted=trusted,
                rotation=first.rotation if first else 0,
                square=(stream.sample_aspect_ratio or 1) == 1,
            )

    @cached_property
    def _decoded_seconds(self) -> NDArray[np.float64]:
        seconds = np.array([np.nan if f.time is None else f.time for _, f, _ in self._all_frames()])
        return seconds - seconds[:1]

    @cached_property
    def times(self) -> NDArray[np.float64] | None:
        """Time of each frame in seconds, beginning at 0; None if the frame rate is constant.

        A frame rate is constant if no frame is shown a whole frame before or after its time at this rate.
        """
        seconds = self.header.seconds if self.header.trusted else self._decoded_seconds
        if not self.header.fps or not (np.diff(seconds) > 0).all():
            return None
        late = seconds * self.header.fps - np.arange(len(seconds))
        return seconds if len(late) > 1 and np.abs(late).max() > 1 else None

    @property
    def fps(self) -> float | None:
        """Average number of frames per second; None if the file stores no frame rate."""
        return self.header.fps if self.times is None else (len(self) - 1) / float(self.times[-1])

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about unusual properties of the file, and how the program handles these properties."""
        found = {
            "the file announces wrong frames: frames are counted by decoding": not self.header.trusted,
            "the frame rate varies: the times of the frames are used": self.times is not None,
            "frames are turned upright, as the file says": self.header.rotation != 0,
            "pixels are not square: frames are used with the stored number of pixels": not self.header.square,
        }
        return tuple(note for note, applies in found.items() if applies)

    def __len__(self) -> int:
        return len(self.header.seconds if self.header.trusted else self._decoded_seconds)

    def read(self, indices: Sequence[int], allocate: Allocate = np.empty) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based, in display order) to an RGB array (n, H, W, 3).

        Raises BadFrames if there are too few frames, or one of the frames is damaged.
        """
        wanted, found, last = set(indices), {}, -1
        # one object for all frames, because it is slow to set up
        to_rgb = VideoReformatter()
        for last, frame, damaged in self._frames(min(wanted)):
            if last in wanted:
                found[last] = self._pixels(last, frame, damaged, to_rgb)
            if last >= max(wanted):
                break
        if len(found) < len(wanted):
            raise BadFrames(
                f"{self.path} ends after {last + 1} frames, but {max(wanted) + 1} are needed "
                "(is the file truncated?)"
            )
        return stack([found[i] for i in indices], self.path, allocate)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all frames (H, W, 3), one by one; raise BadFrames at the first damaged frame."""
        to_rgb = VideoReformatter()
        return (self._pixels(*item, to_rgb) for item in self._frames(0))

    def _pixels(
        self, index: int, frame: av.VideoFrame, damaged: bool, to_rgb: VideoReformatter
    ) -> NDArray[np.uint8]:
        """Convert a frame to an upright RGB array; raise BadFrames if the frame is damaged."""
        if damaged:
            raise BadFrames(f"{self.path}: frame {index} is damaged (the decoder reports errors in its data)")
        pixels: NDArray[Any] = to_rgb.reformat(frame, format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90)) if frame.rotation else pixels

    def _frames(self, start: int) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """Yield (index, frame, whether it is damaged) in display order; begin at index `start` or earlier."""
        following = 0
        with open_container(self.path) as (container, stream):
            far = start >= SEEK_FROM and container.format.name.startswith(EXACT_SEEK)
            times = seek(container, stream, start) if far else []
            for index, frame, agrees, damaged in examined(decoded(container.demux(stream), times)):
                if not agrees or index > max(start, following):
                    break
                yield index, frame, damaged
                following = index + 1
            else:
                if following:
                    return
        if self.header.trusted and (decodable := len(self._decoded_seconds)) != len(self):
            raise BadFrames(f"{self.path} is damaged: {decodable} of {len(self)} frames can be decoded")
        yield from islice(self._all_frames(), following, None)

    def _all_frames(self) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        with open_container(self.path) as (container, stream):
            frames = examined(decoded(container.demux(stream)))
            yield from ((index, frame, damaged) for index, frame, _, damaged in frames)
