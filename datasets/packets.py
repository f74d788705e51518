"""Decode a video file packet by packet, and check the frames against the time stamps of the packets.

The packets of a file announce the number and the times of its frames. `survey` decides whether these
announcements can be trusted. `decoded` checks that each frame has the earliest time of the announced frames
that are not yet decoded.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path

import av
from av.video.frame import PictureType

from .pixels import MAX_FRAMES, BadFrames

# Number of leading boxes of an mp4 file that are searched for `moof`, which marks a fragmented file.
FIRST_BOXES = 16
# Largest number of frames that `examined` holds back while it waits for a frame that is not a B-frame.
MAX_B_FRAMES = 16
# A presentation time earlier than that of any frame.
BEGINNING = -(1 << 63)

# Values of one packet: (presentation time, whether it holds a key frame, whether its frame is shown).
Packet = tuple[int | None, bool, bool]


@contextmanager
def open_container(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video file in a ``with`` block; raise BadFrames if opening or decoding fails in the block."""
    try:
        # The path is absolute, because FFmpeg reads a relative path with a colon as a network address.
        container = av.open(str(path.absolute()), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise BadFrames(f"{path} is not a readable video ({error.strerror or error})") from error
    with container:
        # FFmpeg may choose a stream of a single image, such as a cover: then take the longest stream.
        stream = container.streams.best("video")
        if isinstance(stream, av.VideoStream) and stream.frames == 1:
            stream = max(container.streams.video, key=lambda other: other.frames)
        if not isinstance(stream, av.VideoStream):
            raise BadFrames(f"{path} holds no video stream")
        if stream.codec_context is None:
            raise BadFrames(f"{path} has a video codec that FFmpeg does not know")
        # one thread is enough, because worker processes run in parallel
        stream.thread_count = 1
        try:
            yield container, stream
        except av.FFmpegError as error:
            reason = f"{error.strerror or error}; is the file truncated?"
            raise BadFrames(f"{path} cannot be decoded ({reason})") from error


def index_is_complete(container, path: Path) -> bool:
    """Return whether the header of a video file lists all packets, as in an mp4 that is not fragmented."""
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
            if not 8 <= size < 1 << 62 or len(box) < 16:
                break
            file.seek(size - len(box), 1)
    return True


def is_shown(packet: av.Packet) -> bool:
    """Return whether the packet holds a frame and players show this frame."""
    # Edit lists mark packets to discard, whose frames are decoded but not shown.
    # Videos with packed B-frames (Xvid) contain one-byte placeholder packets, which hold no frame.
    return packet.size > 1 and not packet.is_discard


def shown_times(packets: Iterable[Packet]) -> list[int]:
    """Return the presentation times of the packets that have a time and a frame that is shown."""
    return [time for time, _, shown in packets if shown and time is not None]


def survey(container, stream, to_end: bool) -> tuple[list[Packet], bool, av.VideoFrame | None]:
    """Decode the first frame of a video and read its packets; if `to_end` is true, read all packets.

    Returns one `Packet` tuple per packet, whether to trust the packets, and the first frame. Packets are not
    trusted if times are missing or equal, or if the first packets do not decode. They are not trusted either
    if times may be guesses: avi files store no times, and copies of Xvid videos keep guesses. A seek in an
    avi file uses its index, which must list the same packets.
    """
    packets = []

    def recorded() -> Iterator[av.Packet]:
        for packet in islice(container.demux(stream), MAX_FRAMES + 1):
            if packet.size:
                packets.append((packet.pts, packet.is_keyframe, is_shown(packet)))
            yield packet

    source = recorded()
    _, first, agrees = next(decoded(source), (0, None, False))
    if to_end:
        deque(source, maxlen=0)
    times = shown_times(packets)
    is_avi = container.format.name == "avi"
    if is_avi and sum(entry.size > 0 for entry in stream.index_entries) != len(packets):
        agrees = False
    guessed = is_avi or stream.codec_context.name == "mpeg4"
    trusted = agrees and packets[0][1] and len(set(times)) == sum(shown for _, _, shown in packets)
    return packets, trusted and not (guessed and stream.codec_context.has_b_frames), first


def seek(container, stream, start: int) -> list[int]:
    """Seek to the last key frame at or before the frame `start`; return the sorted times of all frames.

    Returns an empty list, at the end of the file, if the packets are not trusted.
    """
    packets, trusted, _ = survey(container, stream, to_end=True)
    times = sorted(shown_times(packets)) if trusted else []
    if times:
        wanted = times[min(start, len(times) - 1)]
        keys = (time for time, is_key, _ in packets if is_key and time is not None and time <= wanted)
        container.seek(max(keys), stream=stream)
    return times


def decoded(
    packets: Iterable[av.Packet], times: Sequence[int] = ()
) -> Iterator[tuple[int, av.VideoFrame, bool]]:
    """Decode packets from the next key frame on; yield one tuple (index, frame, agrees) per frame.

    `times` are the presentation times of all frames after a seek, and empty at the start of the file.
    Frames come in display order. The third value, ``agrees``, is False if the frame is not the next one that
    the packets announce.
    """
    # presentation times of packets whose frames are not yet decoded
    waiting: list[int] = []
    key: int | None = None
    index = 0
    for packet in packets:
        if key is None:
            if not packet.is_keyframe:
                # skip packets before the first key frame, because they cannot be decoded
                continue
            key = packet.pts if times and packet.pts is not None else BEGINNING
            index = bisect_left(times, key)
        if is_shown(packet) and packet.pts is not None and packet.pts >= key:
            heappush(waiting, packet.pts)
        for frame in packet.decode():
            if times and (frame.pts is None or frame.pts < key):
                # skip frames before the key frame: their reference frames were not decoded
                continue
            yield index, frame, bool(waiting) and heappop(waiting) == frame.pts
            index += 1


def examined(
    decoded: Iterable[tuple[int, av.VideoFrame, bool]],
) -> Iterator[tuple[int, av.VideoFrame, bool, bool]]:
    """Append to each tuple (index, frame, agrees) of `decoded` a flag: whether the frame is damaged.

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
