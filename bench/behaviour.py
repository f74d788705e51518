"""Count how often the 95 % intervals of behaviour.csv contain the true value, in simulated runs.

    python -m bench.behaviour [--runs 1500]

In a comparison, the top-1 class stays with a probability that differs between videos: it has a beta
distribution around the true share, and videos are more alike for `alike` = 10 than for 1. A video has one
clip or one to three clips, and a clip has one or four comparisons. The column "Student" is the coverage of
mean -+ t * standard error.
"""

import sys
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.behaviour import mean_over_clips, share_and_bounds
from static_dynamic.analysis.show.text import align
from static_dynamic.command import Options, command, positive

VIDEOS, SHARES, ALIKE, CLIPS, COMPARISONS = (12, 24, 100), (0.5, 0.8, 0.95, 0.99), (1, 10), (1, 3), (1, 4)


@command
def main() -> None:
    """Simulate runs of all designs; print the coverage of Wilson's and of Student's intervals."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=positive, default=1500, help="simulated runs per combination")
    runs = parser.parse_args().runs
    rows = []
    for case in product(VIDEOS, SHARES, ALIKE, CLIPS, COMPARISONS):
        wilson, student = coverage(*case, runs)
        cells = zip(("videos", "share", "alike", "clips", "comparisons"), case, strict=True)
        rows.append({**dict(cells), "coverage": f"{wilson:.3f}", "Student": f"{student:.3f}"})
    print(align(rows))


def coverage(
    videos: int, share: float, alike: float, clips: int, comparisons: int, runs: int
) -> tuple[float, float]:
    """Return the fractions of runs in which Wilson's and Student's intervals contain the true share."""
    rng = np.random.default_rng(0)
    held = np.zeros((runs, 2), bool)
    for run in range(runs):
        table, values = simulate(rng, videos, share, alike, clips, comparisons)
        _, low, high = share_and_bounds(table, values, 0.95)
        mean, error, t, _ = mean_over_clips(table, values, 0.95)
        held[run] = low <= share <= high, abs(mean - share) <= t * error
    wilson, student = held.mean(0)
    return float(wilson), float(student)


def simulate(
    rng: np.random.Generator, videos: int, share: float, alike: float, clips: int, comparisons: int
) -> tuple[pd.DataFrame, NDArray]:
    """Simulate comparisons of two views; return a table (cluster, clip) and an array (1: equal classes)."""
    video = np.repeat(np.arange(videos), rng.integers(1, clips + 1, videos))  # of each clip
    stays = rng.beta(share * alike, (1 - share) * alike, videos)[video]
    values = rng.random((len(video), comparisons)) < stays[:, None]
    table = pd.DataFrame({"cluster": video, "clip": np.arange(len(video))})
    return table.loc[table.index.repeat(comparisons)].reset_index(drop=True), values.ravel().astype(float)


if __name__ == "__main__":
    sys.exit(main())
