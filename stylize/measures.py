"""Quality measures of a stylization, computed from consecutive frames.

Motion is kept if the flow of the stylized frames equals the flow of the original frames. Appearance is
changed if colours and texture differ. A style flickers if a stylized frame, warped along the flow of the
original frames, differs from the next stylized frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from static_dynamic.stylize.flow import Flow, Frame, consistent, dense_flow, warp

QUANTILES = np.linspace(0.005, 0.995, 100)
# GRADIENT_SIGMA: sigma in pixels of the Gaussian blur that is applied before image gradients are computed
GRADIENT_SIGMA = 2.0
# SCALES: number of texture scales, for structure of 1, 2, 4 and 8 pixels
SCALES = 4


@dataclass(frozen=True)
class Motion:
    """Optical flow between two unstylized frames in both directions, and masks of pixels with valid flow."""

    # `forward`: flow from the first frame to the second
    forward: Flow
    # `backward`: flow from the second frame to the first
    backward: Flow
    # `forward_valid` (H, W) is True where the first frame's pixel is visible in the second frame.
    forward_valid: NDArray[np.bool_]
    # `backward_valid` (H, W) is True where the second frame's pixel is visible in the first frame.
    backward_valid: NDArray[np.bool_]

    @classmethod
    def between(cls, first: Frame, second: Frame) -> Motion:
        """Compute the flow between two frames in both directions."""
        forward, backward = dense_flow(first, second), dense_flow(second, first)
        return cls(forward, backward, consistent(forward, backward), consistent(backward, forward))

    def moving(self, pixels: float) -> NDArray[np.bool_]:
        """Return a mask (H, W) of pixels whose forward flow is valid and longer than `pixels`."""
        return self.forward_valid & (np.linalg.norm(self.forward, axis=-1) > pixels)


def motion_error(motion: Motion, flow: Flow, where: NDArray[np.bool_]) -> float:
    """Return the median of |flow - reference| / |reference| in a mask; the reference is `motion.forward`.

    0 means equal motion; 1 is as wrong as no motion at all.
    """
    reference = motion.forward[where]
    difference = np.linalg.norm(flow[where] - reference, axis=-1)
    return float(np.median(difference / np.linalg.norm(reference, axis=-1)))


def residual_motion(motion: Motion, first: Frame, second: Frame) -> float:
    """Warp frame `first` to frame `second` along `motion`; return the remaining displacement in pixels.

    The mean absolute difference in grey levels, over pixels that both frames show, is divided by the mean
    gradient of the second frame in grey levels per pixel. The division makes styles of fine and of soft
    texture comparable. The gradient is that of the blurred frame, so that noise increases the difference but
    hardly the gradient. NaN if no pixel is visible in both frames.
    """
    moved = warp(first.astype(np.float32), motion.backward)
    difference = np.abs(second - moved).mean(-1)[motion.backward_valid]
    soft = cv2.GaussianBlur(second.astype(np.float32), (0, 0), GRADIENT_SIGMA)
    gradient = (np.abs(np.diff(soft, axis=0)).mean() + np.abs(np.diff(soft, axis=1)).mean()) / 2
    # The gradient of a blank image is 0, so at least 0.5 grey levels per pixel are assumed.
    return float(difference.mean() / max(gradient, 0.5)) if difference.size else float("nan")


def to_lab(frame: Frame) -> NDArray[np.float32]:
    """Convert an sRGB frame to CIE Lab: (H, W, 3) float32, L in 0..100."""
    return cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).astype(np.float32, copy=False)


def texture_energies(lab: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the texture strength of each Laplacian pyramid level: log2 of the level's mean magnitude."""
    level: NDArray = np.ascontiguousarray(lab[..., 0])
    energies = []
    for _ in range(SCALES):
        coarse = cv2.pyrDown(level)
        band = level - cv2.pyrUp(coarse, dstsize=level.shape[::-1])
        # Adding 0.1, the size of 8-bit rounding errors, keeps the logarithm of a blank picture finite.
        energies.append(np.log2(np.abs(band).mean() + 0.1))
        level = coarse
    return np.array(energies)


@dataclass(frozen=True)
class Appearance:
    """Appearance of a few frames: distribution of colours, and strength of texture per scale."""

    # `colours`: 100 quantiles of each channel L, a, b; shape (3, 100)
    colours: NDArray[np.float64]
    # `textures`: log2 of the texture strength per scale; shape (SCALES,)
    textures: NDArray[np.float64]

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> Appearance:
        """Measure the colours and the texture of frames of equal size."""
        labs = np.stack([to_lab(frame) for frame in frames])
        colours = np.quantile(labs.reshape(-1, 3), QUANTILES, axis=0).T.astype(np.float64, copy=False)
        return cls(colours, np.mean([texture_energies(lab) for lab in labs], axis=0))

    @property
    def contrast(self) -> float:
        """Contrast: difference between the 95 % and the 5 % quantile of the lightness L."""
        low, high = np.interp((0.05, 0.95), QUANTILES, self.colours[0])
        return float(high - low)

    def colour_distance(self, other: Appearance) -> float:
        """Return the distance of two colour distributions in Lab units (2.3 is a just noticeable difference).

        The 1-Wasserstein distances of the three channels (mean differences of quantiles) are combined by the
        Euclidean norm.
        """
        return float(np.linalg.norm(np.abs(self.colours - other.colours).mean(-1)))

    def texture_distance(self, other: Appearance) -> float:
        """Return the mean over scales of |log2 of the ratio of texture strengths|; 1 means a factor of 2."""
        return float(np.abs(self.textures - other.textures).mean())

    def distances(self, other: Appearance) -> dict[str, float]:
        """Return a dict of the colour distance and the texture distance to the appearance `other`."""
        return {"colour": self.colour_distance(other), "texture": self.texture_distance(other)}
