"""List the clips of a data set on disk: the video, frame range and styles of each clip."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from static_dynamic.errors import UserError

from .discovery import find_video
from .frames import Frames, open_frames

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from .backgrounds import Backgrounds
    from .loader import Decoded, ViewBatches
    from .masks import Masks

# Two frame rates count as equal if their relative difference is at most this value.
RATE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Clip:
    """A range of frames of one video: ``first`` .. ``first + length - 1`` (0-based positions).

    The bootstrap resamples clusters: clips with equal ``cluster`` come from one video. ``label`` is -1 if the
    clip has no class, ``fps`` is None if the frame rate is not known.
    """

    id: str
    video: str
    first: int
    length: int
    label: int = -1
    cluster: str = ""
    fps: float | None = None
    # Times of the clip's frames in seconds, beginning at 0; None if the frame rate is constant.
    times: tuple[float, ...] | None = field(default=None, kw_only=True, repr=False)
    notes: tuple[str, ...] = field(default=(), kw_only=True, repr=False)  # see `VideoFile.notes`

    @property
    def identity(self) -> tuple:
        """Tuple of the clip's attributes that results depend on: frames, label, cluster and frame rate."""
        values = (getattr(self, f.name) for f in fields(self) if f.name not in ("times", "notes"))
        return (*values, *([self.times] if self.times else []))


