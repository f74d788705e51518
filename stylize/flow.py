"""Dense optical flow: computed, followed, checked, written as ``.flo`` and as colour.

A flow from frame a to frame b is (H, W, 2) float32, (right, down) in pixels: what is at x in a is at
x + flow[x] in b.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from static_dynamic.datasets.frames import MAX_PIXELS
from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path

Flow = NDArray[np.float32]  # (H, W, 2): right, down
FLO_MAGIC = np.float32(202021.25).tobytes()  # Middlebury: "PIEH"
# DIS needs one 8x8 patch at its second scale
MIN_SIDE = 16
# colours from one corner of the wheel to the next, with the channels that rise and fall (Baker et al., 2007):
# red, yellow, green, cyan, blue, magenta, red
ARCS = ((15, 1, +1), (6, 0, -1), (4, 2, +1), (11, 1, -1), (13, 0, +1), (6, 2, -1))


def dense_flow(start: NDArray[np.uint8], end: NDArray[np.uint8]) -> Flow:
    """Flow from one RGB frame (H, W, 3) to another: DIS, medium preset, on grey images, as the original tool.

    Raises
    ------
    UserError
        Frames of different sizes, or smaller than DIS can take.
    """
    if start.shape != end.shape:
        raise UserError(
            f"optical flow needs frames of one size, not {start.shape[1]}x{start.shape[0]} and "
            f"{end.shape[1]}x{end.shape[0]}: scale them first"
        )
    if min(start.shape[:2]) < MIN_SIDE:
        raise UserError(
            f"optical flow needs frames of {MIN_SIDE}x{MIN_SIDE} pixels at least, "
            f"these have {start.shape[1]}x{start.shape[0]}"
        )
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (start, end)]
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)


def grid(height: int, width: int) -> NDArray[np.float32]:
    """Coordinates (x, y) of every pixel, (H, W, 2)."""
    return np.stack(np.meshgrid(*map(np.float32, (range(width), range(height)))), axis=-1)


def look_up(image: NDArray, positions: NDArray[np.float32]) -> NDArray:
    """Bilinear values of an image (H, W[, C]) at positions (h, w, 2) in x, y; its border goes on outside."""
    return cv2.remap(image, positions, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def warp(image: NDArray, flow: Flow) -> NDArray:
    """Fetch an image along a flow: ``out[x] = image[x + flow[x]]``.

    With the flow from frame b to frame a this makes a look like b.
    """
    return look_up(image, grid(*flow.shape[:2]) + flow)


def consistent(there: Flow, back: Flow) -> NDArray[np.bool_]:
    """Where a flow and the flow back agree and stay in the picture, (H, W): elsewhere is occluded or unknown.

    The tolerance is that of Sundaram, Brox and Keutzer (ECCV 2010): 0.01 (\\|f\\|^2 + \\|b\\|^2) + 0.5.
    """
    height, width = there.shape[:2]
    target = grid(height, width) + there
    returned = look_up(back, target)
    gap, size = _square(there + returned), _square(there) + _square(returned)
    inside = ((target >= 0) & (target <= (width - 1, height - 1))).all(-1)
    return inside & (gap < 0.01 * size + 0.5)


def write_flo(path: Path, flow: Flow) -> None:
    """Write a flow in the Middlebury format, whole or not at all."""
    with atomic_path(path) as temporary:
        height, width = flow.shape[:2]
        header = FLO_MAGIC + np.array([width, height], "<i4").tobytes()
        temporary.write_bytes(header + np.ascontiguousarray(flow, "<f4").tobytes())


def read_flo(path: Path) -> Flow:
    """Read a flow in the Middlebury format.

    Raises
    ------
    UserError
        Another kind of file, one that is cut short, or one that claims more pixels than any frame has.
    """
    with path.open("rb") as file:
        header = file.read(12)
        if len(header) < 12 or header[:4] != FLO_MAGIC:
            raise UserError(f"{path} is not a .flo file (it does not begin with PIEH): compute it anew")
        width, height = map(int, np.frombuffer(header, "<i4", offset=4))
        if width < 1 or height < 1 or width * height > MAX_PIXELS:
            raise UserError(f"{path} claims {width}x{height} pixels: not read")
        size = 8 * width * height
        data = file.read(size + 1)
    if len(data) != size:
        kind = "is cut short" if len(data) < size else "is longer than its header says"
        raise UserError(f"{path} {kind} ({width}x{height} pixels need {12 + size} bytes): compute it anew")
    return np.frombuffer(data, "<f4").reshape(height, width, 2).astype(np.float32)


def colour_wheel() -> NDArray[np.float32]:
    """The 55 hues of the Middlebury wheel, (55, 3) RGB in 0..255, from red (motion to the right) on."""
    colour, wheel = np.array([255, 0, 0]), []
    for count, channel, sign in ARCS:
        for i in range(count):
            row = colour.copy()
            row[channel] = (0 if sign > 0 else 255) + sign * (255 * i // count)
            wheel.append(row)
        colour[channel] += sign * 255
    return np.float32(wheel)


def colour_flow(flow: Flow, full: float | None = None) -> NDArray[np.uint8]:
    """Colour-code a flow: (H, W, 3) RGB, hue by direction, white where nothing moves.

    Parameters
    ----------
    full
        Length in pixels that gets full colour; what is longer is darkened. None: the longest vector of this
        flow, as the ``FlowImages`` of VOS data sets have it; colours of two frames then are not comparable.
    """
    length = np.sqrt(_square(flow))
    # 1e-5, so that a still frame is white
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
