"""Test, by sign flips, whether activations for the two members of a pair share anything about the clip.

What a style or a frame order does to every clip alike tells nothing about a clip. The mean of each style and
order is therefore subtracted first: z = activation - mean over the clips in the same style and order. If the
members of the pairs share nothing else, the sign of z is arbitrary for each video and style (dynamic pairs),
or for each video and order (static pairs). Random signs then give the null distribution of a sum of products.
All clips of a video get the same sign, and so do all pairs that contain the same views. For each unit,

    statistic = sum_g q_g / sqrt(sum_g w_g^2)
    p = (1 + number of flips with a statistic at least as large) / (1 + number of flips)

where q_g is the sum of za * zb over the pairs of video g, and w_g is that of (za^2 + zb^2) / 2 (Davison &
Hinkley, "Bootstrap Methods and their Application", 1997, eq. 4.11). Flips do not change w_g, so it matters
only where units are compared: a unit that varies in few videos has small statistics, whatever the signs. The
statistic of a layer is the sum of q_g over videos and units.

The test needs no equal variance of videos: a video with large activations has large products whatever their
signs. It is exact if activations are symmetric about their mean, and conservative for rectified activations
(bench/coverage.py). ``p_family`` compares a unit with the largest statistic of all units of its stage in each
flip (Westfall & Young 1993). It controls the family-wise error for any dependence between units.

The subtracted means correlate the rows of n clips by -1 / (n - 1), which makes the variance of a sum of
products larger by n / (n - 1). Flipped rows lack this correlation, so flipped statistics are multiplied by
the square root of this factor (`inflation`).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .moments import Moments
from .pairs import FactorPairs

# Statistics that differ by less than this count as equal, because products are computed in float32.
TIE = 1e-5
UNITS_AT_A_TIME = 256


def draw_signs(pairs: FactorPairs, n: int, seed: Sequence[int]) -> NDArray:
    """Draw the sign of each pair's product in `n` flips (no flips for one cluster). Shape: (flips, pairs).

    A sign is drawn per cluster and strand (`FactorPairs.strand_a`). A product has the sign of both members.
    """
    n = n if pairs.clusters > 1 else 0
    strands = 1 + max(pairs.strand_a.max(), pairs.strand_b.max())
    signs = np.random.default_rng(list(seed)).integers(0, 2, (n, pairs.clusters, strands)).astype(np.float32)
    signs = 2 * signs - 1
    return signs[:, pairs.cluster, pairs.strand_a] * signs[:, pairs.cluster, pairs.strand_b]


def without_group_means(z: NDArray, group: NDArray) -> NDArray:
    """Subtract from each row of `z` (pairs, units) the mean of its group: rows of equal style and order."""
    groups, index = np.unique(group, return_inverse=True)
    member = np.eye(len(groups))[index]  # (pairs, groups)
    return z - member @ ((member / member.sum(0)).T @ z)


def inflation(pairs: FactorPairs, own: NDArray | slice = slice(None)) -> float:
    """Return the factor that corrects flipped statistics for the subtraction of group means.

    `own` selects some of the pairs, if the statistics are sums over these pairs.
    """
    a, b, cluster = pairs.group_a[own], pairs.group_b[own], pairs.cluster[own]
    counts = np.zeros((1 + max(a.max(), b.max()), pairs.clusters), bool)
    counts[a, cluster] = counts[b, cluster] = True
    # number of videos per style and order
    videos = counts.sum(1)
    fewest = np.minimum(videos[a], videos[b])
    return float(np.mean(1 - 1 / np.maximum(2, fewest)) ** -0.5)


def flip_test(
    za: NDArray, zb: NDArray, pairs: FactorPairs, signs: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Return products of centred members (N, C), unit statistics (C,), and the statistics per flip (P, C).

    `za`, `zb` (N, C) are the activations of both members of each pair.
    """
    za, zb = without_group_means(za, pairs.group_a), without_group_means(zb, pairs.group_b)
    starts = np.flatnonzero(np.diff(pairs.cluster, prepend=-1))
    half = np.add.reduceat(za**2 + zb**2, starts) / 2  # (clusters, C)
    q, scale = za * zb, np.sqrt((half**2).sum(0))
    scaled = np.divide(q, scale, out=np.zeros_like(q), where=scale > 0).astype(np.float32)
    return q, scaled.sum(0), inflation(pairs) * (signs @ scaled)


def p_value(value: ArrayLike, null: NDArray) -> NDArray:
    """Return the p-value of `value` for the null distribution `null`, one value per flip; NaN without flips.

    If `null` is the largest unit statistic of each flip, the result is the family-wise p-value of a unit.
    """
    value = np.asarray(value, float)
    p = (1 + (null >= value - TIE).sum(0)) / (1 + len(null))
    return np.where(np.isnan(value) | np.isnan(null).any(0), np.nan, p if len(null) else np.nan)


def score_p_values(
    rows: NDArray, factors: Sequence[FactorPairs], signs: Sequence[NDArray], m: Moments
) -> tuple[NDArray, NDArray, NDArray]:
    """Return, per factor, the layer's p-value, the units' p-values and the units' family-wise p-values.

    Activations `rows` (views, C) are read in blocks of units. `signs` are from `draw_signs` per factor, `m`
    (F, C) the sums over all pairs. P-values of dead units are NaN.
    """
    _, variance, _ = m.within_factors
    units = rows.shape[1]
    statistic, p_unit = np.full((2, len(factors), units), np.nan)
    # product of each pair's members, summed over units
    layer = [np.zeros(len(pairs.a)) for pairs in factors]
    largest = [np.full(len(flips), -np.inf) for flips in signs]
    for start in range(0, units, UNITS_AT_A_TIME):
        block = slice(start, start + UNITS_AT_A_TIME)
        values = np.ascontiguousarray(rows[:, block]).astype(np.float64)
        for f, (pairs, flips) in enumerate(zip(factors, signs, strict=True)):
            live = variance[f, block] > 0
            q, seen, null = flip_test(values[pairs.a], values[pairs.b], pairs, flips)
            layer[f] += q.sum(1)
            statistic[f, block] = np.where(live, seen, np.nan)
            p_unit[f, block] = p_value(statistic[f, block], null)
            if live.any():
                largest[f] = np.maximum(largest[f], null[:, live].max(1))
    p_layer = []
    for q, pairs, flips in zip(layer, factors, signs, strict=True):
        scale = np.abs(q).sum() or 1.0
        p_layer.append(p_value(q.sum() / scale, inflation(pairs) * (flips @ q) / scale))
    p_family = [p_value(seen, null[:, None]) for seen, null in zip(statistic, largest, strict=True)]
    return np.array(p_layer), p_unit, np.array(p_family)
