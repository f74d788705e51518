"""Batches decoded ahead of use by processes that may die on a file, or hang on it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch
from torch.utils.data import DataLoader, Dataset, Subset, get_worker_info

from static_dynamic.datasets.loader import Decoded, ViewBatches
from static_dynamic.datasets.shared_memory import SharedFrames
from static_dynamic.errors import UserError

log = logging.getLogger(__name__)

PATIENCE = 300.0  # seconds that a clip may take to decode
TRIES = 2  # a clip is given up when so many workers were lost on it: one may be lost for want of memory
# what is listed is shared and not copied; said, since joblib's processes and Python 3.14 begin in other ways
START = "fork" if sys.platform == "linux" else None
# with these SLURM tells every process of a job that its end is near: workers, who inherit the main process's
# answer, never see them
ANNOUNCEMENTS = {getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
IDLE = -1.0
PID, ITEM, SINCE = range(3)


class Watched(Dataset):
    """`ViewBatches` whose workers write down what they read, in memory that they share with the main
    process."""

    def __init__(self, batches: ViewBatches, workers: int):
        self.batches = batches
        # a line a worker: its process, the item of `batches.keys` that it reads, and since when
        self.notes = torch.full((workers, 3), IDLE, dtype=torch.float64).share_memory_()
        # only what forks sees the same memory; others send frames through torch
        batches.shared = SharedFrames.of(workers) if START == "fork" else None

    def start(self, worker: int) -> None:
        """Sign in; called in each worker."""
        self.notes[worker, PID] = os.getpid()

    def __getitem__(self, i: int) -> list[Decoded]:
        line = self.notes[get_worker_info().id]
        decoded = []
        for members in self.batches.groups(i):
            line[SINCE] = time.monotonic()
            line[ITEM] = members[0]
            found = self.batches.decode(members)
            decoded.append(self.batches.shared.pack(found) if self.batches.shared else found)
            line[ITEM] = IDLE
        return decoded

    def received(self, batch: list[Decoded]) -> list[Decoded]:
        """A batch as it came to the main process, with its frames."""
        shared = self.batches.shared
        return [shared.unpack(decoded) for decoded in batch] if shared else batch

    def close(self) -> None:
        """Leave the memory of the workers, who have ended."""
        if self.batches.shared:
            self.batches.shared.close()


def loader(batches: ViewBatches, num_workers: int, patience: float = PATIENCE) -> Iterator[list[Decoded]]:
    """Iterate over batches in order, decoded by `num_workers` processes ahead of use (0: by this one, where
    nothing helps against a file that hangs).

    A worker that dies, or that reads one clip for more than `patience` seconds, is replaced; the clip on
    which that happens twice comes without frames and with an error, as one that cannot be read does.

    Raises
    ------
    UserError
        Where workers die again and again, and not on a file.
    """
    if not num_workers:
        yield from map(batches.__getitem__, range(len(batches)))
        return
    done, lost = 0, Counter()
    while done < len(batches):
        source = Watched(batches, num_workers)
        iterator, processes = started(source, range(done, len(batches)), num_workers)
        with watchdog(source, processes, patience) as overdue:
            try:
                for batch in iterator:
                    yield source.received(batch)
                    done += 1
            except (RuntimeError, OSError, EOFError) as error:
                victims = dead(processes)
                if not victims:
                    raise
                settle(source, victims, overdue, lost, patience, error)
            finally:
                del iterator  # ends the other workers
                source.close()


def started(source: Watched, rows: range, num_workers: int) -> tuple[Iterator, list[BaseProcess]]:
    """Start workers; return the iterator over their batches, and their processes."""
    before = set(multiprocessing.active_children())
    on_child = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    with _blocked(ANNOUNCEMENTS):
        iterator = iter(
            DataLoader(
                Subset(source, rows),
                batch_size=None,
                shuffle=False,
                num_workers=num_workers,
                multiprocessing_context=START,
                prefetch_factor=2,
                collate_fn=_as_is,
                worker_init_fn=source.start,
            )
        )
    if on_child is not None and threading.current_thread() is threading.main_thread():
        # torch's own handler raises wherever the main thread is, be it in the midst of a write
        signal.signal(signal.SIGCHLD, on_child)
    return iterator, [p for p in multiprocessing.active_children() if p not in before]


@contextmanager
def _blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Hold signals back; processes that are started meanwhile do so for good."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def watchdog(source: Watched, processes: list[BaseProcess], patience: float) -> Iterator[set[int]]:
    """Kill workers that read one clip for more than `patience` seconds; yields the set of those."""
    overdue: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(min(1.0, patience / 4)):
            for process, (_, item, since) in _with_notes(source, processes):
                if item != IDLE and time.monotonic() - since > patience:
                    overdue.add(process.pid)
                    process.kill()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield overdue
    finally:
        over.set()
        thread.join()


def dead(processes: list[BaseProcess]) -> list[BaseProcess]:
    """The workers that have ended; waits a moment, since the news may come before the end."""
    wait([process.sentinel for process in processes], timeout=1.0)
    return [process for process in processes if process.exitcode is not None]


def settle(
    source: Watched,
    victims: list[BaseProcess],
    overdue: set[int],
    lost: Counter,
    patience: float,
    error: Exception,
) -> None:
    """Count what workers were lost on, and give up on the clips where that is enough."""
    batches = source.batches
    for process, (_, item, _) in _with_notes(source, victims):
        key = batches.keys[int(item)] if item != IDLE else None
        lost[key] += 1
        how = (
            f"was not read within {patience:g} s (clip_timeout)"
            if process.pid in overdue
            else f"took its reader down ({_ending(process.exitcode)})"
        )
        if key is None:
            log.warning("a process that decodes ended (%s): replaced", _ending(process.exitcode))
        else:
            log.warning("%s %s%s", batches.path_of(key), how, "" if lost[key] < TRIES else ": given up")
        if lost[key] < TRIES:
            continue
        if key is None:
            raise UserError(
                f"processes that decode end again and again ({_ending(process.exitcode)}): memory or "
                "/dev/shm may be short: give a smaller num_workers or batch_size"
            ) from error
        batches.given_up[key] = f"{batches.path_of(key)} {how}, {TRIES} times"


def _with_notes(source: Watched, processes: list[BaseProcess]) -> list[tuple[BaseProcess, list[float]]]:
    """Each process with its line of the notes; an idle one for a process that never signed in."""
    lines = {int(line[PID]): line for line in source.notes.tolist()}
    return [(process, lines.get(process.pid, [IDLE] * 3)) for process in processes]


def _ending(exitcode: int) -> str:
    return signal.Signals(-exitcode).name if exitcode < 0 else f"exit status {exitcode}"


def _as_is(batch: list[Decoded]) -> list[Decoded]:
    return batch
