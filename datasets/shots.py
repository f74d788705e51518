"""Shots of a video: the stretches between cuts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from static_dynamic.datasets.frames import VideoFile

# a cut changes a thumbnail by this much (of 255) and this many times as much as the frames around it do
CHANGE, RATIO, AROUND = 11.0, 2.5, 6


def find_shots(path: Path) -> list[tuple[int, int]]:
    """Cut a video where its picture jumps: (first frame, frame after the last) of each shot."""
    thumbnails = np.stack(
        [
            cv2.resize(frame.to_ndarray(format="rgb24"), (32, 18), interpolation=cv2.INTER_AREA)
            for _, frame in VideoFile(path).frames()
        ]
    )
    return shots_of(thumbnails)


def shots_of(thumbnails: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Cut a stack of small frames (n, h, w, 3); see `find_shots`."""
    change = np.abs(np.diff(thumbnails.astype(np.float32), axis=0)).mean(axis=(1, 2, 3))  # (n - 1,)
    cuts = []
    for i in np.flatnonzero(change > CHANGE):
        around = np.delete(change[max(0, i - AROUND) : i + AROUND + 1], min(i, AROUND))
        if change[i] > RATIO * np.median(around):
            cuts.append(int(i) + 1)
    edges = [0, *cuts, len(thumbnails)]
    return [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]
