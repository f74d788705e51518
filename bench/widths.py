"""How many clips one way of making pairs needs beside another, for intervals of the same width.

    python -m bench.widths RUN_FOLDER     a run with pairs=factorial

The views of a factorial run hold those of every other way, so that all are compared on the same activations.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.run.store import Store
from static_dynamic.datasets import Clip
from static_dynamic.datasets.views import SCHEMES, plan_pairs

DRAWS, REPLICATES = 20, 400


def spreads(run: Path, pairs: str, draws: int = DRAWS) -> pd.DataFrame:
    """Bootstrap variance of each stage's scores (stage x factor), mean over draws of the pairs."""
    store = Store.open(run)
    views = pd.read_parquet(run / "views.parquet")
    about = views.drop_duplicates("clip")
    clips = [Clip(c.clip, c.video, 0, 2, c.label, c.cluster) for c in about.itertuples()]
    row = {(v.clip, v.style, v.order != "forward"): i for i, v in enumerate(views.itertuples())}
    clusters, cluster = np.unique([clip.cluster for clip in clips], return_inverse=True)
    weights = bootstrap_weights(len(clusters), REPLICATES, 0)
    found = []
    for seed in range(1 if pairs == "factorial" else draws):
        plan = plan_pairs(clips, sorted(set(views["style"])), SCHEMES[pairs], seed, True, False, True, 1)
        table = pd.DataFrame(
            {
                "factor": [f for f, _, _ in plan],
                "a": [row[clips[i].id, s, bool(c)] for _, (i, s, c), _ in plan],
                "b": [row[clips[i].id, s, bool(c)] for _, _, (i, s, c) in plan],
            }
        )
        of_pair = cluster[[i for _, (i, _, _), _ in plan]]
        scores = {}
        for stage in store.stages:
            sums = Moments.per_cluster(store.activations(stage), table, of_pair, len(clusters))
            scores[stage] = np.nanvar(sums.resample(weights).layer_scores(), axis=0)
        found.append(pd.DataFrame(scores, index=["dynamic", "static"]).T)
    return sum(found) / len(found)


def clips_needed(run: Path, pairs: str, instead_of: str = "paper") -> pd.DataFrame:
    """Clips that `pairs` needs for each clip of the other way, by stage and factor."""
    return spreads(run, pairs) / spreads(run, instead_of)


def main() -> None:
    """Print the medians over stages and factors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    print("clips for each clip of pairs=paper, at the same width of the intervals of a stage's scores")
    for pairs in ("both", "factorial"):
        table = clips_needed(run, pairs)
        print(f"pairs={pairs}: median {np.median(table):.3f}")
        print(table.round(3).to_string())


if __name__ == "__main__":
    main()
