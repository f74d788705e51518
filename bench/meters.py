"""Measure the time, peak memory and GPU load of a function call."""

import resource
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Return the time of a call in seconds: wall time on a GPU, else CPU time including worker processes."""
    if device.type == "cpu":
        begin = processor_seconds()
        function()
        return processor_seconds() - begin
    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    function()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def in_turns(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, NDArray]:
    """Time every case once per round, in rotating order; return wall and CPU seconds per case and round.

    One more round comes first, without being counted: it fills caches and lets torch choose kernels.
    """
    names = list(cases)
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for i in tqdm(range(rounds + 1), desc="rounds"):
        start = i % len(names)
        for name in names[start:] + names[:start]:
            begin, begin_cpu = time.perf_counter(), processor_seconds()
            cases[name]()
            seconds[name].append([time.perf_counter() - begin, processor_seconds() - begin_cpu])
    return {name: np.array(times[1:]) for name, times in seconds.items()}


def processor_seconds() -> float:
    """Return the CPU time in seconds of this process and of its child processes that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


@contextmanager
def gpu_load(device: torch.device):
    """Yield a list that receives the GPU load (%) five times per second, and stays empty without a GPU."""
    load: list[float] = []
    if device.type != "cuda":
        yield load
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=lambda: load.extend(map(float, process.stdout)), daemon=True)
        reader.start()
        try:
            yield load
        finally:
            process.terminate()
            reader.join()


@contextmanager
def peak_memory(device: torch.device):
    """Yield a list; after the with block, item 0 is the peak memory (GiB) of the GPU or of this process.

    The memory of a process does not include mapped files.
    """
    peak: list[float] = [0.0]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.05):
            peak[0] = max(peak[0], allocated())

    thread = threading.Thread(target=watch, daemon=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        thread.start()
    yield peak
    stop.set()
    if device.type == "cuda":
        peak[0] = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        thread.join()


def allocated() -> float:
    """Return the memory (GiB) that this process has allocated."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 2**20
    return float("nan")
