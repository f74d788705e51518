"""Count how often the 95 % intervals of probe.csv contain the true decodability, in simulated runs.

    python -m bench.probe [--runs 100]

Units are a weighted sum of a variable of the video, of noise of the video and of noise of the view. The
weights are the same in all runs. The true decodability is the mean over the runs, because the decodability
depends on the number of videos that a probe is trained on.
Column "at 0" is the fraction of intervals that contain 0, for variables of which the units know nothing
(signal 0).
"""

import sys
from itertools import product

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.jackknife import student_quantile
from static_dynamic.analysis.estimate.probe import LEVEL, probe_stage
from static_dynamic.analysis.estimate.probe_features import Features
from static_dynamic.analysis.estimate.probe_targets import Targets
from static_dynamic.analysis.estimate.probe_variables import CLASSES, NUMBER, Variable, targets_of
from static_dynamic.analysis.show.text import align
from static_dynamic.command import Options, command, positive

# Number of videos, clips per video, units, fraction of the views that are skipped.
LAYOUTS = ((12, 1, 50, 0.0), (24, 1, 50, 0.1), (24, 1, 400, 0.0), (24, 2, 100, 0.0), (60, 1, 200, 0.0))
SIGNALS, STYLES, CLASS_COUNT, PERMUTATIONS = (0.0, 0.15, 0.4, 1.5), 4, 4, 40


@command
def main() -> None:
    """Simulate runs of all layouts; print mean decodability and coverage."""
    parser = Options(__doc__)
    parser.add_argument("--runs", type=positive, default=100, help="simulated runs per combination")
    runs = parser.parse_args().runs
    rows = []
    for layout, kind, signal in product(LAYOUTS, (NUMBER, CLASSES), SIGNALS):
        found = pd.DataFrame(simulate(*layout, kind, signal, runs))
        low, high = found["value"] - found["half"], (found["value"] + found["half"]).clip(upper=1)
        truth = found["value"].mean()
        names = ("videos", "clips", "units", "skipped")
        cells = dict(zip(names, layout, strict=True)) | {"kind": kind, "signal": signal}
        cells |= {
            "decodability": f"{truth:.3f}",
            "coverage": f"{((low <= truth) & (truth <= high)).mean():.2f}",
        }
        at_chance = f"{((low <= 0) & (high >= 0)).mean():.2f}" if signal == 0 else ""
        small = f"{(found['p'] <= 0.05).mean():.2f}" if signal == 0 else ""
        rows.append(cells | {"at 0": at_chance, "p <= 0.05": small})
    print(align(rows))


def simulate(
    videos: int, clips: int, units: int, skipped: float, kind: str, signal: float, runs: int
) -> list[dict]:
    """Return decodability, half of its interval's width, and p-value of each simulated run."""
    rng = np.random.default_rng([videos, clips, units, int(10 * signal)])
    weights = rng.standard_normal((CLASS_COUNT, units))
    video = np.repeat(np.arange(videos), clips * STYLES)
    views = pd.DataFrame(
        {
            "cluster": [f"v{i:04d}" for i in video],
            "clip": [f"c{i:04d}" for i in np.repeat(np.arange(videos * clips), STYLES)],
            "style": np.tile(np.arange(STYLES), videos * clips),
            "order": "forward",
        }
    )
    found = []
    for run in range(runs):
        labels = rng.permutation(np.arange(videos) % CLASS_COUNT)
        values = (labels if kind == CLASSES else rng.standard_normal(videos))[video]
        variable = Variable("x", kind, targets_of(values, kind, views["cluster"].to_numpy()))
        shown = variable.targets - variable.targets.mean(0)
        rows = signal * shown @ weights[: shown.shape[1]] + rng.standard_normal((videos, units))[video]
        rows += rng.standard_normal(rows.shape)
        row_of = np.where(rng.random(len(views)) < skipped, -1, np.arange(len(views)))
        targets = Targets.of(variable, views, 10, PERMUTATIONS, run)
        one = probe_stage(targets, [Features("all", rows, row_of)])["all"]
        half = float(student_quantile(LEVEL, len(one.deviation) - 1)) * one.error
        found.append({"value": one.decodability, "half": half, "p": one.p})
    return found


if __name__ == "__main__":
    sys.exit(main())
