"""How large a study has to be: ``task=plan`` on a small finished run, the pilot.

To the first order, the error of a layer score is the mean of what each clip adds to it. For a pair i of
factor f, with n_i = sum_u (za_u - m_fu)(zb_u - m_fu), q_i half the squares of both members about the pooled
mean, and N_f, v the means of n and q,

    to the score of its own factor      (n_i - N_f) / v      over the pairs of that factor
    to either score                   - s_f (q_i - v) / v    over all pairs

These have a variance component between clips, of the mean over all that a clip may show, and one within
clips, of which styles are drawn for it. `factorial` pays for all views of a clip and has the first alone;
`both` adds the second, of one pair of each factor; `paper` has one pair of one factor a clip, so that every
clip tells of one score only. With clusters of several clips, components are those of sums over the clips of
a cluster, draws being independent between clips. The half-width that K clusters reach is t(K - 1) *
sqrt(variance / K), and a scheme takes as long as its views, at the time that a view took in the pilot.

A plan is as good as its pilot: the width that it predicts is about 100 / sqrt(2 K) % uncertain with K pilot
clusters, more with heavy tails, and it takes further clips for alike. Styles are those of the pilot.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t

from static_dynamic.analysis.estimate.bootstrap import MEASURED
from static_dynamic.analysis.run.store import Store
from static_dynamic.errors import UserError

# views a clip, of S styles
VIEWS = {"factorial": lambda styles: 2 * styles, "both": lambda styles: 3, "paper": lambda styles: 2}
# what a pilot of each pairing can tell of
TELLS = {"factorial": ("factorial", "both", "paper"), "both": ("both", "paper"), "paper": ("paper",)}
# how the pairs of a study that can be planned are made (segmentation data sets have repeats)
PLANNED = {"app_shuffle": True, "use_normal_app": False, "m_same": True, "repeats": None}
FEWEST, MOST = 4, 10**7
UNITS_AT_A_TIME = 256


def plan_study(
    run_dir: str | Path, width: float, *, stage: str | None = None, seconds_per_view: float | None = None
) -> pd.DataFrame:
    """Clips, views and time that each pairing needs for intervals of half-width `width`, by stage and score.

    Returns
    -------
    table
        stage, score, pairs (the pairing), between, within (variance components of a cluster), clusters,
        clips, views, hours.

    Raises
    ------
    UserError
        A pilot that is not finished or too small, a width that makes no sense, or no known time of a view.
    """
    if not 0 < width < 1:
        raise UserError(f"task.width={width:g}: the half-width of an interval of a score is between 0 and 1")
    store = Store.open(run_dir)
    store.require_finished()
    seconds = time_of_view(store.path) if seconds_per_view is None else seconds_per_view
    views = pd.read_parquet(store.path / "views.parquet")
    pairs = store.finished_pairs()
    identity = store.manifest["identity"]
    scheme = identity["pairs"]
    unusual = [
        f"{key}={identity[key]}" for key, usual in PLANNED.items() if identity.get(key, usual) != usual
    ]
    if unusual:
        raise UserError(
            f"{store.path}: a plan is for pairs of views of one clip; this run has {', '.join(unusual)}"
        )
    clusters, clips = pairs["cluster"].nunique(), pairs["clip"].nunique()
    if clusters < FEWEST or pairs["factor"].nunique() < len(MEASURED):
        raise UserError(
            f"{store.path}: {clusters} videos: a plan needs a pilot of {FEWEST}, and pairs of both factors"
        )
    if stage is not None:
        store.activations(stage)  # refuses a stage that is not there
    per_clip = {name: count(views["style"].nunique()) for name, count in VIEWS.items()}
    rows = []
    for name in [stage] if stage else store.stages:
        parts = pair_parts(store.activations(name), pairs)
        for planned in TELLS[scheme]:
            for f, factor in enumerate(MEASURED):
                found = components(parts, f, scheme, planned)
                needed = clusters_for(found.between + found.within, width)
                number = int(np.ceil(needed * clips / clusters))
                rows.append(
                    {
                        "stage": name,
                        "score": factor,
                        "pairs": planned,
                        "between": found.between,
                        "within": found.within,
                        "clusters": needed,
                        "clips": number,
                        "views": number * per_clip[planned],
                        "hours": number * per_clip[planned] * seconds / 3600,
                    }
                )
    return pd.DataFrame(rows)


def time_of_view(folder: Path) -> float:
    """Seconds that a view took in the pilot."""
    file = folder / "timing.json"
    if not file.exists():
        raise UserError(f"{folder} holds no timing.json: give task.seconds_per_view=SECONDS")
    timing = json.loads(file.read_text())
    return timing["seconds"] / timing["views"]


def pair_parts(rows: NDArray, pairs: pd.DataFrame) -> pd.DataFrame:
    """Clip, cluster and factor of each pair of one stage, with its n_i and q_i of the module's text."""
    a, b, factor = (pairs[name].to_numpy() for name in ("a", "b", "factor"))
    product, square = np.zeros(len(pairs)), np.zeros(len(pairs))
    for start in range(0, rows.shape[1], UNITS_AT_A_TIME):
        values = rows[:, start : start + UNITS_AT_A_TIME].astype(np.float64)
        za, zb = values[a], values[b]
        pooled = (za.mean(0) + zb.mean(0)) / 2
        square += (((za - pooled) ** 2).sum(1) + ((zb - pooled) ** 2).sum(1)) / 2
        for f in range(len(MEASURED)):
            own = factor == f
            mean = (za[own].mean(0) + zb[own].mean(0)) / 2
            product[own] += ((za[own] - mean) * (zb[own] - mean)).sum(1)
    return pairs[["clip", "cluster", "factor"]].assign(n=product, q=square)


