"""What is to be stylized: videos, the names of their frames, and the pieces they are read in."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from static_dynamic.datasets.discovery import find_video, list_videos
from static_dynamic.datasets.frames import BadFrames, FrameFolder, Frames, VideoFile, open_frames
from static_dynamic.errors import UserError
from static_dynamic.files import remove_leftovers

SAME = "same"  # frames keep the names of the input
PATTERN = re.compile(r"[\w.-]*%0\d+d[\w.-]*\.(jpg|png)")


@dataclass(frozen=True)
class Skipped:
    """Frames that were left out, with the reason."""

    video: str
    frame: int | None  # the first, counted from 1; None: the whole video
    count: int
    reason: str


@dataclass
class Job:
    """One video in one style. Frames are collected in ``folder``, which takes its name ``target`` once they
    are all there; where both are the same they are seen as they come."""

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
        """The input."""
        return open_frames(self.source)

    @cached_property
    def names(self) -> list[str]:
        """File names of the output, by frame."""
        if self.naming == SAME and not isinstance(self.frames, VideoFile):
            # the keys of a frame store have no ending
            return [name.name if name.suffix else f"{name.name}.png" for name in map(Path, self.frames.names)]
        pattern = "%06d.png" if self.naming == SAME else self.naming
        return [pattern % i for i in range(self.first, self.first + len(self.frames))]

    def chunks(self, size: int) -> Iterator[Chunk]:
        """The pieces that are not there yet, in order: the same pieces whatever was there before, so that
        a frame is always computed beside the same others."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        read = _sequential(self.frames) if isinstance(self.frames, VideoFile) else self._one_by_one
        for first in range(0, len(self.names), size):
            indices = range(first, min(first + size, len(self.names)))
            there = all((self.folder / self.names[i]).exists() for i in indices)
            # a video file is read in order, also what is there already
            if not there or isinstance(self.frames, VideoFile):
                yield Chunk(self, indices, read, there)

    def _one_by_one(self, indices: range, wanted: bool) -> Iterator[tuple[int, NDArray | BadFrames]]:
        for i in indices:
            try:
                yield i, self.frames.read([i])[0]
            except BadFrames as error:
                yield i, error

    @cached_property
    def guide_frames(self) -> list[tuple[Frames, dict[str, int] | None]]:
        """The guides, with the position of each stem; None where they go by position."""
        opened = [open_frames(path) for path in self.guides]
        by_name = isinstance(self.frames, FrameFolder)
        return [
            (
                g,
                {Path(n).stem: i for i, n in enumerate(g.names)}
                if by_name and not isinstance(g, VideoFile)
                else None,
            )
            for g in opened
        ]

    def with_guides(self, i: int, frame: NDArray) -> NDArray:
        """A frame and its guides, (H, W, 3 + 3 per guide)."""
        parts = [frame]
        for frames, positions in self.guide_frames:
            stem = Path(self.frames.names[i]).stem if positions is not None else ""
            if positions is not None and stem not in positions:
                raise BadFrames(f"guide {frames.path} has no image {stem}")
            parts.append(frames.read([i if positions is None else positions[stem]])[0])
            if parts[-1].shape != frame.shape:
                raise BadFrames(f"guide {frames.path}: image {i + 1} has another size than the frame")
        return np.concatenate(parts, axis=-1) if len(parts) > 1 else frame


@dataclass(frozen=True)
class Chunk:
    """Some frames of a job."""

    job: Job
    indices: range
    reader: Callable[[range, bool], Iterator[tuple[int, NDArray | BadFrames]]]
    there: bool  # already written

    def read(self) -> dict[int, NDArray | BadFrames]:
        """Frame (H, W, C) or what is wrong with it, by number; nothing for what is there already."""
        found = {}
        for i, frame in self.reader(self.indices, not self.there):
            try:
                found[i] = frame if isinstance(frame, BadFrames) else self.job.with_guides(i, frame)
            except BadFrames as error:
                found[i] = error
        return found


def _sequential(video: VideoFile) -> Callable[[range, bool], Iterator[tuple[int, NDArray | BadFrames]]]:
    """A reader of a video file: its pieces are asked for by several threads and decoded in turn."""
    turn = threading.Condition()
    state = {"at": 0, "frames": video.frames(), "error": None}

    def read(indices: range, wanted: bool) -> Iterator[tuple[int, NDArray | BadFrames]]:
        found = {}
        with turn:
            # pieces are begun in order, so whoever is waited for is at work
            turn.wait_for(lambda: state["at"] == indices.start)
            try:
                if state["error"] is None:
                    for i, frame in islice(state["frames"], len(indices)):
                        if wanted:
                            found[i] = frame.to_ndarray(format="rgb24")
                        state["last"] = i
                    if state.get("last", -1) < indices[-1]:
                        raise BadFrames(
                            f"{video.path} ends after {state.get('last', -1) + 1} frames, "
                            f"{len(video)} were announced (truncated?)"
                        )
            except BadFrames as error:
                state["error"] = error
            finally:
                state["at"] = indices.stop
                turn.notify_all()
        missing = state["error"]
        yield from ((i, found.get(i, missing)) for i in indices if i in found or missing)

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
    """The videos at `source` (a folder of frames, a video file, or a folder of those, in class folders or
    not), each to become ``target/VIDEO``; those of one shard.

    Parameters
    ----------
    videos
        Names of those that are wanted, of a folder of many; None: all.
    naming, first
        Form of the names of frames, and the number of the first.
    in_place
        A folder of frames goes to `target` itself.

    Raises
    ------
    UserError
        Nothing to read there, or options that make no sense.
    """
    if naming != SAME and not PATTERN.fullmatch(naming):
        raise UserError(f"naming={naming}: 'same', or a form like %06d.jpg or frame_%05d.jpg is expected")
    if not 0 <= shard < num_shards:
        raise UserError(f"shard={shard}: shards count from 0 to num_shards - 1 ({num_shards - 1})")
    if not source.exists():
        raise UserError(f"input {source} does not exist")
    single = source.is_file() or bool(getattr(open_frames(source), "names", True))
    if single:
        name = source.stem if source.is_file() else source.resolve().name
        found = {name: (source, guides)}
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


def finish(job: Job) -> None:
    """Give a job's folder its name."""
    if job.folder == job.target:
        return
    if job.target.exists():  # another run was faster; it wrote the same
        shutil.rmtree(job.folder)
    else:
        job.folder.rename(job.target)
