"""Four built-in styles: image filters that change the colour and texture of frames and keep the motion.

Every operation is local and equal at every position and in every frame, so that patterns move with objects.
No grain, hatching or halftone is fixed to the screen. The files ``configs/style/*.yaml`` hold parameters.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from static_dynamic.errors import UserError, nearest
from static_dynamic.stylize.flow import Frame

RENDERINGS: dict[str, Callable[..., Frame]] = {}

# If a filter's output changes, change RENDERING_VERSION, which is part of the key of cached frames.
# RENDERING_VERSION is the SHA-256 of this file in version 0.1, so that version 0.1's frames stay valid.
RENDERING_VERSION = "9578ea805b8a724097c1fff1b1c2f4e4dc7323bbf2bb2691e5992bfb8d8e0036"


def rendering(function: Callable[..., Frame]) -> Callable[..., Frame]:
    """Register an image filter; its function name is the value of the key ``rendering`` in config files."""
    RENDERINGS[function.__name__] = function
    return function


def render(frame: Frame, style: Mapping) -> Frame:
    """Apply the image filter ``style["rendering"]`` to a frame; `style` also holds filter parameters."""
    parameters = dict(style)
    name = parameters.pop("rendering")
    if name not in RENDERINGS:
        known = ", ".join(RENDERINGS)
        raise UserError(f"unknown rendering {name!r}{nearest(name, RENDERINGS)} (known: {known})")
    return RENDERINGS[name](frame, **parameters)


@rendering
def wash(frame: Frame, smooth: float, saturation: float, outline: float) -> Frame:
    """Render a frame as a watercolour: flat bright areas, saturated colours, soft dark outlines."""
    flat: NDArray = frame
    for _ in range(2):
        flat = cv2.bilateralFilter(flat, d=7, sigmaColor=smooth, sigmaSpace=5)
    lab = cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    # lightness L is at least 30: watercolour has no black
    lab[..., 0] = 30 + 0.72 * lab[..., 0]
    lab[..., 1:] = saturation * lab[..., 1:]
    colour = np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1)
    return _to_uint8(colour * (1 - outline * edges(flat))[..., None])


@rendering
def charcoal(frame: Frame, radius: float, ink: float, paper: tuple[float, float, float]) -> Frame:
    """Render a frame in charcoal on tinted paper: strokes where pixels are darker than the surroundings."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    around = cv2.GaussianBlur(grey, (0, 0), radius)
    strokes = np.clip(1 + ink * (grey - around) / (around + 0.1), 0, 1)
    tone = strokes * (0.3 + 0.7 * grey)
    return _to_uint8(tone[..., None] * np.asarray(paper, np.float32))


@rendering
def glow(frame: Frame, gain: float, spread: float) -> Frame:
    """Render a frame as neon: bright contours on a dark background; a contour's direction sets the hue."""
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255, (0, 0), 1.0)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength = np.clip(gain * np.hypot(dx, dy), 0, 1)
    # The gradient's angle is doubled, so that both sides of a line (opposite gradients) get the same hue.
    hue = (np.degrees(np.arctan2(dy, dx)) * 2) % 360
    line = cv2.cvtColor(cv2.merge([hue, np.full_like(hue, 0.85), strength]), cv2.COLOR_HSV2RGB)
    halo = cv2.GaussianBlur(line, (0, 0), spread)
    ground = np.array([0.05, 0.02, 0.12], np.float32) + 0.35 * grey[..., None]
    return _to_uint8(ground + line + 0.8 * halo)


@rendering
def screenprint(
    frame: Frame, palette: list[tuple[float, float, float]], smooth: int, outline: float
) -> Frame:
    """Render a frame as a screen print: few flat colours chosen by brightness, embossing, dark outlines."""
    flat: NDArray = cv2.medianBlur(frame, smooth)
    grey = cv2.cvtColor(flat, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    inks = np.asarray(palette, np.float32)
    position = np.clip(grey, 0, 1) * (len(inks) - 1)
    level = np.floor(position)
    # Inks blend over a narrow range of brightness, because a hard threshold would flicker.
    ramp = np.clip((position - level - 0.5) * 6 + 0.5, 0, 1)[..., None]
    lower = level.astype(int)
    upper = np.minimum(lower + 1, len(inks) - 1)
    colour = inks[lower] * (1 - ramp) + inks[upper] * ramp
    relief = 1.5 * cv2.Sobel(grey, cv2.CV_32F, 1, 1)
    return _to_uint8((colour + relief[..., None]) * (1 - outline * edges(flat))[..., None])


def edges(frame: Frame) -> NDArray[np.float32]:
    """Return the edge strength (H, W) of a frame, in [0, 1]."""
    grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255, (0, 0), 0.8)
    magnitude = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.clip((magnitude - 0.15) * 2.5, 0, 1)


def _to_uint8(image: NDArray) -> Frame:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
