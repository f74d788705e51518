"""Basics for reading frames: decode one image, limit sizes, and raise `BadFrames` for unreadable videos."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from static_dynamic.errors import UserError

# An image of more than MAX_PIXELS pixels, or a video of more than MAX_FRAMES frames, raises BadFrames.
MAX_PIXELS, MAX_FRAMES = 50_000_000, 500_000

# A function of this type allocates an output array of a given shape and dtype, as np.empty does.
Allocate = Callable[[tuple[int, ...], type], NDArray]


class BadFrames(UserError):
    """Exception for a video that cannot be read. A run may skip the video and go on with the next one."""


def read_image(source: Path | io.BytesIO, name: str = "") -> NDArray[np.uint8]:
    """Decode one image to an upright RGB array (H, W, 3); error messages call the image `name`.

    The orientation in the EXIF data is applied. Raises BadFrames if the data is not an image, or has more
    than `MAX_PIXELS` pixels.
    """
    name = name or str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadFrames(f"{name} claims {image.width}x{image.height} pixels: too large")
                ImageOps.exif_transpose(image, in_place=True)  # a copy would cost time
                return _to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFrames(f"{name} is not a readable image ({error})") from error


def stack(frames: list[NDArray], path: Path, allocate: Allocate) -> NDArray[np.uint8]:
    """Stack the frames of a video; raise BadFrames if the frames differ in size."""
    if len({frame.shape for frame in frames}) > 1:
        raise BadFrames(f"{path} holds frames of different sizes: {sorted({f.shape[1::-1] for f in frames})}")
    return np.stack(frames, out=allocate((len(frames), *frames[0].shape), np.uint8))


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if not image.mode.startswith("I"):
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    # 16-bit grey images are reduced to their high byte, because Pillow would clip the values at 255.
    grey = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