@dataclass(frozen=True)
class ClipList:
    """The usable clips of a data set, and the clips that were left out, each with the reason.

    ``filtered`` clips are excluded by the rules of the data set, or missing on disk in every style.
    ``skipped`` clips are broken. The frames of a clip in style k are in ``root/style_<k>/<video>``: a folder
    of images, a frame store or a video file. Unstylized videos (style 0) may be in ``normal_root`` instead.
    """

    name: str
    root: Path
    styles: tuple[int, ...]
    clips: tuple[Clip, ...]
    skipped: tuple[tuple[str, str], ...] = ()  # (clip id, reason)
    filtered: tuple[tuple[str, str], ...] = ()
    normal_root: Path | None = None
    # Number of classes in the annotations; 0 if there are no annotations.
    classes: int = 0
    # Activation rows per view; networks that see flow give one row per frame.
    rows_per_view: int = 1
    # Regions of the videos' frames, if activations are averaged per region, or backgrounds are replaced.
    masks: Masks | None = None
    # New backgrounds of the clips, if backgrounds are replaced.
    backgrounds: Backgrounds | None = None

    def frames_of(self, video: str, style: int) -> Frames:
        """Open the frames of one video in one style."""
        return open_frames(find_video(style_folder(self.root, style, self.normal_root), video))

    def paths_of(self, video: str, style: int) -> list[Path]:
        """Return the files and folders that hold the frames of one video in one style."""
        return [find_video(style_folder(self.root, style, self.normal_root), video)]

    def batches(self, views: pd.DataFrame, rows: NDArray, batch_rows: int, spec) -> ViewBatches:
        """Return the rows `rows` of the table `views` as a `ViewBatches`, with `batch_rows` views per batch.

        `spec` is the input spec of the network.
        """
        # avoids a circular import: loader.py imports clips.py
        from .loader import ViewBatches

        return ViewBatches(self, views, rows, batch_rows)

    def to_inputs(
        self, batch: list[Decoded], spec, device: torch.device
    ) -> Tensor | list[Tensor] | dict[str, Tensor]:
        """Convert a decoded batch to network input on `device`; `spec` is the input spec of the network.

        Returns one tensor (B, 3, T, crop, crop), or a list of such tensors if there are several pathways.
        """
        from .loader import to_inputs

        pathways = to_inputs(batch, spec, device)
        return pathways if len(pathways) > 1 else pathways[0]

    def to_masks(self, batch: list[Decoded], spec, device: torch.device) -> dict[str, Tensor]:
        """Convert the masks of a decoded batch to a dict pathway -> (B, regions, T, height, width) float32.

        A value is the fraction of a pixel of the network input that belongs to the region.
        """
        from .loader import to_masks

        assert self.masks is not None
        return to_masks(batch, spec, device, len(self.masks.regions))

    @property
    def listing_sha256(self) -> str:
        """SHA-256 of the styles and the clips; the hash is part of the identity of a run."""
        return hashlib.sha256(
            repr([self.styles, *(clip.identity for clip in self.clips)]).encode()
        ).hexdigest()

    @property
    def filtered_by_reason(self) -> dict[str, list[str]]:
        """Map each reason to the ids of the clips that were filtered out for this reason."""
        reasons: dict[str, list[str]] = {}
        for clip, reason in self.filtered:
            reasons.setdefault(reason, []).append(clip)
        return reasons

    @property
    def frame_rates(self) -> dict[float | None, int]:
        """Map each frame rate to the number of clips that have this rate, most frequent rate first."""
        return dict(Counter(clip.fps for clip in self.clips).most_common())

    @property
    def videos_by_note(self) -> dict[str, list[str]]:
        """Map each note of `VideoFile.notes` to the names of the videos that have this note."""
        notes: dict[str, dict[str, None]] = {}
        for clip in self.clips:
            for note in clip.notes:
                notes.setdefault(note, {})[clip.video] = None
        return {note: list(videos) for note, videos in notes.items()}

    def left_out(self) -> list[str]:
        """Return messages about left-out clips: one for all broken clips, and one for each filter."""
        lines = []
        if self.skipped:
            clip, reason = self.skipped[0]
            lines.append(f"{len(self.skipped)} clips were skipped, the first: {clip} ({reason})")
        for reason, ids in self.filtered_by_reason.items():
            lines.append(f"{len(ids)} clips were left out, {reason}: {ids[0]}{' ...' if ids[1:] else ''}")
        return lines

    def remarks(self, assumed_fps: float, resample_fps: float | None, window: int = 1) -> list[str]:
        """Return messages about clips that were left out, have an unexpected frame rate or are too short.

        `assumed_fps` is the frame rate that the network expects.
        """
        lines = self.left_out()
        for note, videos in self.videos_by_note.items():
            lines.append(f"{len(videos)} videos, first {videos[0]}: {note}")
        rates: dict[float | None, int] = {resample_fps: len(self.clips)} if resample_fps else self.frame_rates
        others = {fps: n for fps, n in rates.items() if fps and abs(fps / assumed_fps - 1) > RATE_TOLERANCE}
        if others:
            counts = ", ".join(f"{n} clips are at {fps:g}" for fps, n in list(others.items())[:4])
            lines.append(
                f"frame rate: the network expects {assumed_fps:g} frames per second, but {counts}: "
                f"the speed of motion differs from training (resample_fps={assumed_fps:g} corrects it)"
            )
        if None in rates:
            lines.append(
                f"frame rate: unknown for {rates[None]} clips (folders of images do not store it), "
                f"the network expects {assumed_fps:g} frames per second: dataset.fps=FPS states the rate"
            )
        strides = [(clip.fps or resample_fps) / resample_fps if resample_fps else 1 for clip in self.clips]
        short = [c for c, stride in zip(self.clips, strides, strict=True) if int(c.length / stride) < window]
        if short:
            lines.append(
                f"short clips: {len(short)} of {len(self.clips)} have fewer frames than the window of "
                f"{window} (the first: {short[0].id}): their frames are repeated from the start of the clip "
                "(a shorter n_sample_frames avoids it)"
            )
        return lines


def parse_styles(styles: str | int) -> tuple[int, ...]:
    """Parse the value of the option ``styles``, a comma-separated list of style ids."""
    try:
        return tuple(int(style) for style in str(styles).strip("[]").split(","))
    except ValueError as error:
        raise UserError(f"styles={styles} is not a comma-separated list of style ids (1,2,3,4)") from error


def style_folder(root: Path, style: int, normal_root: Path | None = None) -> Path:
    """Return the folder that holds the videos in one style."""
    return normal_root if style == 0 and normal_root is not None else root / f"style_{style}"
