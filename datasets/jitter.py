"""Colour jitter of flow images, whose colours encode motion (Kowal et al., CVPR 2022).

Hue encodes the direction of motion, saturation its magnitude.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

# The largest possible hue shift is drawn uniformly from this range.
HUE_RANGE = (0.1, 0.5)
# The largest possible change of the saturation factor is drawn uniformly from this range.
SATURATION_RANGE = (0.1, 1.0)


class Jitter(NamedTuple):
    """Change of an image's hue and saturation; their order matters, because each change rounds to 8 bits."""

    # Hue shift, as a fraction of a full turn of the colour circle.
    hue: float
    # Factor by which the saturation is multiplied.
    saturation: float
    # 1 if the hue is changed before the saturation, else 0.
    hue_first: float


def draw_jitter(rng: np.random.Generator) -> Jitter:
    """Draw a random change of hue and one of saturation; for each, draw first a limit, then the change.

    The paper's code draws in the same way. Only here, a hue shift of zero is drawn again, because zero might
    leave the flow image unchanged.
    """
    hue = 0.0
    while not hue_steps(hue):
        largest = rng.uniform(*HUE_RANGE)
        hue = rng.uniform(-largest, largest)
    largest = rng.uniform(*SATURATION_RANGE)
    return Jitter(hue, rng.uniform(max(0.0, 1 - largest), 1 + largest), float(rng.integers(2)))


def hue_steps(hue: float) -> int:
    """Convert a hue shift (fraction of a full turn) to steps of an 8-bit hue, which has 256 values."""
    return int(hue * 255) % 256


def apply_jitter(image: Image.Image, jitter: Jitter) -> Image.Image:
    """Change hue and saturation of an RGB image; each step rounds to 8 bits, as in the paper's code."""
    steps = [_scale_saturation, _shift_hue]
    for step in reversed(steps) if jitter.hue_first else steps:
        image = step(image, jitter)
    return image


def _scale_saturation(image: Image.Image, jitter: Jitter) -> Image.Image:
    return ImageEnhance.Color(image).enhance(jitter.saturation)


def _shift_hue(image: Image.Image, jitter: Jitter) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(h + hue_steps(jitter.hue)) % 256 for h in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
