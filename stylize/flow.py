"""Compute dense optical flow, warp images along a flow, check the flow's consistency, and write flow files.

A flow from frame a to frame b is (H, W, 2) float32, (right, down) in pixels: the point at pixel x of a lies
at x + flow[x] in b.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
Flow = NDArray[np.float32]  # (H, W, 2): right, down

# FLO_MAGIC: first 4 bytes of a Middlebury .flo file ("PIEH")
FLO_MAGIC = np.float32(202021.25).tobytes()
# MIN_SIDE: 16 pixels, because the DIS flow algorithm matches 8x8 patches at half resolution
MIN_SIDE = 16
# Middlebury's colour wheel (Baker et al., 2007) runs from red over yellow, green, cyan, blue, magenta to red.
# An arc of the wheel is (number of hues, RGB channel that changes, +1 if rising or -1 if falling).
ARCS = ((15, 1, +1), (6, 0, -1), (4, 2, +1), (11, 1, -1), (13, 0, +1), (6, 2, -1))


def dense_flow(start: Frame, end: Frame) -> Flow:
    """Convert two RGB frames (H, W, 3) to grey and compute the optical flow by DIS (medium preset).

    Raises UserError if the frames differ in size, or are smaller than DIS accepts.
    """
    sizes = [f"{frame.shape[1]}x{frame.shape[0]}" for frame in (start, end)]
    if start.shape != end.shape:
        raise UserError(f"optical flow needs frames of one size, not {' and '.join(sizes)}: scale the frames")
    if min(start.shape[:2]) < MIN_SIDE:
        raise UserError(f"frames have {sizes[0]} pixels: optical flow needs at least {MIN_SIDE}x{MIN_SIDE}")
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (start, end)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined] # OpenCV's type stubs lack DIS
    return dis.calc(*grey, None)


def grid(height: int, width: int) -> NDArray[np.float32]:
    """Return the coordinates (x, y) of every pixel as an array (H, W, 2)."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def look_up(image: NDArray, positions: NDArray[np.float32]) -> NDArray:
    """Sample an image bilinearly at `positions`, an array (h, w, 2) of x, y; clamp to the image border."""
    # cv2.remap's second map is empty, because `positions` holds both x and y
    none: Any = None
    return cv2.remap(image, positions, none, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def warp(image: NDArray, flow: Flow) -> NDArray:
    """Warp an image backwards along a flow: ``out[x] = image[x + flow[x]]``.

    With the flow from frame b to frame a, warping frame a reproduces frame b.
    """
    return look_up(image, grid(*flow.shape[:2]) + flow)


def consistent(forward: Flow, backward: Flow) -> NDArray[np.bool_]:
    """Return a mask (H, W) of pixels whose flow ends inside the image and agrees with the backward flow.

    Elsewhere the pixel is occluded or its flow is wrong. The tolerance is that of Sundaram, Brox and Keutzer
    (ECCV 2010): 0.01 (\\|f\\|^2 + \\|b\\|^2) + 0.5.
    """
    height, width = forward.shape[:2]
    target = grid(height, width) + forward
    returned = look_up(backward, target)
    gap, size = _square(forward + returned), _square(forward) + _square(returned)
    inside = ((target >= 0) & (target <= (width - 1, height - 1))).all(-1)
    return inside & (gap < 0.01 * size + 0.5)


def write_flo(path: Path, flow: Flow) -> None:
    """Write a flow as a Middlebury ``.flo`` file, atomically."""
    with atomic_path(path) as temporary:
        height, width = flow.shape[:2]
        header = FLO_MAGIC + np.array([width, height], "<i4").tobytes()
        temporary.write_bytes(header + np.ascontiguousarray(flow, "<f4").tobytes())


def colour_wheel() -> NDArray[np.float32]:
    """Return the 55 hues of the Middlebury colour wheel, beginning with red: RGB in 0..255, shape (55, 3)."""
    colour, wheel = np.array([255, 0, 0]), []
    for count, channel, sign in ARCS:
        for i in range(count):
            row = colour.copy()
            row[channel] = (0 if sign > 0 else 255) + sign * (255 * i // count)
            wheel.append(row)
        colour[channel] += sign * 255
    return np.array(wheel, np.float32)


def colour_flow(flow: Flow, full: float | None = None) -> Frame:
    """Draw a flow as an RGB image (H, W, 3), in which the hue is the direction and white means no motion.

    `full` is the length in pixels that gets full colour; longer vectors are darkened. None: the length of the
    longest vector, as in the ``FlowImages`` of VOS data sets; the colours of two frames are not comparable.
    """
    length = np.sqrt(_square(flow))
    # 1e-5 avoids a division by zero, so that a frame without motion is white
    scale = float(length.max()) + 1e-5 if full is None else full
    radius = (length / scale)[..., None]
    wheel = colour_wheel()
    angle = np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi  # -1..1
    position = (angle + 1) / 2 * (len(wheel) - 1)
    below = np.floor(position).astype(int)
    share = (position - below)[..., None]
    hue = ((1 - share) * wheel[below] + share * wheel[(below + 1) % len(wheel)]) / 255
    colour = np.where(radius <= 1, 1 - radius * (1 - hue), 0.75 * hue)
    return np.floor(255 * colour).astype(np.uint8)


def _square(flow: Flow) -> NDArray[np.float32]:
    return np.square(flow).sum(-1)
