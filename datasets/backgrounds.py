"""Views of a clip's foreground on a new background, after SCUBA and SCUFO (Li et al. 2023, StillMix).

In the order ``new_background`` the moving foreground of a clip (its masks) is shown on a new, still
background. In the order ``frozen_foreground`` one frame of the foreground is shown on the same background.
All styles of a clip have the same new background, except for the background ``clip``, which is a frame of
another video in the same style.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from static_dynamic.errors import UserError
from static_dynamic.rng import generator

from .clips import Clip, ClipList
from .masks import VOID

# Number of periods of the stripes over the longer side of a frame.
PERIODS = (2.0, 12.0)


def stripes(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Draw sinusoidal stripes between two random colours, in a random direction and width: (H, W, 3)."""
    angle, periods, phase = rng.uniform(0, np.pi), rng.uniform(*PERIODS), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width] / max(height, width)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * periods * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    dark, light = rng.uniform(0, 255, (2, 3))
    return np.rint(dark + wave[..., None] * (light - dark)).astype(np.uint8)


def noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Draw noise: random colours in a grid of 16 x 16 cells, scaled smoothly to (H, W, 3)."""
    coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


DRAWN: dict[str, Callable[[np.random.Generator, int, int], NDArray[np.uint8]]] = {
    "stripes": stripes,
    "noise": noise,
}
# Name of the background that is a frame of another video.
OTHER_CLIP = "clip"


@dataclass(frozen=True)
class Backgrounds:
    """The new background of each clip: its ``kind`` (`OTHER_CLIP` or a key of `DRAWN`), drawn by ``seed``."""

    kind: str
    seed: int
    # clip -> the clip of another video whose middle frame is its background
    others: dict[str, Clip]

    @classmethod
    def of(cls, kind: str, seed: int, clips: ClipList) -> "Backgrounds":
        """Choose the backgrounds of all clips; raise UserError if `clip` has no other video."""
        others: dict[str, Clip] = {}
        if kind == OTHER_CLIP:
            for clip in clips.clips:
                rest = [other for other in clips.clips if other.cluster != clip.cluster]
                if not rest:
                    raise UserError("backgrounds=clip needs clips of two videos: give backgrounds=stripes")
                others[clip.id] = rest[int(generator(seed, clip.id, "background").integers(len(rest)))]
        return cls(kind, seed, others)

    def of_clip(self, clips: ClipList, clip: str, style: int, height: int, width: int) -> NDArray[np.uint8]:
        """Return the new background (H, W, 3) of a clip in one style; raise BadFrames if it is unreadable."""
        if self.kind != OTHER_CLIP:
            return DRAWN[self.kind](generator(self.seed, clip, "background"), height, width)
        other = self.others[clip]
        frame = clips.frames_of(other.video, style).read([other.first + other.length // 2])[0]
        return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def paste(frames: NDArray, regions: NDArray, background: NDArray) -> NDArray[np.uint8]:
    """Show the foreground of frames (n, H, W, 3) on a background (H, W, 3); `regions` (n, H, W) are masks."""
    foreground = (regions > 0) & (regions != VOID)
    return np.where(foreground[..., None], frames, background)
