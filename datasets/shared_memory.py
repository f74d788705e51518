"""Shared memory in which workers return decoded frames to the main process.

Each worker reuses slots of this memory. Without slots, torch makes a shared-memory file per tensor, which
takes a tenth of the time of decoding.
"""

from __future__ import annotations

import logging
import math
import mmap
from dataclasses import replace
from typing import NamedTuple, Self

import torch
from torch import Tensor

log = logging.getLogger(__name__)

# A slot holds the frames of one clip: its first byte is FREE or TAKEN, pixels begin at byte HEADER.
FREE, TAKEN, HEADER = 0, 1, 64
# Each worker has REGION bytes of address space; a memory page is allocated only when it is written.
REGION = 1 << 30

# Start addresses of the blocks of shared memory in which this process may mark slots as free.
_open: set[int] = set()


class Location(NamedTuple):
    """Position and shape of frames in shared memory, sent between processes in place of the frames."""

    offset: int
    shape: tuple[int, ...]


class SharedFrames:
    """Shared memory with `REGION` bytes for each worker, mapped before the worker processes are forked."""

    def __init__(self, workers: int):
        self.memory = torch.frombuffer(mmap.mmap(-1, workers * REGION), dtype=torch.uint8)
        self.base = self.memory.data_ptr()
        # (offset, size) of each slot that this worker uses
        self.slots: list[tuple[int, int]] = []
        _open.add(self.base)

    @classmethod
    def create(cls, workers: int) -> Self | None:
        """Map shared memory for `workers` workers; return None if the system refuses to reserve memory."""
        try:
            return cls(workers)
        except OSError as error:
            log.info("no shared memory for %d workers (%s): torch sends frames, more slowly", workers, error)
            return None

    def allocate(self, shape: tuple[int, ...], worker: int) -> Tensor:
        """Allocate a uint8 tensor in the region of `worker`, or in private memory if the region is full."""
        size = HEADER + math.prod(shape)
        offset = next((o for o, length in self.slots if length >= size and self.memory[o] == FREE), None)
        if offset is None:
            last, length = self.slots[-1] if self.slots else (worker * REGION, 0)
            offset = last + -(-length // HEADER) * HEADER
            if offset + size > (worker + 1) * REGION:
                return torch.empty(shape, dtype=torch.uint8)
            self.slots.append((offset, size))
        self.memory[offset] = TAKEN
        return self.memory[offset + HEADER : offset + size].view(shape)

    def pack(self, decoded):
        """Replace the frames of `decoded` by a `Location`, if the frames are in this shared memory."""
        frames = decoded.frames
        if frames is None or frames.untyped_storage().data_ptr() != self.base:
            return decoded
        return replace(decoded, frames=Location(frames.storage_offset(), tuple(frames.shape)))

    def unpack(self, decoded):
        """Replace a `Location` in `decoded` by the frames there; any process may have packed them."""
        if not isinstance(decoded.frames, Location):
            return decoded
        offset, shape = decoded.frames
        return replace(decoded, frames=self.memory[offset : offset + math.prod(shape)].view(shape))

    def close(self) -> None:
        """Release all slots; call this after the workers have ended. Frames in use stay valid."""
        _open.discard(self.base)


def release(frames: Tensor) -> None:
    """Mark the slot of `frames` as free for reuse by its worker, if the frames are in shared memory."""
    storage = frames.untyped_storage()
    if not frames.is_cuda and storage.data_ptr() in _open:
        storage[frames.storage_offset() - HEADER] = FREE
