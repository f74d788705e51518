"""Time of extraction with several settings of OpenMP's waiting threads, on a free and on a busy machine.

    python -m bench.openmp [--rounds 5] [--models i3d_inception slowfast_r50_8x8]

Between two parallel loops, a thread of OpenMP first spins and then sleeps. Spinning saves the time for waking
up if every thread has a core of its own, but takes time away from the work if other programs use the cores.
Each round times one process per setting. Each process passes random clips through a network. On the busy
machine, one endless process per core runs at the same time. A cell is the median, over rounds, of the time
without any setting divided by the time with the setting: above 1, the setting is faster.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SETTINGS = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=100000": {"GOMP_SPINCOUNT": "100000"},
    "OMP_NUM_THREADS=1": {"OMP_NUM_THREADS": "1"},
}
WORK = """
import sys, time, torch
from static_dynamic.models import build_model
net = build_model(sys.argv[1], checkpoint=None).eval()
inputs = net.example_input(torch.randn)
with torch.inference_mode():
    net(inputs)
    begin = time.perf_counter()
    for _ in range(int(sys.argv[2])):
        net(inputs)
print(time.perf_counter() - begin)
"""


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep `processes` cores busy with other programs."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        time.sleep(1)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def seconds(model: str, passes: int, setting: dict[str, str]) -> float:
    """Return the duration of `passes` forward passes of a network, in a process with an OpenMP setting."""
    command = [sys.executable, "-c", WORK, model, str(passes)]
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run(command, env=own | setting, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print one row per network and load, with a column per setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["i3d_inception", "slowfast_r50_8x8", "x3d_xs"])
    parser.add_argument("--passes", type=int, default=8, help="forward passes per process")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"| network | other processes | {' | '.join(SETTINGS)} |")
    print(f"|---|---:|{'---:|' * len(SETTINGS)}")
    for model in given.models:
        for load in (0, cores):
            ratios: dict[str, list[float]] = {name: [] for name in SETTINGS}
            with busy(load):
                for k in range(given.rounds):
                    # Each round starts with another setting, so that no setting is always measured first.
                    order = [*SETTINGS][k:] + [*SETTINGS][:k]
                    times = {name: seconds(model, given.passes, SETTINGS[name]) for name in order}
                    for name, own in times.items():
                        ratios[name].append(times["default"] / own)
            cells = [f"{statistics.median(own):.2f}" for own in ratios.values()]
            print(f"| {model} | {load} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
