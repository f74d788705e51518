"""Average tensors over intervals of equal length that need not be whole numbers of positions."""

from functools import lru_cache

import torch
from torch import Tensor


def resample(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Average the last axes of a tensor to `sizes` (one number per axis), in float32.

    Positions that overlap several of the new positions count by the overlapping area.
    """
    for axis, size in enumerate(sizes, start=x.dim() - len(sizes)):
        x = average_along(x, axis, size)
    return x


def average_along(x: Tensor, axis: int, size: int) -> Tensor:
    """Average one axis of a tensor to `size` intervals of equal length, in float32."""
    own = x.shape[axis]
    if own == size:
        return x.float()
    if own % size == 0:
        return x.unflatten(axis, (size, own // size)).mean(dim=axis + 1, dtype=torch.float32)
    return torch.tensordot(x.float(), overlaps(own, size).to(x.device), dims=([axis], [0])).movedim(-1, axis)


@lru_cache
def overlaps(own: int, size: int) -> Tensor:
    """Return the fraction (own, size) of each new interval that each of `own` equal intervals covers."""
    edges, new = torch.arange(own + 1).double() / own, torch.arange(size + 1).double() / size
    shared = torch.minimum(edges[1:, None], new[1:]) - torch.maximum(edges[:-1, None], new[:-1])
    return (shared.clamp(min=0) * size).float()
