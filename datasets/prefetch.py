"""Decoded frames to a GPU while it computes: pinned memory, a stream of their own, two batches at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from static_dynamic.datasets.loader import Decoded
from static_dynamic.datasets.shared_memory import give_back

BUFFERS = 2


def on_device(batches: Iterable[list[Decoded]], device: torch.device) -> Iterator[list[Decoded]]:
    """The same batches with their frames on the device, sent ahead of use where it is a GPU."""
    if device.type != "cuda":
        yield from batches
        return
    sender = Sender(device)
    for batch, sent in ahead(batches, sender.send):
        stream = torch.cuda.current_stream(device)
        stream.wait_event(sent)
        for decoded in batch:
            if decoded.frames is not None:
                decoded.frames.record_stream(stream)  # its memory is not taken before that stream is done
        yield batch


class Sender:
    """Copies frames into pinned memory and on to the device; one buffer fills while another is sent."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.buffers = [torch.empty(0, dtype=torch.uint8, pin_memory=True)] * BUFFERS
        self.sent = [torch.cuda.Event() for _ in range(BUFFERS)]
        self.turn = 0

    def send(self, batch: list[Decoded]) -> tuple[list[Decoded], torch.cuda.Event]:
        """Start to send a batch; the event is when it is there. Shared memory of its frames is given back."""
        self.turn = (self.turn + 1) % BUFFERS
        sent = self.sent[self.turn]
        sent.synchronize()  # what was sent from this buffer last has left it
        needed = sum(decoded.frames.numel() for decoded in batch if decoded.frames is not None)
        if needed > len(self.buffers[self.turn]):
            self.buffers[self.turn] = torch.empty(needed, dtype=torch.uint8, pin_memory=True)
        room = self.buffers[self.turn]
        with torch.cuda.stream(self.stream):
            moved = []
            for decoded in batch:
                if decoded.frames is not None:
                    frames, room = self._move(decoded.frames, room)
                    decoded = replace(decoded, frames=frames)
                moved.append(decoded)
            # an event of its own: the buffer's is recorded anew before a slow reader looks at this one
            there = torch.cuda.Event()
            there.record(self.stream)
            sent.record(self.stream)
        return moved, there

    def _move(self, frames: Tensor, room: Tensor) -> tuple[Tensor, Tensor]:
        """One clip's frames on their way to the device, and the room left behind them."""
        pinned = room[: frames.numel()].view(frames.shape)
        pinned.copy_(frames)
        give_back(frames)
        return pinned.to(self.device, non_blocking=True), room[frames.numel() :]


def ahead(items: Iterable, make: Callable, depth: int = 1) -> Iterator:
    """``map(make, items)``, made by a thread up to `depth` items ahead of the one in use.

    Errors of either come out where the item would have; a reader that stops early stops the thread.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    over = threading.Event()

    def put(kind: str, value) -> None:
        while not over.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put("item", make(item))
                if over.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        over.set()
        thread.join()
