"""Plan how large a study must be for intervals of a given width, from a small pilot run (``task=plan``).

To first order, the error of a layer score is a mean of one term per pair. For pair i of factor f let
n_i = sum_u (za_u - m_fu)(zb_u - m_fu), let q_i be half the squares of both members about the pooled mean, and
let N_f and v be the means of n and q. The terms are

    in the score of the pair's own factor      (n_i - N_f) / v      over the pairs of that factor
    in both scores                           - s_f (q_i - v) / v    over all pairs

The error has two variance components: between clips (of a clip's mean over all views that it can show), and
within clips (of the random choice of styles). `factorial` reads all views of a clip and has only the first.
`both` adds the second, for one pair per factor. `paper` has one pair of one factor per clip, so each clip
informs only one score. If clusters have several clips, components are of sums over the clips of a cluster;
the choice of styles is independent between clips. K clusters give the half-width
t(K - 1) * sqrt(variance / K). Time is the number of views times the pilot's time per view.

The width predicted from K pilot clusters has a relative error of about 100 / sqrt(2 K) %, more if activations
are heavy-tailed. The plan assumes that further clips are like the pilot's clips, and have the same styles.
"""

import json
from bisect import bisect_left
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student_t

from static_dynamic.errors import UserError

from .estimator import MEASURED
from .moments import layer_score
from .pairs import open_finished

# For each value of `pairs`, this is a function from the number of styles to the number of views per clip.
VIEWS = {"factorial": lambda styles: 2 * styles, "both": lambda styles: 3, "paper": lambda styles: 2}
# For each value of `pairs` in a pilot, the values of `pairs` for which this pilot can plan a study.
PLANNED_FROM = {"factorial": ("factorial", "both", "paper"), "both": ("both", "paper"), "paper": ("paper",)}
# A pilot run's options must have these values. Options that the pilot's manifest lacks are not checked.
REQUIRED = {"app_shuffle": True, "use_normal_app": False, "m_same": True, "repeats": None}
# A pilot needs at least FEWEST clusters, and a plan has at most MOST clusters.
FEWEST, MOST = 4, 10**7
UNITS_AT_A_TIME = 256


def plan_study(
    run_dir: str | Path, width: float, *, stage: str | None = None, seconds_per_view: float | None = None
) -> pd.DataFrame:
    """Plan how many clips, views and hours a study needs so that intervals of scores have half-width `width`.

    The table has one row per stage, score and way to make pairs; columns ``between`` and ``within`` are the
    variance components of a cluster. Raises UserError if the pilot is unfinished, too small, of other pairs,
    or has no such stage, if `width` is not between 0 and 1, or if the time per view is unknown.
    """
    if not 0 < width < 1:
        raise UserError(f"task.width={width:g} must lie between 0 and 1 (half-width of a score's interval)")
    store, pairs = open_finished(run_dir)
    seconds = time_per_view(store.path) if seconds_per_view is None else seconds_per_view
    styles = pd.read_parquet(store.path / "views.parquet")["style"].nunique()
    identity = store.manifest["identity"]
    scheme = identity["pairs"]
    wrong = [f"{key}={identity[key]}" for key, value in REQUIRED.items() if identity.get(key, value) != value]
    if wrong:
        raise UserError(
            f"{store.path}: task=plan needs pairs of views of one clip, but this run has {', '.join(wrong)}"
        )
    clusters, clips = pairs["cluster"].nunique(), pairs["clip"].nunique()
    if clusters < FEWEST:
        raise UserError(f"{store.path} has {clusters} videos, but task=plan needs at least {FEWEST}")
    rows = []
    for name in store.stages if stage is None else [stage]:
        terms = pair_terms(store.activations(name), pairs)
        for planned in PLANNED_FROM[scheme]:
            for f, factor in enumerate(MEASURED):
                between, within = variance_components(terms, f, scheme, planned)
                needed = clusters_for(between + within, width)
                n_clips = int(np.ceil(needed * clips / clusters))
                n_views = n_clips * VIEWS[planned](styles)
                size = (needed, n_clips, n_views, n_views * seconds / 3600)
                rows.append((name, factor, planned, between, within, *size))
    columns = ["stage", "score", "pairs", "between", "within", "clusters", "clips", "views", "hours"]
    return pd.DataFrame(rows, columns=columns)


def time_per_view(folder: Path) -> float:
    """Return the pilot's computing time per view (network input), in seconds."""
    file = folder / "timing.json"
    if not file.exists():
        raise UserError(f"{folder} holds no timing.json (time per view): give task.seconds_per_view=SECONDS")
    timing = json.loads(file.read_text())
    return timing["seconds"] / timing["views"]


def pair_terms(rows: NDArray, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair: clip, cluster, factor, and the terms n and q of the module docstring."""
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


class VarianceComponents(NamedTuple):
    """Variance components of the error of a score: between clusters (videos), and within clips."""

    between: float
    within: float


def variance_components(terms: pd.DataFrame, f: int, pilot: str, planned: str) -> VarianceComponents:
    """Estimate the variance components of the error of factor `f`'s score in a planned study.

    `terms` are the `pair_terms` of the pilot; `pilot` and `planned` say how the pairs of the pilot and of the
    study are made. The pooled variance of a `factorial` study is over all pairs; `both` and `paper` have
    equally many pairs of each factor. The pairs that a clip shows for its two factors count as independent.
    """
    share = terms["factor"].map(terms["factor"].value_counts(normalize=True))
    weight = share * len(MEASURED) if planned == "factorial" else pd.Series(1.0, terms.index)
    own = terms["factor"] == f
    v = np.average(terms["q"], weights=weight / share)
    score = layer_score(terms.loc[own, "n"].mean(), v)
    # This is each pair's part of the score's error if a clip has one dynamic and one static pair.
    in_own_score = ((terms["n"] / v - score).where(own, 0)).to_numpy()
    in_both_scores = weight * -score * (terms["q"] / v - 1)
    if planned == "paper":
        term = in_own_score / (share if pilot == "paper" else 1 / len(MEASURED)) + in_both_scores
    else:
        term = in_own_score + in_both_scores / len(MEASURED)
    by_factor = [terms["cluster"], terms["clip"], terms["factor"]]
    mean, square = term.groupby(by_factor).mean(), (term**2).groupby(by_factor).mean()
    level = ["cluster", "clip"]
    if planned == "paper":  # each clip has one pair, which is at random dynamic or static
        clip = mean.groupby(level).mean()
        within = square.groupby(level).mean() - clip**2
    else:
        clip = mean.groupby(level).sum()
        within = (square - mean**2).groupby(level).sum() * (planned == "both")
    size = terms.groupby("cluster")["clip"].nunique().mean()  # clips per cluster
    cluster = clip.groupby("cluster").sum() / size
    between = (cluster**2).sum() / (len(cluster) - 1)
    return VarianceComponents(float(between), float(within.groupby("cluster").sum().mean() / size**2))


def half_width(variance: float, clusters: int, level: float = 0.95) -> float:
    """Return the half-width of a score's interval from the variance per cluster and number of clusters."""
    return float(student_t.ppf((1 + level) / 2, clusters - 1) * np.sqrt(variance / clusters))


def clusters_for(variance: float, width: float) -> int:
    """Find the smallest number of clusters for which the interval's half-width is at most `width`."""
    return 2 + bisect_left(range(2, MOST), True, key=lambda k: half_width(variance, k) <= width)
