"""Plan, from a small pilot run, how large a study must be for intervals of a given width (``task=plan``).

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

The pilot's variance is itself an estimate, mostly too small, so that more than half of the studies of the
expected size would have wider intervals than required. The planned size therefore has an assurance, which is
the probability that the study's intervals are narrow enough (Kelley & Maxwell 2003). Two changes make the
planned size larger than the expected size:

1. The variance is replaced by its upper prediction limit. The jackknife over the pilot's clusters gives the
   bias and the standard error e of the logarithm of the variance (Miller 1968):

       log limit = jackknife estimate + (quantile of t(df)) * e * sqrt(1 + K_pilot / K)

   The root adds the error of the study's own variance estimate. If a few clusters make up most of the
   variance, the degrees of freedom df are few (`jackknife.py`).
2. Half-widths are multiplied by the stretch, which is the half-width of the pilot's own studentised interval
   divided by the half-width that the variance components give for the pilot, but at least 1.

Content, motion and appearance (`decomposition.py`) are planned for the pairs of the pilot. Their variance is
that of the jackknife's pseudo-values, and their intervals need no bootstrap and thus no stretch.

bench/planning.py measures how often planned studies keep the required width. The plan assumes that further
clips are like the pilot's clips, and have the same styles.
"""

import json
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from static_dynamic.analysis.run.store import DONE
from static_dynamic.datasets.orders import first_altered_order
from static_dynamic.errors import UserError

from .bootstrap import estimate_stage
from .decomposition import BITS, decompose
from .estimator import MEASURED
from .intervals import bootstrap_weights
from .jackknife import Jackknife, degrees_of_freedom, jackknife, student_quantile
from .moments import Moments, layer_score
from .motion_test import draw_pair_signs
from .order_table import OrderTable
from .pairs import open_finished, read_sums

# Number of views per clip as a function of the number of styles, for each value of the option `pairs`.
VIEWS = {"factorial": lambda styles: 2 * styles, "both": lambda styles: 4, "paper": lambda styles: 2}
# Maps the option `pairs` of a pilot run to the values of `pairs` for which it can plan a study.
PLANNED_FROM = {"factorial": ("factorial", "both", "paper"), "both": ("both", "paper"), "paper": ("paper",)}
# A pilot run's options must have these values. Options that the pilot's manifest lacks are not checked.
REQUIRED = {"app_shuffle": True, "use_normal_app": False, "m_same": True, "repeats": None}
# A pilot needs at least FEWEST clusters, and a plan has at most MOST clusters.
FEWEST, MOST = 4, 10**7
# Probability that a study of the planned size has intervals that are narrow enough.
ASSURANCE = 0.8
SIZE = ("clusters", "clips", "views", "hours")
UNITS_AT_A_TIME = 256


