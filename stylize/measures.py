"""What tells a good stylization from a bad one, measured on pairs of neighbouring frames.

Motion is kept where the flow of the stylized frames is that of the original frames; appearance is changed
where colours and texture differ; a style flickers where a stylized frame, moved along the flow of the
original, is not the next stylized frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from static_dynamic.stylize.flow import Flow, consistent, dense_flow, warp

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
QUANTILES = np.linspace(0.005, 0.995, 100)
SLOPE_SIGMA = 2.0  # pixels
SCALES = 4  # octaves of texture: structure of 1, 2, 4, 8 pixels


@dataclass(frozen=True)
class Motion:
    """How a pair of original frames moves: flow to the second, flow back, and where the two agree."""

    there: Flow
    back: Flow
    seen: NDArray[np.bool_]  # (H, W) pixels of the first that the second shows
    known: NDArray[np.bool_]  # (H, W) pixels of the second that the first shows

    @classmethod
    def between(cls, first: Frame, second: Frame) -> Motion:
        """Follow a pair of frames both ways."""
        there, back = dense_flow(first, second), dense_flow(second, first)
        return cls(there, back, consistent(there, back), consistent(back, there))

    def moving(self, pixels: float) -> NDArray[np.bool_]:
        """Where a known motion is longer than so many pixels, (H, W)."""
        return self.seen & (np.linalg.norm(self.there, axis=-1) > pixels)


def motion_error(motion: Motion, flow: Flow, where: NDArray[np.bool_]) -> float:
    """End-point difference of a flow to that of the original, relative to its length: median over `where`.

    0: the same motion; 1: as wrong as no motion at all.
    """
    reference = motion.there[where]
    difference = np.linalg.norm(flow[where] - reference, axis=-1)
    return float(np.median(difference / np.linalg.norm(reference, axis=-1)))


def wobble(motion: Motion, first: Frame, second: Frame) -> float:
    """Warping error in pixels: how far the second frame seems displaced from the first moved along `motion`.

    The mean difference in grey levels, where both show the same, over the mean slope of the second frame in
    grey levels a pixel. The slope makes styles of fine and of soft texture comparable; it is taken off the
    blurred frame, so that noise adds to the difference and hardly to the slope. NaN where the two share
    nothing.
    """
    moved = warp(first.astype(np.float32), motion.back)
    difference = np.abs(second - moved).mean(-1)[motion.known]
    soft = cv2.GaussianBlur(second.astype(np.float32), (0, 0), SLOPE_SIGMA)
    slope = (np.abs(np.diff(soft, axis=0)).mean() + np.abs(np.diff(soft, axis=1)).mean()) / 2
    # half a grey level: a blank picture has no slope
    return float(difference.mean() / max(slope, 0.5)) if difference.size else float("nan")


def to_lab(frame: Frame) -> NDArray[np.float32]:
    """CIE Lab of an sRGB frame: L in 0..100, (H, W, 3)."""
    return cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def texture_energies(lab: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean strength of lightness structure by scale, (SCALES,) in octaves: log2 of a Laplacian pyramid."""
    level, energies = np.ascontiguousarray(lab[..., 0]), []
    for _ in range(SCALES):
        coarse = cv2.pyrDown(level)
        band = level - cv2.pyrUp(coarse, dstsize=level.shape[::-1])
        # 0.1: what rounding to 8 bits leaves, so that a blank picture has an energy
        energies.append(np.log2(np.abs(band).mean() + 0.1))
        level = coarse
    return np.array(energies)


@dataclass(frozen=True)
class Look:
    """Appearance of a few frames: how their colours are distributed, and how strong texture is by scale."""

    colours: NDArray[np.float64]  # (3, 100) quantiles of L, a, b
    textures: NDArray[np.float64]  # (SCALES,) octaves

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> Look:
        """Look of frames of one size."""
        labs = np.stack([to_lab(frame) for frame in frames])
        colours = np.quantile(labs.reshape(-1, 3), QUANTILES, axis=0).T
        return cls(colours, np.mean([texture_energies(lab) for lab in labs], axis=0))

    @property
    def contrast(self) -> float:
        """Range of lightness that holds nine tenths of the pixels, in L."""
        low, high = np.interp((0.05, 0.95), QUANTILES, self.colours[0])
        return float(high - low)

    def colour_distance(self, other: Look) -> float:
        """Distance of colours in Lab units (2.3 is just noticeable).

        The 1-Wasserstein distance of each channel (mean difference of quantiles), put together as the
        components of a colour difference are.
        """
        return float(np.linalg.norm(np.abs(self.colours - other.colours).mean(-1)))

    def texture_distance(self, other: Look) -> float:
        """Mean difference of texture over scales, in octaves: 1 means twice as strong, or half."""
        return float(np.abs(self.textures - other.textures).mean())
