"""Evenly spaced positions in a sequence, for temporal subsampling or to select a few of many items."""

from collections.abc import Callable

import numpy as np
from numpy.typing import DTypeLike, NDArray


def subsample_positions(length: int, count: int, dtype: DTypeLike = np.float32) -> NDArray[np.int64]:
    """Return uniformly subsampled frame positions (count,): trunc(linspace(0, length - 1, count)).

    Networks subsample a clip in float32, as the original code does; the frames of a run are chosen in
    float64. Both give equal positions for 4, 8, 13, 16 and 32 frames of any length; for other counts one
    position can differ by one (40 frames of 160).
    """
    if np.dtype(dtype) == np.float64:
        return np.linspace(0, length - 1, count).astype(np.int64)
    # Use torch, because numpy's linspace rounds float32 differently.
    # The import is inside the function, because torch loads slowly.
    import torch

    # The positions are computed on the CPU, so that rounding selects the same frames on every device.
    return torch.linspace(0, length - 1, count, device="cpu").long().numpy()


def evenly_spaced(count: int, length: int, rounding: Callable = np.round) -> NDArray[np.int64]:
    """Return at most `count` positions, evenly spaced from the first to the last of `length` items."""
    return rounding(np.linspace(0, length - 1, min(count, length))).astype(np.int64)
