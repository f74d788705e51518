"""Measure after how many videos the option ``until`` stops a run, and the coverage of the run's intervals.

    python -m bench.sequential [--runs 400 --widths 0.1,0.05,0.03]

Runs are simulated as in bench/decomposition.py and stopped as `analysis/estimate/sequential.py` says. The
table shows the mean number of videos, the fraction of runs whose widest half-width is at most the wanted one,
and the coverage of the 95 % intervals of content, motion, appearance and residual of the layer.
"""

import sys

import numpy as np
import pandas as pd
from tqdm import tqdm

from bench.coverage import cells
from bench.decomposition import DESIGNS, LEVEL, Design, estimate
from static_dynamic.analysis.estimate.sequential import check_sizes, half_width
from static_dynamic.command import Options, command

MOST_VIDEOS = 1000


def stopped(design: Design, width: float, run: int) -> tuple[int, bool, list[bool]]:
    """Simulate a run with ``until``; return number of videos, width reached or not, parts covered or not."""
    rng = np.random.default_rng([run, 5])
    y, whole = design.simulate(MOST_VIDEOS, rng, design.planted), design.table(MOST_VIDEOS, rng)
    for videos in [*check_sizes(MOST_VIDEOS), MOST_VIDEOS]:
        found = estimate(y, whole.of_videos(whole.names[:videos]))
        if half_width(found) <= width:
            break
    low, high = found.bounds(found.layer, LEVEL)
    truth = design.truth.mean(1)
    return videos, bool(((high - low) / 2 <= width).all()), ((low <= truth) & (truth <= high)).tolist()


@command
def main() -> None:
    """Simulate runs with ``until``; print the mean number of videos and the coverage of the intervals."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--widths", default="0.1,0.05,0.03", help="wanted half-widths (comma-separated list)")
    given = parser.parse_args()
    rows = []
    for design in (design for design in DESIGNS if design.units < 100 and not design.skipped):
        for width in map(float, given.widths.split(",")):
            runs = tqdm(range(given.runs), f"{design.name}, {width}")
            videos, narrow, held = zip(*(stopped(design, width, run) for run in runs), strict=True)
            rows.append((design.name, width, np.mean(videos), np.mean(narrow), cells(np.mean(held, axis=0))))
    table = pd.DataFrame(rows, columns=["design", "until", "videos", "narrow enough", "coverage c m a r"])
    print(table.round(2).to_markdown(index=False))


if __name__ == "__main__":
    sys.exit(main())
