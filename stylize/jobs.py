"""Stylization jobs: input videos, names of output frames, and chunks of frames that form one batch."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from static_dynamic.datasets.discovery import find_video, list_videos
from static_dynamic.datasets.frames import BadFrames, FrameFolder, Frames, VideoFile, open_frames
from static_dynamic.errors import UserError
from static_dynamic.files import remove_leftovers
from static_dynamic.stylize.flow import Frame

# SAME: with ``naming=same``, output frames keep the names of the input frames
SAME = "same"
PATTERN = re.compile(r"[\w.-]*%0\d+d[\w.-]*\.(jpg|png)")

# Result: a frame (H, W, C), or the error raised by reading the frame
Result = Frame | BadFrames
Reader = Callable[[range, bool], Iterator[tuple[int, Result]]]
"""Function that reads the frames of an index range; if the second argument is False, it skips the frames."""


@dataclass(frozen=True)
class Skipped:
    """Consecutive frames that could not be stylized, and the reason."""

    video: str
    # `frame`: first skipped frame, counted from 1; None if the whole video is skipped
    frame: int | None
    count: int
    reason: str


@dataclass
class Job:
    """Job that stylizes one video in one style.

    Frames are written to ``folder``, which is renamed to ``target`` when all frames are there. If ``folder``
    equals ``target``, frames appear in ``target`` one by one.
    """

    name: str
    source: Path
    guides: tuple[Path, ...]
    target: Path
    folder: Path
    naming: str
    first: int = 1
    skipped: list[Skipped] = field(default_factory=list)

    @cached_property
    def frames(self) -> Frames:
        """Frames of the input video."""
        return open_frames(self.source)

    @cached_property
    def names(self) -> list[str]:
        """File names of the output frames."""
        if self.naming == SAME and not isinstance(self.frames, VideoFile):
            # The names of frames in an SQLite frame store have no suffix, so .png is appended.
            return [name.name if name.suffix else f"{name.name}.png" for name in map(Path, self.frames.names)]
        pattern = "%06d.png" if self.naming == SAME else self.naming
        return [pattern % i for i in range(self.first, self.first + len(self.frames))]

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Yield, in order, the chunks of `size` frames that must still be read.

        The boundaries of chunks do not depend on what has been written. A frame is therefore always computed
        in the same batch, and an interrupted run gives the same bytes.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        video = self.frames if isinstance(self.frames, VideoFile) else None
        read = _sequential(video) if video is not None else self._one_by_one
        for first in range(0, len(self.names), size):
            indices = range(first, min(first + size, len(self.names)))
            written = all((self.folder / self.names[i]).exists() for i in indices)
            # A video file is decoded from the start, so chunks that are already stylized are decoded, too.
            if not written or video is not None:
                yield Chunk(self, indices, read, written)

    def _one_by_one(self, indices: range, wanted: bool) -> Iterator[tuple[int, Result]]:
        for i in indices:
            try:
                yield i, self.frames.read([i])[0]
            except BadFrames as error:
                yield i, error

    @cached_property
    def guide_frames(self) -> list[tuple[Frames, list[int | None]]]:
        """List one tuple per guide: the guide's images, and for each video frame the image's index or None.

        Images are matched by file stem if video and guide are image files, else by position.
        """
        found: list[tuple[Frames, list[int | None]]] = []
        for guide in map(open_frames, self.guides):
            positions: list[int | None] = list(range(len(self.frames)))
            if isinstance(self.frames, FrameFolder) and not isinstance(guide, VideoFile):
                by_stem = {Path(name).stem: i for i, name in enumerate(guide.names)}
                positions = [by_stem.get(Path(name).stem) for name in self.frames.names]
            found.append((guide, positions))
        return found

    def with_guides(self, i: int, frame: Frame) -> Frame:
        """Append the channels of all guide images to frame `i`; return an array (H, W, 3 + 3 per guide)."""
        parts = [frame]
        for guide, positions in self.guide_frames:
            position = positions[i]
            if position is None:
                assert isinstance(self.frames, FrameFolder), "images are matched by stem"
                raise BadFrames(f"guide {guide.path} has no image of frame {Path(self.frames.names[i]).stem}")
            parts.append(guide.read([position])[0])
            if parts[-1].shape != frame.shape:
                raise BadFrames(f"image {i + 1} of guide {guide.path} differs in size from the video frame")
        return np.concatenate(parts, axis=-1) if len(parts) > 1 else frame


@dataclass(frozen=True)
class Chunk:
    """Frames of one video that are read together and stylized in one batch."""

    job: Job
    indices: range
    reader: Reader
    written: bool

    def read(self) -> dict[int, Result]:
        """Read the chunk; return {frame index: frame with guide images}, or {} if the chunk is done."""
        found: dict[int, Result] = {}
        for i, frame in self.reader(self.indices, not self.written):
            try:
                found[i] = frame if isinstance(frame, BadFrames) else self.job.with_guides(i, frame)
            except BadFrames as error:
                found[i] = error
        return found


def _sequential(video: VideoFile) -> Reader:
    """Make a reader that decodes a video file once, in order, even if threads ask for chunks out of order."""
    condition = threading.Condition()
    source = enumerate(video.frames())
    next_index = count = 0
    failure: BadFrames | None = None

    def read(indices: range, wanted: bool) -> Iterator[tuple[int, Result]]:
        nonlocal next_index, count, failure
        found: dict[int, Result] = {}
        with condition:
            # Waiting cannot deadlock: chunks are started in order, so a thread is reading the previous one.
            condition.wait_for(lambda: next_index == indices.start)
            try:
                # a decoding error ends `source`
                for i, frame in islice(source, len(indices)):
                    if wanted:
                        found[i] = frame
                    count = i + 1
                if count <= indices[-1]:
                    raise BadFrames(f"{video.path} ends after {count} of {len(video)} frames (truncated?)")
            except BadFrames as error:
                failure = failure or error
            finally:
                next_index = indices.stop
                condition.notify_all()
            if failure is not None:
                found = {i: found.get(i, failure) for i in indices}
        yield from found.items()

    return read


def make_jobs(
    source: Path,
    target: Path,
    *,
    naming: str,
    first: int = 1,
    guides: tuple[Path, ...] = (),
    shard: int = 0,
    num_shards: int = 1,
    in_place: bool = False,
    videos: frozenset[str] | None = None,
) -> list[Job]:
    """List the jobs for one shard (part) of the videos; each job writes frames to ``target/VIDEO``.

    Raises UserError if there is no video at `source`, or an option has an impossible value.

    Parameters
    ----------
    source
        A folder of frames, a video file, or a folder of several videos, with or without class folders.
    naming, first
        Pattern of the names of frames, and the number of the first frame.
    in_place
        Write the frames of a single video to `target` itself.
    videos
        Names of the wanted videos, if `source` holds several; None: all.
    """
    if naming != SAME and not PATTERN.fullmatch(naming):
        raise UserError(f"naming={naming}: give 'same', or a pattern like %06d.jpg or frame_%05d.jpg")
    if not 0 <= shard < num_shards:
        raise UserError(f"shard={shard}: give a number from 0 to num_shards - 1 ({num_shards - 1})")
    if not source.exists():
        raise UserError(f"input {source} does not exist")
    single = source.is_file() or bool(getattr(open_frames(source), "names", True))
    if single:
        found = {source.stem if source.is_file() else source.resolve().name: (source, guides)}
    else:
        names = [n for n in dict.fromkeys(list_videos(source)) if videos is None or n in videos]
        found = {n: (find_video(source, n), tuple(find_video(g, n) for g in guides)) for n in names}
    if not found:
        raise UserError(f"input {source} holds neither frames nor videos")
    jobs = []
    for name, (path, of_video) in sorted(found.items())[shard::num_shards]:
        folder = target if in_place and single else target / name
        partial = folder if in_place and single else folder.with_name(f".{folder.name}.partial")
        jobs.append(Job(name, path, of_video, folder, partial, naming, first))
    return jobs
