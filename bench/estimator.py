"""Time and memory of the estimator with its bootstrap at the size of a large study.

    python -m bench.estimator [--clips 3000 --units 2048 --replicates 1000]

Floor: three sums a factor, each a product of (replicates, clips) and (clips, units): 2 * 6 * R * K * C
operations, 74e9 at the default size.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from analysis import estimate_run
from analysis.store import Store
from datasets import Clip, make_views


def main() -> None:
    """Make a run of random activations, estimate it, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--units", type=int, default=2048)
    parser.add_argument("--replicates", type=int, default=1000)
    arguments = parser.parse_args()
    clips = [Clip(f"c{i:05d}", f"c{i:05d}", 0, 64, cluster=f"c{i:05d}") for i in range(arguments.clips)]
    views, pairs = make_views(clips, (1, 2, 3, 4), {"rgb": 8}, n_sample_frames=64)
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        manifest = {
            "identity": {},
            "stages": {"stage1": {"units": arguments.units, "stream": "rgb"}},
            "skipped_views": [],
        }
        store = Store.create_or_resume(Path(folder), manifest, views, pairs)
        for clip in range(arguments.clips):
            rows = draw.standard_normal((8, arguments.units), dtype=np.float32)
            rows += draw.standard_normal((1, arguments.units), dtype=np.float32)
            store.write(np.arange(8 * clip, 8 * clip + 8), {"stage1": rows})
        store.commit()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        begin = time.perf_counter()
        estimate_run(folder, n_boot=arguments.replicates)
        seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{arguments.clips} clips x 10 pairs x {arguments.units} units, {arguments.replicates} replicates")
    print(f"(c) {seconds:.1f} s (bound 60), peak memory {peak:.2f} GiB, {before:.2f} before (bound 4)")


if __name__ == "__main__":
    main()
