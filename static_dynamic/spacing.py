"""Evenly spaced positions: temporal subsampling, and a few of many to look at."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray


def subsample_positions(length: int, count: int, dtype: DTypeLike = np.float32) -> NDArray[np.int64]:
    """Return the positions of uniform temporal subsampling, trunc(linspace(0, length - 1, count)): (count,).

    The `dtype` float32 is the original's, which networks apply to a clip; the views of a run are chosen in
    float64. Positions are equal for 4, 8, 13, 16 and 32 frames of any length; for other counts one frame can
    differ by one (40 frames of 160).
    """
    if np.dtype(dtype) == np.float64:
        return np.linspace(0, length - 1, count).astype(np.int64)
    import torch  # imported here because it takes seconds to load; numpy rounds float32 differently

    # on the CPU, so that rounding, and with it the choice of frames, is equal on every device
    return torch.linspace(0, length - 1, count, device="cpu").long().numpy()


def evenly_spaced(count: int, length: int, rounding: Callable = np.round) -> NDArray[np.int64]:
    """Return `count` positions of a sequence of `length`, evenly spaced from first to last; all if fewer."""
    return rounding(np.linspace(0, length - 1, min(count, length))).astype(np.int64)
