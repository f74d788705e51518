"""Memory that a worker fills and the main process reads, used again and again: fresh shared pages cost a
third of what it costs to decode what goes into them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# the first byte of a buffer says whether it may be filled; pixels begin at a whole cache line
FREE, TAKEN, HEADER = 0, 1, 64
# buffers that a worker remembers; those that nobody gives back fall out, and go when their reader goes
REMEMBERED = 64


class SharedFrames:
    """The buffers of one worker."""

    def __init__(self) -> None:
        self.buffers: list[Tensor] = []

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """Room for uint8 frames in a buffer that is free, or in a new one."""
        count = math.prod(shape)
        fitting = (b for b in self.buffers if b[0] == FREE and len(b) >= HEADER + count)
        buffer = next(fitting, None)
        if buffer is None:
            storage = torch.UntypedStorage._new_shared(HEADER + count)  # as torch's default_collate does
            buffer = torch.empty(0, dtype=torch.uint8).set_(storage)
            self.buffers = [*self.buffers[1 - REMEMBERED :], buffer]
        buffer[0] = TAKEN
        return buffer[HEADER : HEADER + count].view(shape)


def give_back(frames: Tensor) -> None:
    """Let the worker fill the buffer of `frames` again: they must not be read from now on."""
    if not frames.is_cuda and frames.is_shared():  # torch calls memory of a GPU shared, too
        frames.untyped_storage()[0] = FREE
