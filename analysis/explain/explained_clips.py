"""The clips that ``task=saliency`` explains, from one video, from a folder of videos or from a data set."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from static_dynamic.datasets import Clip, list_clips, preprocess
from static_dynamic.datasets.discovery import find_video, list_videos
from static_dynamic.datasets.frames import VIDEO_SUFFIXES, BadFrames, Frames, FrameStore, open_frames
from static_dynamic.datasets.orders import window_frames
from static_dynamic.errors import UserError
from static_dynamic.models import InputSpec
from static_dynamic.spacing import subsample_positions

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShownClip:
    """A clip to explain, with the object that reads the clip's frames.

    ``exact``: the user named the first and the last frame, and the network's frames are spread over the whole
    clip. Otherwise the network's window of frames starts at the first frame of the clip.
    """

    clip: Clip
    frames: Frames
    exact: bool = False

    def positions(self, spec, n_sample_frames: int | None, resample_fps: float | None) -> NDArray[np.int64]:
        """Return the numbers of the T frames of the clip that a network with input format `spec` receives."""
        if self.exact:
            return self.clip.first + subsample_positions(self.clip.length, spec.frames, np.float64)
        window = n_sample_frames or spec.frames * spec.sampling_rate
        shown = window_frames(self.clip, window, None, "first", resample_fps)
        return shown[subsample_positions(window, spec.frames, np.float64)]

    def read(self, positions: NDArray[np.int64], spec: InputSpec, rules: str = "corrected") -> Tensor:
        """Read the frames at `positions`; return them as cropped, normalised network input (3, T, h, w).

        With ``rules="original"`` frames are squashed to a square, as in Stergiou et al.'s code: images before
        the centre crop, images of a ``frames.db`` to the size of the input, without a crop.
        """
        frames = self.frames.read(positions.tolist())
        if rules == "original":
            if isinstance(self.frames, FrameStore):
                spec = replace(spec, size=spec.crop)
            size = (spec.size, spec.size) if isinstance(spec.size, int) else spec.size[::-1]
            frames = np.stack([np.asarray(cv2.resize(frame, size), np.uint8) for frame in frames])
        return preprocess(torch.from_numpy(frames), spec)


def pictures_of(video: Tensor, spec) -> NDArray[np.uint8]:
    """Undo the normalisation of a network input (3, T, h, w); return its frames, (T, h, w, 3) uint8."""
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (spec.mean, spec.std))
    pixels = (video.cpu() * std + mean).clamp(0, 1) * 255
    return pixels.round().byte().permute(1, 2, 3, 0).numpy()


def find_shown_clips(cfg: DictConfig) -> list[ShownClip]:
    """Return the clips of ``task.input`` (None: of the data set); raise UserError if there is no clip."""
    task = cfg.task
    if task.input is not None:
        clips = []
        for name, path in videos_of(Path(str(task.input)).expanduser()):
            try:
                clips.append(make_clip(name, open_frames(path), task.start, task.end))
            except BadFrames as error:
                skip_or_raise(cfg.on_error, name, error)
        return require_clips(clips, f"task.input={task.input}")
    if task.start or task.end is not None:
        raise UserError("task.start and task.end need task.input=VIDEO: they do not apply to a data set")
    listed = list_clips(cfg.dataset, (task.style,), cfg.n_examples, cfg.on_error, cfg.normal_data_root)
    return [ShownClip(clip, listed.frames_of(clip.video, task.style)) for clip in listed.clips]


def skip_or_raise(on_error: str, clip: str, error: BadFrames) -> None:
    """Log an unreadable clip if `on_error` is ``skip``, else raise UserError."""
    if on_error != "skip":
        raise UserError(f"{error}: repair the file, or give on_error=skip to leave the clip out") from error
    log.warning("%s is left out: %s", clip, error)


def require_clips(clips: list, source: str) -> list:
    """Return `clips` unchanged; raise UserError if this list is empty."""
    if not clips:
        raise UserError(f"{source}: none of the clips can be read")
    return clips


def videos_of(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and path of the video at `path`, or of each video in the folder `path`."""
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


def make_clip(name: str, frames: Frames, start: int, end: int | None) -> ShownClip:
    """Return the clip of the frames `start` to `end` - 1, counted from 0 (`end` None: to the last frame)."""
    count = len(frames)
    if not count:
        raise UserError(f"{frames.path} holds no frames")
    last = max(count, start + 1) if end is None else end
    if not 0 <= start < last:
        raise UserError(
            f"task.start={start}, task.end={last}: task.start must be at least 0 and below task.end"
        )
    if last > count:
        given = f"task.start={start}" if end is None else f"task.end={end}"
        raise UserError(f"{given} is too large: {frames.path} has only {count} frames, counted from 0")
    times = None if frames.times is None else tuple(frames.times[start:last] - frames.times[start])
    clip = Clip(name, name, start, last - start, cluster=name, fps=frames.fps, times=times)
    return ShownClip(clip, frames, exact=end is not None)
