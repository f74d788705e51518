"""Colour jitter of flow pictures, which changes what they say of motion: hue is its direction, saturation
its strength (Kowal et al., CVPR 2022)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

# how far hue and saturation may go is drawn first, between these bounds
HUE_RANGE, SATURATION_RANGE = (0.1, 0.5), (0.1, 1.0)


class Jitter(NamedTuple):
    """One change of colours: `hue` is a share of a full turn, `saturation` a factor; which comes first
    matters."""

    hue: float
    saturation: float
    hue_first: float  # 0 or 1


def draw_jitter(draw: np.random.Generator) -> Jitter:
    """Draw a change as the original does: a range each time, then hue and saturation within it, in either
    order; but never a turn by nothing, which might leave a picture as it is."""
    hue = 0.0
    while not hue_steps(hue):
        reach = draw.uniform(*HUE_RANGE)
        hue = draw.uniform(-reach, reach)
    reach = draw.uniform(*SATURATION_RANGE)
    return Jitter(hue, draw.uniform(max(0.0, 1 - reach), 1 + reach), float(draw.integers(2)))


def hue_steps(hue: float) -> int:
    """A turn of hue in the 256 steps that 8 bits have."""
    return int(hue * 255) % 256


def apply_jitter(image: Image.Image, jitter: Jitter) -> Image.Image:
    """Change the colours of an RGB picture, in 8 bits as the original does."""
    steps = [_saturate, _turn]
    for step in reversed(steps) if jitter.hue_first else steps:
        image = step(image, jitter)
    return image


def _saturate(image: Image.Image, jitter: Jitter) -> Image.Image:
    return ImageEnhance.Color(image).enhance(jitter.saturation)


def _turn(image: Image.Image, jitter: Jitter) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(h + hue_steps(jitter.hue)) % 256 for h in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
