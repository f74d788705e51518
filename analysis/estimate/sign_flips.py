"""Sign-flip test of whether the two members of a pair share anything about their clip.

What a style or a frame order does to every clip alike tells nothing about a clip. The mean of each style and
order is therefore subtracted first: z = activation - mean over the clips in the same style and order. If the
members of the pairs share nothing else, the sign of z is arbitrary for each video and style (dynamic pairs),
or for each video and order (static pairs). Random signs then give the null distribution of a sum of products.
All clips of a video get the same sign, and so do all pairs that contain the same views. The statistics are
studentised: with q_g the sum of products za * zb over the pairs of video g (of one unit, or over all units),

    statistic = sum_g q_g / sqrt(sum_g q_g^2)
    p = (1 + number of flips with a statistic at least as large) / (1 + number of flips)

(Davison & Hinkley, "Bootstrap Methods and their Application", 1997, eq. 4.11.) The test needs no equal
variance of videos: a video with large activations has large products whatever their signs. It is exact if
activations are symmetric about their mean, and conservative for skewed activations (bench/coverage.py).
``p_family`` compares a unit with the largest statistic of all units of its stage in each flip (Westfall &
Young 1993). It controls the family-wise error for any dependence between units, and any number of units.

The subtracted means correlate the rows of n clips by -1 / (n - 1), which makes the variance of a sum of
products larger by n / (n - 1). Flipped rows lack this correlation, so flipped statistics are scaled up by
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
    """Draw the sign of each pair's product in `n` flips. Shape: (flips, pairs); no flips for one cluster.

    A sign is drawn per cluster and strand (`FactorPairs.strand_a`). A product has the sign of both members.
    """
    n = n if pairs.clusters > 1 else 0
    strands = 1 + max(pairs.strand_a.max(), pairs.strand_b.max())
    signs = np.random.default_rng(list(seed)).integers(0, 2, (n, pairs.clusters, strands)).astype(np.float32)
    signs = 2 * signs - 1
    return signs[:, pairs.cluster, pairs.strand_a] * signs[:, pairs.cluster, pairs.strand_b]


def without_group_means(z: NDArray, group: NDArray) -> NDArray:
    """Subtract the mean of each group of rows (same style and order) from `z` (pairs, units)."""
    groups, index = np.unique(group, return_inverse=True)
    member = np.eye(len(groups))[index]  # (pairs, groups)
    return z - member @ ((member / member.sum(0)).T @ z)


def inflation(pairs: FactorPairs) -> float:
    """Return the factor by which flipped statistics are scaled; the module's docstring explains it."""
    counts = np.zeros((1 + max(pairs.group_a.max(), pairs.group_b.max()), pairs.clusters), bool)
    counts[pairs.group_a, pairs.cluster] = counts[pairs.group_b, pairs.cluster] = True
    videos = counts.sum(1)  # number of videos per style and order
    fewest = np.minimum(videos[pairs.group_a], videos[pairs.group_b])
    return float(np.mean(1 - 1 / np.maximum(2, fewest)) ** -0.5)


def flipped_sums(products: NDArray, pairs: FactorPairs, signs: NDArray) -> tuple[NDArray, NDArray]:
    """Return sum_g q_g and sum_g q_g^2 of each flip and unit, (P, C) each; `products` are (N, C)."""
    starts = np.flatnonzero(np.diff(pairs.cluster, prepend=-1))
    own = np.add.reduceat(products, starts)  # (clusters, C)
    if (signs == signs[:, starts[pairs.cluster]]).all():  # all products of a video have the same sign
        return signs[:, starts] @ own, np.broadcast_to((own**2).sum(0), (len(signs), own.shape[1]))
    squares = np.zeros((len(signs), own.shape[1]), products.dtype)
    buffer = np.empty_like(squares)
    for start, end in zip(starts, [*starts[1:], len(products)], strict=True):
        np.matmul(signs[:, start:end], products[start:end], out=buffer)
        buffer *= buffer
        squares += buffer
    return signs @ products, squares


def studentised(total: NDArray, squares: NDArray) -> NDArray:
    """Return total / sqrt(squares); 0 if all products are 0."""
    return np.divide(total, np.sqrt(squares), out=np.zeros_like(total), where=squares > 0)


def flip_test(products: NDArray, pairs: FactorPairs, signs: NDArray) -> tuple[NDArray, NDArray]:
    """Return the studentised statistic of each unit, and of each flip and unit. Shapes: (C,), (P, C)."""
    unflipped = np.ones((1, len(products)), products.dtype)
    seen = studentised(*flipped_sums(products, pairs, unflipped))[0]
    return seen, inflation(pairs) * studentised(*flipped_sums(products, pairs, signs))


def p_value(value: ArrayLike, null: NDArray) -> NDArray:
    """Return the p-value of `value` against `null`, the values of all flips; NaN without flips.

    If `null` is the largest unit statistic of each flip, the result is the family-wise p-value of a unit.
    """
    value = np.asarray(value, float)
    p = (1 + (null >= value - TIE).sum(0)) / (1 + len(null))
    return np.where(np.isnan(value) | np.isnan(null).any(0), np.nan, p if len(null) else np.nan)


def score_p_values(
    rows: NDArray, factors: Sequence[FactorPairs], signs: Sequence[NDArray], m: Moments
) -> tuple[NDArray, NDArray, NDArray]:
    """Return p-values per factor: of the layer, of each unit, and of each unit family-wise.

    Activations `rows` (views, C) are read in blocks of units. `signs` are from `draw_signs` per factor, `m`
    (F, C) the sums over all pairs. P-values of dead units are NaN.
    """
    _, variance, _ = m.within_factors
    units = rows.shape[1]
    statistic, p_unit = np.full((2, len(factors), units), np.nan)
    layer = [np.zeros((len(pairs.a), 1)) for pairs in factors]  # products summed over units
    largest = [np.full(len(flips), -np.inf) for flips in signs]
    for start in range(0, units, UNITS_AT_A_TIME):
        block = slice(start, start + UNITS_AT_A_TIME)
        values = np.ascontiguousarray(rows[:, block]).astype(np.float64)
        for f, (pairs, flips) in enumerate(zip(factors, signs, strict=True)):
            live = variance[f, block] > 0
            za = without_group_means(values[pairs.a], pairs.group_a)
            products = za * without_group_means(values[pairs.b], pairs.group_b)
            layer[f] += products.sum(1, keepdims=True)
            products /= np.where(live, variance[f, block], 1)
            seen, null = flip_test(products.astype(np.float32), pairs, flips)
            statistic[f, block] = np.where(live, seen, np.nan)
            p_unit[f, block] = p_value(statistic[f, block], null)
            if live.any():
                largest[f] = np.maximum(largest[f], null[:, live].max(1))
    tests = [flip_test(*test) for test in zip(layer, factors, signs, strict=True)]
    p_layer = [p_value(seen, null)[0] for seen, null in tests]
    p_family = [p_value(seen, null[:, None]) for seen, null in zip(statistic, largest, strict=True)]
    return np.array(p_layer), p_unit, np.array(p_family)
