"""Compare how many clips each value of the option ``pairs`` needs for intervals of equal width.

    python -m bench.widths RUN_FOLDER

RUN_FOLDER is a run with pairs=factorial, whose views include the views of pairs=both and pairs=paper. All
values are therefore compared on the same activations. The number of clips needed is proportional to the
variance of a score.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from static_dynamic.analysis.estimate.intervals import bootstrap_weights
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.run.store import Store
from static_dynamic.command import Options, command
from static_dynamic.datasets import Clip, make_views

# Pairs are drawn DRAWS times, and each draw gets REPLICATES bootstrap replicates.
DRAWS, REPLICATES = 20, 400


def score_variances(run: Path, pairs: str, draws: int = DRAWS) -> pd.DataFrame:
    """Return a table (stages, factors) of bootstrap variances of layer scores, averaged over random pairs."""
    store = Store.open(run)
    views = pd.read_parquet(run / "views.parquet")
    about = views.drop_duplicates("clip")
    clips = [Clip(c.clip, c.video, 0, 2, c.label, c.cluster) for c in about.itertuples()]
    row_of = {(v.clip, v.style, v.order): i for i, v in enumerate(views.itertuples())}
    styles, clusters = sorted(set(views["style"])), np.unique(views["cluster"])
    weights = bootstrap_weights(len(clusters), REPLICATES, 0)
    found = []
    for seed in range(1 if pairs == "factorial" else draws):
        chosen, table = make_views(clips, styles, {"rgb": 2}, n_sample_frames=2, pairs=pairs, seed=seed)
        row = np.array([row_of[v.clip, v.style, v.order] for v in chosen.itertuples()])
        table = table.assign(a=row[table["a"]], b=row[table["b"]])
        of_pair = np.searchsorted(clusters, table["cluster"])
        scores = {}
        for stage in store.stages:
            sums = Moments.per_cluster(store.activations(stage), table, of_pair, len(clusters))
            scores[stage] = np.nanvar(sums.resample(weights).layer_scores(), axis=0)
        found.append(pd.DataFrame(scores, index=["dynamic", "static"]).T)
    return sum(found) / len(found)


def clips_needed(run: Path, pairs: str, baseline: str = "paper") -> pd.DataFrame:
    """Return the number of clips that `pairs` needs, divided by the number that `baseline` needs."""
    return score_variances(run, pairs) / score_variances(run, baseline)


@command
def main() -> None:
    """Print how many clips pairs=both and pairs=factorial need per clip of pairs=paper, with medians."""
    parser = Options(__doc__)
    parser.add_argument("run", type=Path, help="folder of a run with pairs=factorial")
    run = parser.parse_args().run
    print("clips needed per clip of pairs=paper, for intervals of the layer scores of the same width")
    for pairs in ("both", "factorial"):
        table = clips_needed(run, pairs)
        print(f"pairs={pairs}: median {np.median(table):.3f}")
        print(table.round(3).to_string())


if __name__ == "__main__":
    sys.exit(main())
