"""Prefetching to a GPU, with a stand-in for the GPU that delays every copy until it is waited for."""

import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from static_dynamic.datasets import prefetch
from static_dynamic.datasets.loader import Decoded


class Stream:
    """Queue of copies; waiting for an event makes the copies that were queued before it."""

    def __init__(self, device=None):
        self.waiting, self.made, self.turn = [], 0, threading.Lock()

    def wait_event(self, event):
        event.synchronize()


class Event:
    stream = None

    def record(self, stream):
        self.stream, self.mark = stream, len(stream.waiting)

    def synchronize(self):
        if self.stream is None:  # nothing to wait for
            return
        with self.stream.turn:
            while self.stream.made < self.mark:
                self.stream.waiting[self.stream.made]()
                self.stream.made += 1


@pytest.fixture
def late_gpu(monkeypatch):
    """Stand-in for torch.cuda; released frames are overwritten with zeros at once."""
    here, reader, empty = threading.local(), Stream(), torch.empty

    @contextmanager
    def stream(chosen):
        here.stream = chosen
        yield

    def to(self, device, non_blocking):
        assert non_blocking
        out = torch.zeros_like(self)
        here.stream.waiting.append(lambda: out.copy_(self))
        return out

    monkeypatch.setattr(
        torch,
        "cuda",
        SimpleNamespace(Stream=Stream, Event=Event, stream=stream, current_stream=lambda device: reader),
    )
    monkeypatch.setattr(torch, "empty", lambda *shape, pin_memory, **options: empty(*shape, **options))
    monkeypatch.setattr(Tensor, "to", to)
    monkeypatch.setattr(Tensor, "record_stream", lambda self, stream: None)
    monkeypatch.setattr(prefetch, "release", lambda frames: frames.zero_())
    return SimpleNamespace(type="cuda")


def batch(number, clips):
    """A batch of clips of several lengths, one of which could not be read."""
    rng = np.random.default_rng(number)
    found = [
        Decoded(
            f"{number}/{i}",
            1,
            np.arange(2),
            [],
            torch.from_numpy(rng.integers(1, 256, (n, 4, 5, 3), np.uint8)),
        )
        for i, n in enumerate(rng.integers(1, 9, clips))
    ]
    return [*found, Decoded(f"{number}/bad", 1, np.arange(2), [], None, "damaged")]


@pytest.mark.parametrize("pause", [0, 0.02])
def test_every_batch_arrives_as_it_was(late_gpu, pause):
    batches = [batch(i, 1 + i % 3) for i in range(9)]
    expected = [[d.frames.clone() if d.frames is not None else None for d in b] for b in batches]
    arrived = 0
    for got, want in zip(prefetch.on_device(iter(batches), late_gpu), expected, strict=True):
        time.sleep(pause)  # the sender runs as far ahead as it may
        for decoded, frames in zip(got, want, strict=True):
            assert (decoded.frames is None) == (frames is None)
            assert frames is None or torch.equal(decoded.frames, frames), decoded.clip
        assert got[-1].error == "damaged"
        arrived += 1
    assert arrived == len(batches)
