"""Split a video into shots at its cuts."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .frames import VideoFile

# At a cut, the mean absolute difference between successive thumbnails (0 to 255) exceeds CHANGE.
# This difference also exceeds RATIO times the median of the AROUND differences before and after the cut.
CHANGE, RATIO, AROUND = 11.0, 2.5, 6
# Change this value only if the code finds other shots: data sets made with another value are not reused.
# The value is the SHA-256 of this file in version 0.1 of this project.
# Data sets made with version 0.1 are therefore still reused.
SHOTS_VERSION = "3f7fb23814215f250c423546086821907e2d7c658bfddc70c71352f7992fa9d1"


def find_shots(path: Path) -> list[tuple[int, int]]:
    """Find the shots of a video; return a list of (first frame, frame after the last frame)."""
    frames = (frame.to_ndarray(format="rgb24") for _, frame in VideoFile(path).frames())
    return shots_of(np.stack([cv2.resize(frame, (32, 18), interpolation=cv2.INTER_AREA) for frame in frames]))


def shots_of(thumbnails: NDArray) -> list[tuple[int, int]]:
    """Find the shots in a video's thumbnails, uint8 (n, h, w, 3); returns the same as `find_shots`."""
    change = np.abs(np.diff(thumbnails.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))  # (n - 1,)
    cuts = []
    for i in np.flatnonzero(change > CHANGE):
        around = np.delete(change[max(0, i - AROUND) : i + AROUND + 1], min(int(i), AROUND))
        if change[i] > RATIO * np.median(around):
            cuts.append(int(i) + 1)
    edges = [0, *cuts, len(thumbnails)]
    return [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]
