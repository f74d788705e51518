"""Mutual information of the two members of pairs of chosen units, from nearest neighbours: no form of their
distribution is assumed.

Estimator 1 of Kraskov, Stoegbauer & Grassberger 2004 ("Estimating mutual information", eq. 8): with eps_i the
distance (maximum norm) of point i to its k-th neighbour, and n_x, n_y the numbers of points nearer than that
in each member alone,

    I = psi(k) + psi(n) - mean_i[psi(n_x + 1) + psi(n_y + 1)]      (here in bits)

Activations are put into normal scores first, which changes no mutual information and keeps heavy tails from
spreading points thin; noise of 1e-10 breaks ties. It says something from about a hundred videos on, and
little above log2(n) bits.

Neighbours have to be independent of a point: pairs of one place in the plan of a clip (slot) are compared
with each other, one clip of each cluster, and the estimates averaged over slots. Points drawn twice would be
their own neighbours, so that the interval is not one of a bootstrap: it is that of the jackknife over groups
of clusters (Shao & Wu 1989, "A general theory for jackknife variance estimation"), which sees that what
points add depends on their neighbours. What few points cannot resolve stays in the estimate: it is
of the information that so many videos show, and below about a hundred mostly too low; as it is with any
number where many activations are the same (rectified to zero), since noise sets those apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma
from scipy.stats import t as student_t

from static_dynamic.analysis.estimate.information.cka import slots
from static_dynamic.analysis.estimate.information.gaussian import normal_scores
from static_dynamic.analysis.estimate.permutation import FactorPairs, p_value

NEIGHBOURS = 3
# of clusters, left out one after the other
MOST_GROUPS = 30
NOISE = 1e-10


def local_bits(x: NDArray, y: NDArray, k: int = NEIGHBOURS) -> NDArray:
    """What each point (n,) adds to the estimate, whose mean is the information in bits.

    Fastest where x ascends: the tree then looks where it has looked before.
    """
    points = np.column_stack([x, y])
    # the plain tree is built faster, and answers as fast
    tree = cKDTree(points, leafsize=8, balanced_tree=False, compact_nodes=False)
    distance = tree.query(points, [k + 1], p=np.inf)[0][:, 0]
    # the neighbour itself is not nearer than itself, whatever rounding does
    radius = distance * (1 - 1e-9)
    of_count = digamma(np.arange(len(x) + 1))
    marginal = np.zeros(len(x))
    for values in (x, y):
        # bounds nearly in order are looked up several times faster
        order = np.argsort(values)
        ordered, reach = values[order], radius[order]
        inside = np.searchsorted(ordered, ordered + reach, "right")
        inside -= np.searchsorted(ordered, ordered - reach, "left")  # with the point itself
        marginal[order] += of_count[inside]
    return (digamma(k) + digamma(len(x)) - marginal) / np.log(2)


def mean_bits(members: list[tuple[NDArray, NDArray]], chosen: slice | NDArray) -> float:
    """Information of the `chosen` points, averaged over slots."""
    return float(np.mean([local_bits(x[chosen], y[chosen]).mean() for x, y in members]))


def first_of_clusters(pairs: FactorPairs) -> list[NDArray]:
    """Positions, slot by slot, of one pair of each cluster."""
    return [slot[np.unique(pairs.cluster[slot], return_index=True)[1]] for slot in slots(pairs)]


def neighbour_information(
    za: NDArray,
    zb: NDArray,
    pairs: FactorPairs,
    n_permutations: int,
    seed: int,
    level: float,
) -> dict:
    """Bits that one unit's members share: za, zb (N,) in the order of `pairs`; ``value``, ``low``, ``high``,
    ``p``. NaN for a dead unit, and where there are too few clusters for a neighbourhood."""
    places = first_of_clusters(pairs)
    clusters = pairs.cluster[places[0]]
    if len(clusters) < NEIGHBOURS + 2 or np.ptp(np.concatenate([za, zb])) == 0:
        return dict.fromkeys(("value", "low", "high", "p"), np.nan)
    draw = np.random.default_rng([seed, 2])
    once = np.ones(len(clusters), int)
    members = [
        tuple(
            normal_scores(z[place][:, None], once)[:, 0] + NOISE * draw.standard_normal(len(place))
            for z in (za, zb)
        )
        for place in places
    ]
    value = mean_bits(members, slice(None))
    groups = draw.permutation(len(clusters)) % min(len(clusters), MOST_GROUPS)
    left = np.array([mean_bits(members, groups != g) for g in range(groups.max() + 1)])
    half = student_t.ppf((1 + level) / 2, len(left) - 1) * np.sqrt((len(left) - 1) * left.var())
    orders = [draw.permutation(len(clusters)) for _ in range(n_permutations)]
    null = np.zeros(n_permutations)
    for x, y in members:
        ascending = np.argsort(x)
        x = x[ascending]
        null += [local_bits(x, y[order[ascending]]).mean() / len(members) for order in orders]
    return {"value": value, "low": value - half, "high": value + half, "p": float(p_value(value, null))}
