"""Decode batches ahead of use in worker processes; replace workers that a broken file crashes or blocks."""

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

from static_dynamic.errors import UserError

from .loader import Decoded, Key, ViewBatches
from .shared_memory import SharedFrames

log = logging.getLogger(__name__)

# Default time limit for decoding one clip, in seconds.
CLIP_TIMEOUT = 300.0
# Number of worker crashes after which a clip is skipped. A single crash may be due to a lack of memory.
TRIES = 2
# Workers are forked, because forked workers share the list of clips without a copy.
# The start method is set here, because joblib and Python 3.14 change the default start method.
START_METHOD = "fork" if sys.platform == "linux" else None
# SLURM sends these signals to all processes of a job before it preempts the job.
# Workers block these signals, because a worker would otherwise run the main process's signal handler.
PREEMPTION_SIGNALS = {getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
IDLE = -1.0
# Column numbers of `Monitored.progress`.
PID, ITEM, SINCE = range(3)


class Monitored(Dataset):
    """`ViewBatches` in which each worker records its current clip, in memory shared with the main process."""

    def __init__(self, batches: ViewBatches, workers: int):
        self.batches = batches
        # One row per worker: process id, index of the current clip in `batches.keys`, start time of decoding.
        self.progress = torch.full((workers, 3), IDLE, dtype=torch.float64).share_memory_()
        # Only forked workers can use `SharedFrames`; workers that are not forked send frames through torch.
        batches.shared = SharedFrames.create(workers) if START_METHOD == "fork" else None

    def start(self, worker: int) -> None:
        """Record the process id of this worker; each worker calls this method when it starts."""
        self.progress[worker, PID] = os.getpid()

    def __getitem__(self, i: int) -> list[Decoded]:
        worker = get_worker_info()
        assert worker is not None
        row = self.progress[worker.id]
        batch = []
        for members in self.batches.groups(i):
            row[SINCE] = time.monotonic()
            row[ITEM] = members[0]
            decoded = self.batches.decode(members)
            batch.append(self.batches.shared.pack(decoded) if self.batches.shared else decoded)
            row[ITEM] = IDLE
        return batch

    def unpack(self, batch: list[Decoded]) -> list[Decoded]:
        """Restore the frames of a batch that the main process received from a worker."""
        shared = self.batches.shared
        return [shared.unpack(decoded) for decoded in batch] if shared else batch

    def close(self) -> None:
        """Close the shared memory; call this after the workers have ended."""
        if self.batches.shared:
            self.batches.shared.close()


def loader(batches: ViewBatches, num_workers: int, timeout: float = CLIP_TIMEOUT) -> Iterator[list[Decoded]]:
    """Yield all batches in order, decoded ahead of use by `num_workers` processes.

    If a worker crashes, or decodes one clip for more than `timeout` seconds, all workers are replaced. A clip
    on which this happens twice is yielded without frames and with an error, like an unreadable clip. With
    ``num_workers=0`` this process decodes, without protection against crashes and timeouts.

    Raises UserError if workers crash repeatedly while they decode no clip.
    """
    if not num_workers:
        yield from map(batches.__getitem__, range(len(batches)))
        return
    done = 0
    crashes: Counter[Key | None] = Counter()
    while done < len(batches):
        source = Monitored(batches, num_workers)
        iterator, processes = start_workers(source, range(done, len(batches)), num_workers)
        with watchdog(source, processes, timeout) as overdue:
            try:
                for batch in iterator:
                    yield source.unpack(batch)
                    done += 1
            except (RuntimeError, OSError, EOFError) as error:
                crashed = ended(processes)
                if not crashed:
                    raise
                record_crashes(source, crashed, overdue, crashes, timeout, error)
            finally:
                # deleting the iterator ends the worker processes that still run
                del iterator
                source.close()


def start_workers(source: Monitored, rows: range, num_workers: int) -> tuple[Iterator, list[BaseProcess]]:
    """Start workers for the batches numbered `rows`; return (iterator over batches, list of processes)."""
    before = set(multiprocessing.active_children())
    on_child = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    with _signals_blocked(PREEMPTION_SIGNALS):
        iterator = iter(
            DataLoader(
                Subset(source, rows),
                batch_size=None,
                shuffle=False,
                num_workers=num_workers,
                multiprocessing_context=START_METHOD,
                prefetch_factor=2,
                collate_fn=list,
                worker_init_fn=source.start,
            )
        )
    if on_child is not None and threading.current_thread() is threading.main_thread():
        # Remove torch's SIGCHLD handler, which may raise anywhere in the main thread, even in a write.
        signal.signal(signal.SIGCHLD, on_child)
    return iterator, [p for p in multiprocessing.active_children() if p not in before]


@contextmanager
def _signals_blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Block signals inside a ``with`` block; processes that start in the block keep the signals blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # not on Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def watchdog(source: Monitored, processes: list[BaseProcess], timeout: float) -> Iterator[set[int | None]]:
    """Kill workers that decode one clip for over `timeout` seconds; yield the set of killed process ids."""
    overdue: set[int | None] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(min(1.0, timeout / 4)):
            for process, (_, item, since) in _with_progress(source, processes):
                if item != IDLE and time.monotonic() - since > timeout:
                    overdue.add(process.pid)
                    process.kill()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield overdue
    finally:
        stop.set()
        thread.join()


def ended(processes: list[BaseProcess]) -> list[BaseProcess]:
    """Return the workers that have ended; wait up to 1 s, as errors may arrive before the workers end."""
    wait([process.sentinel for process in processes], timeout=1.0)
    return [process for process in processes if process.exitcode is not None]


def record_crashes(
    source: Monitored,
    crashed: list[BaseProcess],
    overdue: set[int | None],
    crashes: Counter[Key | None],
    timeout: float,
    error: Exception,
) -> None:
    """Count the crashes of workers per clip, and of idle workers; skip a clip after `TRIES` crashes."""
    batches = source.batches
    for process, (_, item, _) in _with_progress(source, crashed):
        key = batches.keys[int(item)] if item != IDLE else None
        crashes[key] += 1
        code = process.exitcode or 0
        exit_text = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        how = f"crashed its worker ({exit_text})"
        if process.pid in overdue:
            how = f"was not decoded within {timeout:g} s (clip_timeout)"
        if key is None:
            log.warning("a decoding worker crashed (%s): replaced", exit_text)
        else:
            log.warning("%s %s%s", batches.path_of(key), how, "" if crashes[key] < TRIES else ": given up")
        if crashes[key] < TRIES:
            continue
        if key is None:
            raise UserError(
                f"decoding workers crash repeatedly ({exit_text}), probably because memory or /dev/shm is "
                "full: give a smaller num_workers or batch_size"
            ) from error
        batches.given_up[key] = f"{batches.path_of(key)} {how}, {TRIES} times"


def _with_progress(source: Monitored, processes: list[BaseProcess]) -> list[tuple[BaseProcess, list[float]]]:
    """Return a list of (worker, its row of `progress`); a worker that has not started counts as idle."""
    rows = {int(row[PID]): row for row in source.progress.tolist()}
    return [(process, rows.get(process.pid or -1, [IDLE] * 3)) for process in processes]
