"""Memory that workers fill and the main process reads, used again and again: fresh shared pages, and passing
each one's file from process to process, cost a tenth of what it costs to decode what goes into them."""

from __future__ import annotations

import logging
import math
import mmap
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# the first byte of a slot says whether it may be filled; pixels begin at a whole cache line
FREE, TAKEN, HEADER = 0, 1, 64
# of a worker; memory is used from where it is written first
REGION = 1 << 30

# where the memory begins that this process may give back slots of
_known: set[int] = set()


class Place(NamedTuple):
    """Where frames lie: they go from process to process as this."""

    offset: int
    shape: tuple[int, ...]


class SharedFrames:
    """A region for each worker, of memory that is there before they fork."""

    def __init__(self, workers: int):
        self.memory = torch.frombuffer(mmap.mmap(-1, workers * REGION), dtype=torch.uint8)
        self.base = self.memory.data_ptr()
        self.slots: list[tuple[int, int]] = []  # offset and size of those of this worker
        _known.add(self.base)

    @classmethod
    def of(cls, workers: int) -> SharedFrames | None:
        """Memory for so many workers; None where the machine does not promise as much."""
        try:
            return cls(workers)
        except OSError as error:
            log.info("no memory is shared with %d workers (%s): frames are sent one by one", workers, error)
            return None

    def take(self, shape: tuple[int, ...], worker: int) -> Tensor:
        """Room for uint8 frames in a slot of `worker` that is free, or in a new one; memory of its own where
        the region is full."""
        size = HEADER + math.prod(shape)
        offset = next((o for o, room in self.slots if room >= size and self.memory[o] == FREE), None)
        if offset is None:
            last, room = self.slots[-1] if self.slots else (worker * REGION, 0)
            offset = last + -(-room // HEADER) * HEADER
            if offset + size > (worker + 1) * REGION:
                return torch.empty(shape, dtype=torch.uint8)
            self.slots.append((offset, size))
        self.memory[offset] = TAKEN
        return self.memory[offset + HEADER : offset + size].view(shape)

    def pack(self, decoded):
        """`Decoded` frames of this memory as the place where they lie."""
        frames = decoded.frames
        if frames is None or frames.untyped_storage().data_ptr() != self.base:
            return decoded
        return replace(decoded, frames=Place(frames.storage_offset(), tuple(frames.shape)))

    def unpack(self, decoded):
        """What `pack` packed, in another process."""
        if not isinstance(decoded.frames, Place):
            return decoded
        offset, shape = decoded.frames
        return replace(decoded, frames=self.memory[offset : offset + math.prod(shape)].view(shape))

    def close(self) -> None:
        """Take back no more slots; frames that are still in use stay."""
        _known.discard(self.base)


def give_back(frames: Tensor) -> None:
    """Let the worker fill the slot of `frames` again: they must not be read from now on."""
    storage = frames.untyped_storage()
    if not frames.is_cuda and storage.data_ptr() in _known:
        storage[frames.storage_offset() - HEADER] = FREE
