"""A data set that benchmarks make themselves: textures that drift, in as many styles as are wanted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf
from tqdm import tqdm

from static_dynamic.datasets import ClipList, list_clips
from static_dynamic.datasets.write import write_folder

STYLES, FRAMES = (1, 2, 3, 4), 64


def make_set(root: Path, clips: int, height: int, width: int) -> ClipList:
    """Write jpg folders of 64 frames, and list them."""
    draw = np.random.default_rng(0)
    for clip in tqdm(range(clips), desc="make videos"):
        ground = draw.integers(0, 256, (2 * height // 8 + 1, 2 * width // 8 + 1, 3))
        ground = np.kron(ground, np.ones((8, 8, 1)))  # (2 h, 2 w, 3)
        step = draw.integers(-2, 3, 2)
        for style in STYLES:
            colours = np.random.default_rng((clip, style)).dirichlet(np.ones(3), 3)
            picture = (ground @ colours).astype(np.uint8)
            frames = (
                np.roll(picture, tuple(t * step), (0, 1))[:height, :width].copy() for t in range(FRAMES)
            )
            write_folder(frames, root / f"style_{style}" / f"clip{clip:03d}", "%06d.jpg", 1)
    return list_clips(OmegaConf.create({"name": "made", "layout": "folder", "root": str(root)}), STYLES)


@dataclass(frozen=True)
class Warm:
    """Frames of a video that are in memory already."""

    frames: np.ndarray

    def read(self, indices, room=np.empty):
        """The frames at `indices`, copied to where the caller wants them."""
        out = room((len(indices), *self.frames.shape[1:]), np.uint8)
        return np.take(self.frames, indices, axis=0, out=out)


class WarmClips(ClipList):
    """Clips whose frames are in memory: what is left is everything but decoding."""

    def frames_of(self, video, style):
        """One video in one style; all styles show the same here."""
        return Warm(WARM[video])


WARM: dict[str, np.ndarray] = {}


def warm_up(clips: ClipList) -> WarmClips:
    """Decode every video once, and keep it."""
    for clip in clips.clips:
        WARM[clip.video] = clips.frames_of(clip.video, STYLES[0]).read(range(FRAMES))
    return WarmClips(clips.name, clips.root, clips.styles, clips.clips)
