"""Compare time and peak memory of ``task=features`` with those of the main job on the same views.

    python -m bench.features [--clips 64] [--model x3d_xs] [--rounds 3]

Each case is a command of its own, from start to end. The cases run in rotating order, and ratios are taken
within each round. Videos are synthetic and weights are random, which does not change the cost of an
operation.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.inputs import make_videos
from static_dynamic.analysis.show.text import align
from static_dynamic.command import Options, command, positive
from static_dynamic.errors import UserError

ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH = 128, 170
# Largest accepted ratio of the pooled features to the main job, in time and in memory.
MOST = 1.1
# Name of a case -> options besides network and data set.
CASES = {
    "main job": [],
    "features": ["task=features", "task.views=all"],
    "features, time axis": ["task=features", "task.views=all", "task.time=true"],
}


def measure(options: list[str], folder: str) -> list[float]:
    """Run a command; return wall seconds, CPU seconds, and peak memory (GiB) of its largest process."""
    words = [sys.executable, str(ROOT / "main.py"), *options, f"save_dir={folder}"]
    begin = time.perf_counter()
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{' '.join(words)} failed with status {process.returncode}: run it by hand")
    return [time.perf_counter() - begin, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20]


@command
def main() -> None:
    """Print the median time and memory of each case, and their ratios to the main job."""
    parser = Options(__doc__)
    parser.add_argument("--clips", type=positive, default=64)
    parser.add_argument("--model", default="x3d_xs")
    parser.add_argument("--rounds", type=positive, default=3)
    given = parser.parse_args()
    names = list(CASES)
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as data:
        make_videos(data, given.clips, HEIGHT, WIDTH)
        common = [f"model={given.model}", "model.init=random", "dataset=folder", f"stylized_data_dir={data}"]
        for i in range(given.rounds):
            start = i % len(names)
            for name in names[start:] + names[:start]:
                with tempfile.TemporaryDirectory() as folder:
                    found[name].append(measure([*common, *CASES[name]], folder))
    main_job = np.array(found["main job"])
    rows = []
    for name, numbers in found.items():
        wall, cpu, memory = np.median(numbers, axis=0)
        ratios = np.median(np.array(numbers) / main_job, axis=0)
        row = {"case": name, "seconds": f"{wall:.1f}", "CPU seconds": f"{cpu:.1f}", "GiB": f"{memory:.2f}"}
        rows.append(
            row | dict(zip(("time ratio", "CPU ratio", "memory ratio"), ratios.round(3), strict=True))
        )
    print(align(rows))
    worst = max(rows[1]["time ratio"], rows[1]["memory ratio"])
    print(f"\nfeatures: at most {MOST} times the main job is accepted: {'yes' if worst <= MOST else 'no'}")


if __name__ == "__main__":
    sys.exit(main())
