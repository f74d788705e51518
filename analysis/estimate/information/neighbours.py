"""Estimate the mutual information between a unit's activations for paired views, by nearest neighbours.

No distribution is assumed. Estimator 1 of Kraskov, Stoegbauer & Grassberger 2004 ("Estimating mutual
information", eq. 8): with eps_i the distance (maximum norm) of point i to its k-th neighbour, and n_x, n_y
the numbers of points nearer than eps_i in each member alone,

    I = psi(k) + psi(n) - mean_i[psi(n_x + 1) + psi(n_y + 1)]      (here in bits)

Activations are first replaced by normal scores. This does not change the mutual information, and points of
heavy-tailed units do not spread thin. Noise of 1e-10 breaks ties. The estimate is useful from about a hundred
videos, and cannot be much larger than log2(n) bits.

The neighbours of a point have to be independent of it. Pairs of one slot (position within a clip) are
therefore compared with each other, one clip per cluster, and the estimates are averaged over slots. A
bootstrap would draw points twice, and a point would be its own neighbour, so the interval is that of a
delete-group jackknife over clusters (Shao & Wu 1989, "A general theory for jackknife variance estimation"):
it accounts for the dependence of a point's term on its neighbours. Small-sample bias is not corrected: below
about a hundred videos estimates are mostly too low. They are also too low if many activations are equal
(rectified to zero), because the noise tells these apart.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma

from static_dynamic.analysis.estimate.constant import without_rounding
from static_dynamic.analysis.estimate.jackknife import student_quantile
from static_dynamic.analysis.estimate.pairs import FactorPairs
from static_dynamic.analysis.estimate.sign_flips import p_value

from .gaussian import normal_scores

NEIGHBOURS = 3
# The jackknife divides the clusters into at most this many groups.
MOST_GROUPS = 30
NOISE = 1e-10


def local_bits(x: NDArray, y: NDArray, k: int = NEIGHBOURS) -> NDArray:
    """Return each sample's contribution, in bits, to the nearest-neighbour estimate of mutual information.

    Fastest if `x` is sorted.
    """
    points = np.column_stack([x, y])
    # A tree without balanced and compact nodes is built faster, and is queried at the same speed.
    tree = cKDTree(points, leafsize=8, balanced_tree=False, compact_nodes=False)
    distance = tree.query(points, [k + 1], p=np.inf)[0][:, 0]
    # The radius is slightly reduced, so that rounding never puts the k-th neighbour inside it.
    radius = distance * (1 - 1e-9)
    psi = digamma(np.arange(len(x) + 1))
    marginal = np.zeros(len(x))
    for values in (x, y):
        # searchsorted is several times faster if the bounds almost ascend, so the values are sorted first.
        order = np.argsort(values)
        ordered, reach = values[order], radius[order]
        inside = np.searchsorted(ordered, ordered + reach, "right")
        # `inside` counts the sample itself, too
        inside -= np.searchsorted(ordered, ordered - reach, "left")
        marginal[order] += psi[inside]
    return (digamma(k) + digamma(len(x)) - marginal) / np.log(2)


def mean_bits(members: list[NDArray], chosen: slice | NDArray) -> float:
    """Estimate mutual information in bits from `chosen` samples; average over pair positions in a clip."""
    return float(np.mean([local_bits(x[chosen], y[chosen]).mean() for x, y in members]))


def neighbour_information(
    za: NDArray, zb: NDArray, pairs: FactorPairs, n_permutations: int, seed: int, level: float
) -> dict:
    """Estimate one unit's mutual information between pair members in bits, with interval and p-value.

    NaN for a dead unit, or if there are too few clusters for neighbours.
    """
    # For each slot (position of a pair within a clip), choose one pair per cluster.
    positions = [slot[np.unique(pairs.cluster[slot], return_index=True)[1]] for slot in pairs.slots()]
    clusters = pairs.cluster[positions[0]]
    both = np.concatenate([za, zb]).astype(np.float64)
    if len(clusters) < NEIGHBOURS + 2 or without_rounding(both.var(), both.mean()) == 0:
        return dict.fromkeys(("value", "low", "high", "p"), np.nan)
    rng = np.random.default_rng([seed, 2])
    once = np.ones(len(clusters), int)
    members = []
    for chosen in positions:
        scores = normal_scores(np.column_stack([za[chosen], zb[chosen]]), once)
        members.append(scores.T + NOISE * rng.standard_normal((2, len(chosen))))
    value = mean_bits(members, slice(None))
    groups = rng.permutation(len(clusters)) % min(len(clusters), MOST_GROUPS)
    left_out = np.array([mean_bits(members, groups != g) for g in range(groups.max() + 1)])
    half = student_quantile(level, len(left_out) - 1) * np.sqrt((len(left_out) - 1) * left_out.var())
    orders = [rng.permutation(len(clusters)) for _ in range(n_permutations)]
    null = np.zeros(n_permutations)
    for x, y in members:
        ascending = np.argsort(x)
        x = x[ascending]
        null += [local_bits(x, y[order[ascending]]).mean() / len(members) for order in orders]
    return {"value": value, "low": value - half, "high": value + half, "p": float(p_value(value, null))}
