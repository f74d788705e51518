"""Measure the time and memory that scores, bootstrap and sign-flip tests take for a large simulated run.

    python -m bench.estimator [--clips 3000 --units 64,256,512,1024,2048 --replicates 1000 --permutations 200]
    python -m bench.estimator --information        # also the measures of task=information

The activations are random. At the default size, the bootstrap needs at least 141e9 operations, because it
multiplies six pairs of matrices (replicates, clips) and (clips, units). The sign-flip test needs at least
23e9 operations: one product per flip, pair and unit.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.inputs import STYLES, new_store
from static_dynamic.analysis import estimate_information, estimate_run
from static_dynamic.analysis.run.store import Store
from static_dynamic.command import Options, command
from static_dynamic.datasets import Clip, make_views

VIEWS = 8  # 4 styles x 2 orders


@command
def main() -> None:
    """Make a run of random activations, estimate the scores of the run, and print time and memory."""
    parser = Options(__doc__)
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument(
        "--units", default="64,256,512,1024,2048", help="units per stage, separated by commas"
    )
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--permutations", type=int, default=200)
    parser.add_argument("--information", action="store_true", help="also measure task=information")
    given = parser.parse_args()
    units = [int(count) for count in given.units.split(",")]
    print(
        f"{given.clips} clips x 10 pairs x {sum(units)} units in {len(units)} stages, "
        f"{given.replicates} replicates, {given.permutations} permutations"
    )
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder), given.clips, units)
        options = {"n_boot": given.replicates, "n_permutations": given.permutations, "progress": True}
        measure("checksums of all rows, which every task verifies first", Store.open(folder).verify)
        measure("scores, intervals, p-values (bounds 180 s, 6 GiB)", lambda: estimate_run(folder, **options))
        if given.information:
            measure("measures of task=information", lambda: estimate_information(folder, **options))


def make_run(folder: Path, clips: int, units: list[int]) -> None:
    """Write a finished run (pairs=factorial) whose activations are a random value per clip plus noise."""
    listed = [Clip(f"c{i:05d}", f"c{i:05d}", 0, 64, cluster=f"c{i:05d}") for i in range(clips)]
    views, pairs = make_views(listed, STYLES, {"rgb": 8}, n_sample_frames=64)
    stages = {f"stage{k}": {"units": count, "stream": "rgb"} for k, count in enumerate(units, start=1)}
    store = new_store(folder, stages, views, pairs)
    rng = np.random.default_rng(0)
    for clip in range(clips):
        rows = {}
        for stage, count in zip(stages, units, strict=True):
            rows[stage] = rng.standard_normal((VIEWS, count), dtype=np.float32)
            rows[stage] += rng.standard_normal((1, count), dtype=np.float32)
        store.write(np.arange(VIEWS * clip, VIEWS * (clip + 1)), rows)
    store.commit()


def measure(what: str, work: Callable[[], object]) -> None:
    """Call `work`; print the call's wall time and CPU time, and the peak memory of the process so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {wall:.1f} s, {cpu:.1f} CPU seconds, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    sys.exit(main())
