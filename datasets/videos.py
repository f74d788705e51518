"""Read the frames of a video file by position: the frames that decoding the whole file gives, in that order.

The packets of a file announce the number and the times of its frames without decoding. `_survey` decides
whether these announcements can be trusted; if not, frames are counted by decoding the whole file. Decoding
checks that each frame has the earliest time of the announced frames that are not yet decoded. If a frame has
another time, positions taken from packets are wrong, and decoding starts over at the first packet.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from .pixels import MAX_FRAMES, MAX_PIXELS, Allocate, BadFrames, stack

# A frame before this index is reached by decoding from the start, which is cheaper than a seek.
SEEK_FROM = 32
# File formats in which a seek to a key frame goes to exactly this frame.
EXACT_SEEK = ("mov", "matroska", "avi")
# The first boxes of an mp4 file; a fragmented file has a box `moof` among them.
FIRST_BOXES = 16
# Number of frames in a row that are held back at most, see `_examined`.
MAX_B_FRAMES = 16
# A time before all frames.
BEGINNING = -(1 << 63)


@dataclass(frozen=True)
class Header:
    """Properties of a video file that are known without decoding more than its first frame."""

    count: int  # number of frames that the packets announce
    fps: float | None  # average frame rate; None if the file stores no frame rate
    trusted: bool  # whether the packets announce the frames correctly


class VideoFile:
    """A video file, decoded by one thread from the key frame before the first requested frame."""

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def header(self) -> Header:
        """Number of frames and frame rate according to the packets of the file."""
        with _open_container(self.path) as (container, stream):
            # The index of an mp4 file lists all packets; other files are read to the end.
            entries = stream.index_entries if _index_is_complete(container, self.path) else ()
            packets, trusted = _survey(container, stream, to_end=not entries)
            shown = (not e.is_discard for e in entries) if entries else (shown for _, _, shown in packets)
            count = sum(shown)
            if stream.width * stream.height > MAX_PIXELS or max(count, stream.frames) > MAX_FRAMES:
                size = f"{stream.width}x{stream.height}"
                raise BadFrames(f"{self.path} claims {max(count, stream.frames)} frames of {size}: too large")
            rate = stream.average_rate or stream.guessed_rate
            return Header(count, float(rate) if rate else None, trusted)

    @cached_property
    def _decodable(self) -> int:
        return sum(1 for _ in self._all_frames())

    @property
    def fps(self) -> float | None:
        """Average number of frames per second; None if the file stores no frame rate."""
        return self.header.fps

    def __len__(self) -> int:
        return self.header.count if self.header.trusted else self._decodable

    def read(self, indices: Sequence[int], allocate: Allocate = np.empty) -> NDArray[np.uint8]:
        """Decode the frames at `indices` (0-based, in display order) to an RGB array (n, H, W, 3).

        Raises BadFrames if there are too few frames, or one of the frames is damaged.
        """
        wanted, found, last = set(indices), {}, -1
        to_rgb = VideoReformatter()  # one for all frames, because it is slow to set up
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
        """Convert a frame to RGB, and turn it upright as the file says; raise BadFrames if it is damaged."""
        if damaged:
            raise BadFrames(f"{self.path}: frame {index} is damaged (the decoder reports errors in its data)")
        pixels = to_rgb.reformat(frame, format="rgb24").to_ndarray()
        return np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90)) if frame.rotation else pixels

    def _frames(self, start: int) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """Yield (index, frame, whether it is damaged) in display order, from index `start` or earlier on."""
        following = 0
        with _open_container(self.path) as (container, stream):
            seek = start >= SEEK_FROM and container.format.name.startswith(EXACT_SEEK)
            times = _seek(container, stream, start) if seek else []
            for index, frame, agrees, damaged in _examined(_decoded(container.demux(stream), times)):
                if not agrees or index > max(start, following):
                    break
                yield index, frame, damaged
                following = index + 1
            else:
                if following:
                    return
        if self.header.trusted and self._decodable != len(self):
            raise BadFrames(f"{self.path} is damaged: {self._decodable} of {len(self)} frames can be decoded")
        yield from islice(self._all_frames(), following, None)

    def _all_frames(self) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        with _open_container(self.path) as (container, stream):
            decoded = _examined(_decoded(container.demux(stream)))
            yield from ((index, frame, damaged) for index, frame, _, damaged in decoded)


@contextmanager
def _open_container(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file in a ``with`` block; an error while opening or decoding becomes BadFrames."""
    try:
        container = av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise BadFrames(f"{path} is not a readable video ({error.strerror or error})") from error
    with container:
        if not container.streams.video:
            raise BadFrames(f"{path} holds no video stream")
        stream = container.streams.video[0]
        stream.thread_count = 1  # one decoding thread, because worker processes run in parallel
        try:
            yield container, stream
        except av.FFmpegError as error:
            reason = f"{error.strerror or error}; is the file truncated?"
            raise BadFrames(f"{path} cannot be decoded ({reason})") from error


