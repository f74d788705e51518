"""The clips that `task=saliency` explains: a video, a folder of videos or a data set, as a network sees
them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from static_dynamic.datasets import Clip, list_clips, preprocess
from static_dynamic.datasets.discovery import find_video, list_videos
from static_dynamic.datasets.frames import VIDEO_SUFFIXES, BadFrames, Frames, open_frames
from static_dynamic.datasets.views import subsample, window_frames
from static_dynamic.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShownClip:
    """A clip, where its frames come from, and how they are chosen.

    ``exact``: the clip is what was asked for, and its frames are spread over it; else it is what there is,
    and the window of the network starts with it.
    """

    clip: Clip
    frames: Frames
    exact: bool = False

    def positions(self, spec, n_sample_frames: int | None, resample_fps: float | None) -> NDArray[np.int64]:
        """Which frames a network with input `spec` sees."""
        if self.exact:
            return self.clip.first + subsample(self.clip.length, spec.frames)
        window = n_sample_frames or spec.frames * spec.sampling_rate
        shown = window_frames(self.clip, window, None, "first", resample_fps)
        return shown[subsample(window, spec.frames)]

    def read(self, positions: NDArray[np.int64], spec) -> Tensor:
        """The frames at `positions` as a network sees them: (3, T, h, w), normalised."""
        return preprocess(torch.from_numpy(self.frames.read(positions.tolist())), spec)


def pictures_of(video: Tensor, spec) -> NDArray[np.uint8]:
    """Frames to look at, (T, h, w, 3), from what a network sees, (3, T, h, w)."""
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (spec.mean, spec.std))
    pixels = (video.cpu() * std + mean).clamp(0, 1) * 255
    return pixels.round().byte().permute(1, 2, 3, 0).numpy()


def find_shown_clips(cfg: DictConfig) -> list[ShownClip]:
    """Clips of ``task.input``, or of ``dataset`` where that is null.

    Raises
    ------
    UserError
        Nothing there, or frames asked for beyond a video's end.
    """
    task = cfg.task
    if task.input is not None:
        found = []
        for name, path in videos_of(Path(str(task.input)).expanduser()):
            try:
                found.append(stretch_of(name, open_frames(path), task.start, task.end))
            except BadFrames as error:
                skip_or_raise(cfg.on_error, name, error)
        return require_clips(found, f"task.input={task.input}")
    if task.start or task.end is not None:
        raise UserError("task.start and task.end are of task.input=VIDEO: a data set says what its clips are")
    found = list_clips(cfg.dataset, (task.style,), cfg.n_examples, cfg.on_error, cfg.normal_data_root)
    return [ShownClip(clip, found.frames_of(clip.video, task.style)) for clip in found.clips]


def skip_or_raise(on_error: str, clip: str, error: BadFrames) -> None:
    """Name a clip that cannot be read, or stop at it."""
    if on_error != "skip":
        raise UserError(f"{error}: mend it, or give on_error=skip to leave the clip out") from error
    log.warning("%s is left out: %s", clip, error)


def require_clips(clips: list, source: str) -> list:
    """Raise where nothing is left to explain."""
    if not clips:
        raise UserError(f"{source}: no clip that can be read is left")
    return clips


def videos_of(path: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of the video at `path`, or of the videos in the folder `path`."""
    if not path.exists():
        raise UserError(f"task.input={path} does not exist")
    if not path.is_dir():
        yield path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name, path
    elif len(open_frames(path)):
        yield path.resolve().name, path
    else:
        names = list(dict.fromkeys(list_videos(path)))
        if not names:
            raise UserError(f"task.input={path} holds no video, no frames and no frames.db")
        yield from ((name, find_video(path, name)) for name in names)


def stretch_of(name: str, frames: Frames, start: int, end: int | None) -> ShownClip:
    """Frames `start` to `end` (0-based positions, the last one not among them) of a video.

    Raises
    ------
    UserError
        Where the video has no such frames.
    """
    count = len(frames)
    if not count:
        raise UserError(f"{frames.path} holds no frames")
    for option, value in (("task.start", start), ("task.end", end)):
        if not (value is None or isinstance(value, int)):
            raise UserError(f"{option}={value}: a whole number is expected")
    last = max(count, start + 1) if end is None else end
    if not 0 <= start < last:
        raise UserError(f"task.start={start}, task.end={last}: a clip needs a frame at least, from 0 on")
    if last > count:
        raise UserError(f"task.start={start}, task.end={end}: {frames.path} ends after {count} frames")
    clip = Clip(name, name, start, last - start, cluster=name, fps=frames.fps)
    return ShownClip(clip, frames, exact=end is not None)