def plan_study(
    run_dir: str | Path,
    width: float,
    *,
    stage: str | None = None,
    seconds_per_view: float | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Plan how many clips, views and hours a study needs so that intervals of scores have half-width `width`.

    The table has one row per stage, score and way to make pairs, and one row per stage and part (content,
    motion, appearance; with the pairs of the pilot) if the pilot has parts. The column ``score`` names score
    or part. Columns ``clusters``, ``clips``, ``views``,
    ``hours`` are the planned size; ``expected_clusters`` and so on are the size that the pilot's variance
    itself gives, without assurance. ``between`` and ``within`` are the variance components of a cluster. The
    module docstring explains ``stretch``.

    Raises UserError if the pilot is unfinished, too small, of other pairs, or has no such stage, if an
    activation is not finite, if `width` is not between 0 and 1, or if the time per view is unknown.
    """
    if not 0 < width < 1:
        raise UserError(f"task.width={width:g} must lie between 0 and 1 (half-width of a score's interval)")
    store, pairs = open_finished(run_dir)
    seconds = time_per_view(store.path) if seconds_per_view is None else seconds_per_view
    styles = store.views["style"].nunique()
    identity = store.manifest["identity"]
    wrong = [f"{key}={identity[key]}" for key, value in REQUIRED.items() if identity.get(key, value) != value]
    if wrong:
        raise UserError(
            f"{store.path}: task=plan needs pairs of views of one clip, but this run has {', '.join(wrong)}"
        )
    names, cluster = np.unique(pairs["cluster"].to_numpy(), return_inverse=True)
    if len(names) < FEWEST:
        raise UserError(f"{store.path} has {len(names)} videos, but task=plan needs at least {FEWEST}")
    clips_per_cluster = pairs["clip"].nunique() / len(names)
    weights = bootstrap_weights(len(names), n_boot, seed)
    orders = OrderTable.of_views(store.views, store.status == DONE, first_altered_order(store.views))
    if orders is not None and orders.videos < FEWEST:
        orders = None
    if orders is not None:
        # A plan needs neither replicates nor sign flips, so `decompose` gets empty arrays of random numbers.
        nothing = np.empty((0, orders.videos)), draw_pair_signs(orders, 0, (0,))
    tables = []
    for name in store.stages if stage is None else [stage]:
        sums = read_sums(store, name, pairs, cluster, len(names))
        table = plan_stage(sums, store.activations(name), pairs, identity["pairs"], width, weights)
        if orders is not None:
            parts = decompose(store.activations(name), orders, *nothing).layer
            table = pd.concat([table, plan_parts(parts, identity["pairs"], width)])
        table.insert(0, "stage", name)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    for size in ("expected_", ""):
        table[f"{size}clips"] = np.ceil(table[f"{size}clusters"] * clips_per_cluster).astype(int)
        table[f"{size}views"] = table[f"{size}clips"] * [VIEWS[planned](styles) for planned in table["pairs"]]
        table[f"{size}hours"] = table[f"{size}views"] * seconds / 3600
    columns = ["stage", "score", "pairs", "between", "within", "stretch"]
    return table[[*columns, *(f"expected_{size}" for size in SIZE), *SIZE]]


def plan_stage(
    sums: Moments, rows: NDArray, pairs: pd.DataFrame, pilot: str, width: float, weights: NDArray
) -> pd.DataFrame:
    """Plan the number of clusters (videos) for one stage; return one row per score and value of ``pairs``.

    `sums` are the pilot's sums per cluster, `rows` (views, C) the pilot's activations, `pilot` the pilot's
    value of ``pairs``, and `weights` (R, K) bootstrap weights.
    """
    terms = pair_terms(rows, pairs)
    layer, _ = estimate_stage(sums, weights, 0.5, 0.95)
    table = []
    for f, factor in enumerate(MEASURED):
        components = {p: variance_components(terms, f, pilot, p) for p in PLANNED_FROM[pilot]}
        half = (layer[f"score_{factor}_high"] - layer[f"score_{factor}_low"]) / 2
        stretch = stretch_of(half, components[pilot])
        for planned, found in components.items():
            row = {"score": factor, "pairs": planned, "between": found.between, "within": found.within}
            row |= {"stretch": stretch, "expected_clusters": clusters_for(width, found.half_width)}
            row["clusters"] = clusters_for(width, partial(found.assured_half_width, stretch=stretch))
            table.append(row)
    return pd.DataFrame(table)


def plan_parts(parts: Jackknife, pilot: str, width: float) -> pd.DataFrame:
    """Plan the number of clusters (videos) for the content, motion and appearance of one stage.

    The half-width of a part is t(K - 1) standard deviations of the pseudo-values / sqrt(K), so no bootstrap
    and no stretch is needed. There are no rows if the parts are NaN: all units vary in one video only.
    """
    if np.isnan(parts.estimate).any():
        return pd.DataFrame()
    clusters = len(parts.deviation)
    table = []
    for k, part in enumerate(BITS):
        squared = parts.deviation[:, k] ** 2 * clusters * (clusters - 1)
        found = VarianceComponents(squared, np.zeros(clusters))
        row = {"score": part, "pairs": pilot, "between": found.between, "within": 0.0, "stretch": 1.0}
        row["expected_clusters"] = clusters_for(width, found.half_width)
        row["clusters"] = clusters_for(width, partial(found.assured_half_width, stretch=1.0))
        table.append(row)
    return pd.DataFrame(table)


def time_per_view(folder: Path) -> float:
    """Return the pilot's computing time per view (network input), in seconds."""
    file = folder / "timing.json"
    if not file.exists():
        raise UserError(f"{folder} holds no timing.json (time per view): give task.seconds_per_view=SECONDS")
    timing = json.loads(file.read_text())
    return timing["seconds"] / timing["views"]


def pair_terms(rows: NDArray, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair: clip, cluster, factor, and sums over units of products (n) and squares (q)."""
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
class VarianceComponents:
    """Variance components of the error of a score: between clusters (videos), and within clips."""

    # (K,) squared contribution of each pilot cluster to the error of the score
    squared: NDArray
    # (K,) variance of each cluster's error due to the random choice of styles
    drawn: NDArray

    @property
    def between(self) -> float:
        """Variance component between clusters."""
        return float(self.squared.sum() / (len(self.squared) - 1))

    @property
    def within(self) -> float:
        """Variance component within clips."""
        return float(self.drawn.mean())

    @property
    def variance(self) -> float:
        """Variance per cluster: the sum of the components between clusters and within clips."""
        return self.between + self.within

    def half_width(self, clusters: int) -> float:
        """Return the expected half-width of a score's interval in a study with `clusters` clusters."""
        return half_width(self.variance, clusters)

    def assured_half_width(self, clusters: int, stretch: float) -> float:
        """Return the half-width that intervals do not exceed in 80 % of studies with `clusters` clusters."""
        return stretch * half_width(self.upper_limit(clusters), clusters)

    def upper_limit(self, clusters: int, level: float = ASSURANCE) -> float:
        """Return the upper prediction limit of the variance in a study of `clusters` clusters."""
        if not self.variance > 0:
            return 0.0
        pilot = len(self.squared)
        # Leaving a cluster out also moves the mean: the cluster's squared error counts K / (K - 1) times.
        terms = self.squared * pilot / (pilot - 1)
        without = (self.squared.sum() - terms) / (pilot - 2) + (self.drawn.sum() - self.drawn) / (pilot - 1)
        # A lower limit on the variance keeps its logarithm finite if one cluster has nearly all variance.
        without = np.maximum(without, self.variance / pilot)
        of_log = jackknife(np.log(self.variance), np.log(without))
        error = of_log.error * np.sqrt(1 + pilot / clusters)
        return float(np.exp(of_log.estimate + stdtrit(degrees_of_freedom(of_log.deviation), level) * error))


def stretch_of(half: float, own: VarianceComponents) -> float:
    """Return the pilot's half-width divided by the half-width from variance components; at least 1."""
    expected = own.half_width(len(own.squared))
    return float(np.fmax(1, half / expected)) if expected > 0 else 1.0


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
    # Contribution of each pair to the score's error if a clip has one dynamic and one static pair.
    in_own_score = ((terms["n"] / v - score).where(own, 0)).to_numpy()
    in_both_scores = weight * -score * (terms["q"] / v - 1)
    if planned == "paper":
        term = in_own_score / (share if pilot == "paper" else 1 / len(MEASURED)) + in_both_scores
    else:
        term = in_own_score + in_both_scores / len(MEASURED)
    by_factor = [terms["cluster"], terms["clip"], terms["factor"]]
    mean, square = term.groupby(by_factor).mean(), (term**2).groupby(by_factor).mean()
    level = ["cluster", "clip"]
    # each clip has one pair, which is randomly dynamic or static
    if planned == "paper":
        clip = mean.groupby(level).mean()
        within = square.groupby(level).mean() - clip**2
    else:
        clip = mean.groupby(level).sum()
        within = (square - mean**2).groupby(level).sum() * (planned == "both")
    size = terms.groupby("cluster")["clip"].nunique().mean()  # clips per cluster
    cluster, drawn = (part.groupby("cluster").sum().to_numpy() for part in (clip, within))
    return VarianceComponents((cluster / size) ** 2, drawn / size**2)


def half_width(variance: float, clusters: int, level: float = 0.95) -> float:
    """Return the half-width of a score's interval from the variance per cluster and number of clusters."""
    return float(student_quantile(level, clusters - 1) * np.sqrt(variance / clusters))


def clusters_for(width: float, predict: Callable[[int], float]) -> int:
    """Find the smallest number of clusters for which the half-width predict(clusters) is at most `width`."""
    return 2 + bisect_left(range(2, MOST), True, key=lambda k: predict(k) <= width)
