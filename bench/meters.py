"""What a call costs: time, memory, and how busy a GPU is meanwhile."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes until the device is done; without a GPU those of processors, workers' too."""
    if device.type == "cpu":
        begin = processor_seconds()
        function()
        return processor_seconds() - begin
    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    function()
    torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def processor_seconds() -> float:
    """Time that processors spent on this process and on its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


@contextmanager
def sampled(device: torch.device):
    """Yield a list that ends up with how busy the GPU was (%), looked at five times a second."""
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
def peak_of(device: torch.device):
    """Yield a list whose first entry is, afterwards, the most memory held (GiB): of the GPU, or of this
    process (what it allocated; mapped files are not counted)."""
    found: list[float] = [0.0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            found[0] = max(found[0], allocated())

    thread = threading.Thread(target=watch, daemon=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        thread.start()
    yield found
    over.set()
    if device.type == "cuda":
        found[0] = torch.cuda.max_memory_allocated(device) / 2**30
    else:
        thread.join()


def allocated() -> float:
    """GiB that this process has allocated."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 2**20
    return float("nan")