@dataclass(frozen=True)
class Components:
    """Variance of what a cluster adds to a score: between clusters, and of what is drawn within clips."""

    between: float
    within: float


def components(parts: pd.DataFrame, f: int, pilot: str, planned: str) -> Components:
    """Components of the score of factor `f` in a study of pairing `planned`, from the pairs of a pilot.

    The pooled variance of a `factorial` study is that of all its pairs; the others have as many pairs of each
    factor. The pairs of a clip that are drawn for its two factors are taken as independent.
    """
    share = parts["factor"].map(parts["factor"].value_counts(normalize=True))
    weight = share * len(MEASURED) if planned == "factorial" else pd.Series(1.0, parts.index)
    own = parts["factor"] == f
    v = np.average(parts["q"], weights=weight / share)
    score = parts.loc[own, "n"].mean() / v
    # what a pair adds to the error where it is the one pair of its factor that its clip shows
    of_score = ((parts["n"] / v - score).where(own, 0)).to_numpy()
    of_pool = weight * -score * (parts["q"] / v - 1)
    if planned == "paper":
        adds = of_score / (share if pilot == "paper" else 1 / len(MEASURED)) + of_pool
    else:
        adds = of_score + of_pool / len(MEASURED)
    clips = parts[["cluster", "clip"]].drop_duplicates()
    drawn = adds.groupby([parts["cluster"], parts["clip"], parts["factor"]])
    mean, square = drawn.mean(), (adds**2).groupby([parts["cluster"], parts["clip"], parts["factor"]]).mean()
    level = ["cluster", "clip"]
    if planned == "paper":  # one pair of one factor: both are drawn
        clip = mean.groupby(level).mean()
        within = square.groupby(level).mean() - clip**2
    else:
        clip = mean.groupby(level).sum()
        within = (square - mean**2).groupby(level).sum() * (planned == "both")
    size = len(clips) / clips["cluster"].nunique()  # clips a cluster, in the mean
    of_cluster = clip.groupby("cluster").sum() / size
    between = (of_cluster**2).sum() / (len(of_cluster) - 1)
    return Components(float(between), float(within.groupby("cluster").sum().mean() / size**2))


def half_width(variance: float, clusters: int, level: float = 0.95) -> float:
    """Half-width of the interval of a score from so many clusters."""
    return float(student_t.ppf((1 + level) / 2, clusters - 1) * np.sqrt(variance / clusters))


def clusters_for(variance: float, width: float) -> int:
    """Fewest clusters whose interval is no wider; found by halving, since the width falls with them."""
    low, high = 2, MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if half_width(variance, middle) <= width else (middle + 1, high)
    return low
