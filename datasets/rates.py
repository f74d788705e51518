"""Convert seconds and frame rates to frame positions, also for videos whose frame rate varies."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Frame rates are equal if their relative difference is at most this value (30000/1001 and 29.97 are equal).
EQUAL_RATES = 1e-3
# Tolerance for frame times in seconds, because some formats round times to milliseconds.
ROUNDING = 1e-3

Times = Sequence[float] | NDArray[np.float64]


def resample(count: int, fps: float, to_fps: float, times: Times | None = None) -> NDArray[np.int64]:
    """Return the frame indices that resample a video of `count` frames to the rate `to_fps`.

    The video has the constant rate `fps`, or shows its frames at `times`, in seconds from 0 on.
    """
    if times is None:
        return (np.arange(max(1, int(count * to_fps / fps))) * (fps / to_fps)).astype(np.int64)
    end = times[-1] + (times[-1] - times[-2])
    wanted = np.arange(max(1, int((end + ROUNDING) * to_fps))) / to_fps
    return np.searchsorted(times, wanted + ROUNDING, side="right") - 1


def span(seconds: tuple[float, float], fps: float, times: Times | None = None) -> tuple[int, int]:
    """Return (first frame, frame after the last frame) of an interval in seconds.

    The video has the constant rate `fps`, or shows its frames at `times`. If the interval goes on after the
    last of `times`, frames of the average rate `fps` are counted there.
    """
    if times is None:
        first, end = (int(fps * second) for second in seconds)
        return first, end
    first, end = (int(np.searchsorted(times, second - ROUNDING)) for second in seconds)
    return first, end + max(0, int(fps * (seconds[1] - times[-1])) - 1)


def equal_rates(rates: Sequence[float]) -> bool:
    """Return whether all frame rates are equal up to rounding errors."""
    return not rates or max(rates) - min(rates) <= EQUAL_RATES * max(rates)
