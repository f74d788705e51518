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
their own neighbours, so that the interval bootstraps what each cluster adds to the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import digamma

from analysis.bootstrap import interval
from analysis.cka import slots
from analysis.gaussian import normal_scores
from analysis.null import FactorPairs, p_value

NEIGHBOURS = 3
NOISE = 1e-10


def local_bits(x: NDArray, y: NDArray, k: int = NEIGHBOURS) -> NDArray:
    """What each point (n,) adds to the estimate, whose mean is the information in bits."""
    points = np.column_stack([x, y])
    distance = cKDTree(points).query(points, k + 1, p=np.inf)[0][:, -1]
    # the neighbour itself is not nearer than itself, whatever rounding does
    radius = distance * (1 - 1e-9)
    counts = []
    for values in (x, y):
        ordered = np.sort(values)
        inside = np.searchsorted(ordered, values + radius, "right")
        counts.append(inside - np.searchsorted(ordered, values - radius, "left"))  # with the point itself
    return (digamma(k) + digamma(len(x)) - sum(digamma(count) for count in counts)) / np.log(2)


def first_of_clusters(pairs: FactorPairs) -> list[NDArray]:
    """Positions, slot by slot, of one pair of each cluster."""
    return [slot[np.unique(pairs.cluster[slot], return_index=True)[1]] for slot in slots(pairs)]


def neighbour_information(
    za: NDArray,
    zb: NDArray,
    pairs: FactorPairs,
    weights: NDArray,
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
    members = [
        tuple(
            normal_scores(z[place][:, None])[:, 0] + NOISE * draw.standard_normal(len(place))
            for z in (za, zb)
        )
        for place in places
    ]
    local = np.mean([local_bits(x, y) for x, y in members], axis=0)  # by cluster
    value = local.mean()
    chosen = weights[:, clusters]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (chosen @ local) / chosen.sum(1)
    low, high = interval(value, drawn, len(clusters), level)
    orders = [draw.permutation(len(clusters)) for _ in range(n_permutations)]
    null = np.array([np.mean([local_bits(x, y[order]).mean() for x, y in members]) for order in orders])
    return {"value": value, "low": low, "high": high, "p": float(p_value(value, null))}
