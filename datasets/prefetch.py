"""Copy decoded frames to a GPU during computation, through pinned memory and a separate CUDA stream."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from .loader import Decoded
from .shared_memory import release

# Number of pinned buffers: one buffer is filled while the other buffer is copied to the device.
BUFFERS = 2


def on_device(batches: Iterable[list[Decoded]], device: torch.device) -> Generator[list[Decoded], None, None]:
    """Yield the batches with their frames on the device; frames are copied to a GPU ahead of use."""
    if device.type != "cuda":
        yield from batches
        return
    sender = Sender(device)
    for batch, copied in ahead(batches, sender.send):
        stream = torch.cuda.current_stream(device)
        stream.wait_event(copied)
        for decoded in batch:
            if decoded.frames is not None:
                # keep this memory until `stream` has used it
                decoded.frames.record_stream(stream)
        yield batch


class Sender:
    """Copies frames into pinned buffers and from there to the device, alternating between the buffers."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.buffers = [torch.empty(0, dtype=torch.uint8, pin_memory=True)] * BUFFERS
        # One CUDA event per buffer, recorded when the buffer has been copied to the GPU.
        self.copied = [torch.cuda.Event() for _ in range(BUFFERS)]
        self.turn = 0

    def send(self, batch: list[Decoded]) -> tuple[list[Decoded], torch.cuda.Event]:
        """Start copying a batch to the device; return (batch on the device, CUDA event after the copy)."""
        self.turn = (self.turn + 1) % BUFFERS
        copied = self.copied[self.turn]
        # wait until this buffer is copied, because it is overwritten now
        copied.synchronize()
        needed = sum(decoded.frames.numel() for decoded in batch if decoded.frames is not None)
        if needed > len(self.buffers[self.turn]):
            self.buffers[self.turn] = torch.empty(needed, dtype=torch.uint8, pin_memory=True)
        buffer = self.buffers[self.turn]
        with torch.cuda.stream(self.stream):
            moved = []
            for decoded in batch:
                if decoded.frames is not None:
                    pinned = buffer[: decoded.frames.numel()].view(decoded.frames.shape)
                    pinned.copy_(decoded.frames)
                    release(decoded.frames)
                    decoded = replace(decoded, frames=pinned.to(self.device, non_blocking=True))
                    buffer = buffer[pinned.numel() :]
                moved.append(decoded)
            # Each batch has its own event: the buffer's event may already be recorded for a later batch
            # when the consumer waits.
            arrived = torch.cuda.Event()
            arrived.record(self.stream)
            copied.record(self.stream)
        return moved, arrived


def ahead(items: Iterable, make: Callable, depth: int = 2) -> Iterator:
    """Yield the items of ``map(make, items)``, which a thread computes up to `depth` items in advance.

    An error in `items` or `make` is raised when its item is due. The thread ends if the consumer stops.
    """
    made = map(make, items)
    end = object()
    pool = ThreadPoolExecutor(max_workers=1)
    try:
        pending = deque(pool.submit(next, made, end) for _ in range(depth))
        while (value := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, made, end))
            yield value
    finally:
        pool.shutdown(cancel_futures=True)
