"""Split a video into shots at its cuts."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .frames import VideoFile

# At a cut, the mean absolute difference of successive thumbnails (pixels from 0 to 255) exceeds CHANGE.
CHANGE = 11.0
# The difference at a cut also exceeds RATIO times the median of the AROUND differences on each side of it.
RATIO, AROUND = 2.5, 6
# Change SHOTS_VERSION if the code splits videos differently: data sets of another version are not reused.
# The value is the SHA-256 of this file in version 0.1, so that data sets made by version 0.1 are reused.
SHOTS_VERSION = "3f7fb23814215f250c423546086821907e2d7c658bfddc70c71352f7992fa9d1"


def find_shots(path: Path) -> list[tuple[int, int]]:
    """Find the shots of a video; return a list of (first frame, frame after the last frame)."""
    small = [cv2.resize(f, (32, 18), interpolation=cv2.INTER_AREA) for f in VideoFile(path).frames()]
    return shots_of(np.stack(small))


def shots_of(thumbnails: NDArray) -> list[tuple[int, int]]:
    """Find the shots of a video, as `find_shots` does, from its uint8 thumbnails (frames, h, w, 3)."""
    change = np.abs(np.diff(thumbnails.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))  # (n - 1,)
    cuts = []
    for i in np.flatnonzero(change > CHANGE):
        around = np.delete(change[max(0, i - AROUND) : i + AROUND + 1], min(int(i), AROUND))
        if change[i] > RATIO * np.median(around):
            cuts.append(int(i) + 1)
    edges = [0, *cuts, len(thumbnails)]
    return [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]