def _index_is_complete(container, path: Path) -> bool:
    """Return whether the container lists all its packets in its header: an mp4 that is not fragmented."""
    if not container.format.name.startswith("mov"):
        return False
    with path.open("rb") as file:
        for _ in range(FIRST_BOXES):
            box = file.read(16)
            size, kind = int.from_bytes(box[:4], "big"), box[4:8]
            if kind == b"moof":
                return False
            if size == 1:
                size = int.from_bytes(box[8:], "big")
            if size < 8 or len(box) < 16:
                break
            file.seek(size - len(box), 1)
    return True


def _is_shown(packet: av.Packet) -> bool:
    # Edit lists mark packets that are decoded but not shown. Videos with packed B-frames (Xvid) contain
    # one-byte placeholder packets, which hold no frame.
    return packet.size > 1 and not packet.is_discard


def _survey(container, stream, to_end: bool) -> tuple[list[tuple[int | None, bool, bool]], bool]:
    """Decode the first frame, and read the packets (``to_end``: all of them).

    Returns one tuple (time, whether a key frame, whether shown) per packet, and whether to trust the packets.
    Packets are not trusted if times are missing or equal, or if the first packets do not decode. They are not
    trusted either if times may be guesses: avi files store no times, and copies of Xvid videos keep guesses.
    """
    packets = []

    def recorded() -> Iterator[av.Packet]:
        for packet in islice(container.demux(stream), MAX_FRAMES + 1):
            if packet.size:
                packets.append((packet.pts, packet.is_keyframe, _is_shown(packet)))
            yield packet

    source = recorded()
    first = next(_decoded(source), None)
    if to_end:
        deque(source, maxlen=0)
    times = [time for time, _, shown in packets if shown]
    guessed = container.format.name == "avi" or stream.codec_context.name == "mpeg4"
    trusted = first is not None and first[2] and not (guessed and stream.codec_context.has_b_frames)
    return packets, trusted and packets[0][1] and len(times) == len(set(times)) and None not in times


def _seek(container, stream, start: int) -> list[int]:
    """Go to the last key frame shown no later than frame `start`; return the times of all frames, sorted.

    Returns an empty list, at the end of the file, if the packets are not trusted.
    """
    packets, trusted = _survey(container, stream, to_end=True)
    times = sorted(time for time, _, shown in packets if shown) if trusted else []
    if times:
        wanted = times[min(start, len(times) - 1)]
        keys = (time for time, is_key, _ in packets if is_key and time is not None)
        container.seek(max(time for time in keys if time <= wanted), stream=stream)
    return times


def _decoded(
    packets: Iterable[av.Packet], times: Sequence[int] = ()
) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """Decode from the next key frame on; yield (index, frame, agrees) in display order.

    `times` are the presentation times of all frames after a seek, and empty at the start of the file.
    ``agrees`` is False if the frame is not the next one that the packets announce.
    """
    waiting: list[int] = []  # presentation times of packets whose frames are not yet decoded
    key, index = None, 0
    for packet in packets:
        if key is None:
            if not packet.is_keyframe:
                continue  # nothing decodes before the first key frame
            key = packet.pts if times else BEGINNING
            index = bisect_left(times, key)
        if _is_shown(packet) and packet.pts is not None and packet.pts >= key:
            heappush(waiting, packet.pts)
        for frame in packet.decode():
            if times and (frame.pts is None or frame.pts < key):
                continue  # shown before the key frame, and therefore decoded without its reference frames
            yield index, frame, bool(waiting) and heappop(waiting) == frame.pts
            index += 1


def _examined(
    decoded: Iterable[tuple[int, av.VideoFrame, bool]],
) -> Iterator[tuple[int, av.VideoFrame, bool, bool]]:
    """Append to each (index, frame, agrees) whether the frame is damaged, according to the decoder.

    Damage lasts until the next key frame. B-frames may refer to the next frame that is not a B-frame, so they
    are held back until the decoder has reported on this frame.
    """
    held: list[tuple[int, av.VideoFrame, bool]] = []
    damaged = False
    for item in decoded:
        held.append(item)
        frame = item[1]
        damaged = damaged or frame.is_corrupt
        if frame.pict_type == PictureType.B and len(held) < MAX_B_FRAMES:
            continue
        yield from ((*earlier, damaged) for earlier in held[:-1])
        damaged = frame.is_corrupt if frame.key_frame else damaged
        yield (*item, damaged)
        held.clear()
    yield from ((*item, damaged) for item in held)
