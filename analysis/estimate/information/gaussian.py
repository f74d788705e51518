"""Estimate each unit's mutual information between pair members, by a Gaussian and a Gaussian copula model.

``gaussian`` takes the paper's unit score r: two Gaussian variables of correlation r share -1/2 log2(1 - r^2)
bits (Cover & Thomas, "Elements of Information Theory", section 8.5), with either sign of r. ``copula`` first
replaces the activations of each member by normal scores: the normal quantiles at rank / (n + 1), with mean
ranks for ties (Ince et al. 2017, "A statistical framework for neuroimaging data analysis based on mutual
information estimated via a Gaussian copula"). For any distribution of a unit (rectified, heavy-tailed) that
is a lower bound on the information that its members share, up to estimation error.

Two biases are corrected.

1. r^2 is too large by chance. The bootstrap over clusters estimates the excess: the corrected value is
   2 * bits - mean(bits of the replicates). For independent pairs this equals, to first order in 1 / n, the
   digamma correction of Ince et al., and it also holds for dependent pairs. Corrected bits can fall below
   zero where nothing is shared; only so do they average to zero.
2. Ranking few videos among themselves lowers their correlation (rank bias). Replicates do not show this,
   because they keep the normal scores of the whole sample. A jackknife estimates the loss in arctanh(r) to
   first order in 1 / n (Quenouille 1956, "Notes on bias in estimation"): groups of videos are left out and
   the rest is ranked anew. The loss is added to the sample and to all replicates.

The interval of a unit is made for arctanh(r) (Fisher's z; bits = log2 cosh z), so it stays in the range of
information.

The number of a stage is the mean over its live units. It is not the information of the stage: units share
information with each other, and together may carry information that no single unit has (`subspace.py`).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from static_dynamic.analysis.estimate.bits import (
    IDENTICAL,
    bits_influence,
    bits_standard_errors,
    corrected_bits,
    gaussian_bits,
    stage_bits,
)
from static_dynamic.analysis.estimate.constant import settle
from static_dynamic.analysis.estimate.intervals import interval
from static_dynamic.analysis.estimate.moments import Moments
from static_dynamic.analysis.estimate.pairs import FactorPairs
from static_dynamic.analysis.estimate.sign_flips import inflation, p_value, without_group_means

UNITS_AT_A_TIME = 128
# The rank-bias jackknife uses 8 groups of clusters, or 2 groups for 300 or more clusters, to save time.
MOST_GROUPS, FEW_GROUPS, MANY_CLUSTERS = 8, 2, 300

# Type of a function that transforms activations (rows, units), given the number of times each row counts.
Transform = Callable[[NDArray, NDArray], NDArray]


def normal_scores(x: NDArray, counts: NDArray) -> NDArray:
    """Replace the values in each column of `x` by normal scores; row i counts `counts[i]` times."""
    units, n, total = x.shape[1], len(x), int(counts.sum())
    x = np.ascontiguousarray(x.T)
    order = np.argsort(x, axis=1)
    x = np.take_along_axis(x, order, axis=1)
    begins = np.ones((units, n), bool)
    begins[:, 1:] = x[:, 1:] != x[:, :-1]
    # index of the first value in each group of equal values
    starts = np.flatnonzero(begins)
    tied = np.add.reduceat(counts[order].ravel(), starts)
    up_to = np.cumsum(tied) - starts // n * total
    # Mean ranks of ties are whole or half numbers, so twice the mean rank is an index into this table.
    table = ndtri(np.arange(2 * total + 1) / (2 * (total + 1)))
    scores = table[2 * up_to - tied + 1]
    scores = np.repeat(scores, np.diff(starts, append=units * n)).reshape(units, n)
    result = np.empty_like(scores)
    np.put_along_axis(result, order, scores, axis=1)
    return np.ascontiguousarray(result.T)


TRANSFORMS: dict[str, Transform] = {"gaussian": lambda x, counts: x, "copula": normal_scores}


def unit_information(
    rows: NDArray,
    pairs: FactorPairs,
    weights: NDArray,
    signs: NDArray,
    transform: Transform,
    level: float,
    few_videos: NDArray | None = None,
) -> tuple[dict, pd.DataFrame]:
    """Estimate each unit's mutual information in bits for one factor, and the mean over the stage's units.

    Activations `rows` (views, C) are read in blocks of units. Weights (R, K) are of the clusters of `pairs`,
    `signs` (P, N) those of `draw_signs`. Both results have ``value``, ``low``, ``high``, ``p``, and
    ``plug_in``, the bits before bias correction; NaN for dead units, and for those that vary in one or two
    videos only (`few_videos` (C,); None: no units), whose members are equal by chance.
    """
    few_videos = np.zeros(rows.shape[1], bool) if few_videos is None else few_videos
    blocks = []
    bits_sum, seen_sum, null_sum = np.zeros(len(weights)), 0.0, np.zeros(len(signs))
    influence = np.zeros((1 + len(weights), pairs.clusters))
    for start in range(0, rows.shape[1], UNITS_AT_A_TIME):
        values = rows[:, start : start + UNITS_AT_A_TIME].astype(np.float64)
        settle(values, np.union1d(pairs.a, pairs.b))
        za, zb = (transformed(values, member, transform) for member in (pairs.a, pairs.b))
        sums = cluster_sums(za, zb, pairs)
        resampled = [sums.over_clusters().one_replicate(), sums.resample(weights)]
        few = few_videos[start : start + UNITS_AT_A_TIME]
        uncorrected = [np.where(few, np.nan, m.unit_scores()) for m in resampled]
        corrected = uncorrected
        if transform is normal_scores:
            bias = rank_bias(values, za, zb, pairs)
            corrected = [correct_rank_bias(r, bias) for r in uncorrected]
        parts = zip(resampled, corrected, uncorrected, strict=True)
        influence += np.concatenate([bits_influence(sums, *part)[:, 0] for part in parts])
        plain, r, replicates = uncorrected[0][0, 0], corrected[0][0, 0], corrected[1][:, 0]
        value, replicate_bits = corrected_bits(r, replicates)
        low, high = fisher_interval(r, replicates, pairs.clusters, level)
        p, seen, null = flipped_bits(za, zb, pairs, signs)
        live = ~np.isnan(r)
        blocks.append((value, low, high, np.where(live, p, np.nan), gaussian_bits(plain), r))
        bits_sum += np.nansum(replicate_bits, axis=1)
        seen_sum += seen[live].sum()
        null_sum += null[:, live].sum(1)
    *columns, r = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    names = ("value", "low", "high", "p", "plug_in")
    table = pd.DataFrame({"unit": np.arange(len(r))} | dict(zip(names, columns, strict=True)))
    errors = bits_standard_errors(influence, np.bincount(pairs.cluster), weights)
    ends = stage_bits(r, columns[0], bits_sum, errors, pairs.clusters, level)
    live_units = max(1, (~np.isnan(r)).sum())
    p = p_value(seen_sum / live_units, null_sum / live_units)
    layer = dict(zip(("value", "low", "high"), ends, strict=True))
    return layer | {"p": float(p), "plug_in": table["plug_in"].mean()}, table


def transformed(values: NDArray, member: NDArray, transform: Transform) -> NDArray:
    """Transform the activations for one member (first or second) of all pairs; transform each view once."""
    views, position, counts = np.unique(member, return_inverse=True, return_counts=True)
    return transform(values[views], counts)[position]


def rank_bias(values: NDArray, za: NDArray, zb: NDArray, pairs: FactorPairs) -> NDArray:
    """Estimate the rank bias: how much ranking few videos lowers arctanh of the correlation of `za`, `zb`.

    Each group of clusters is left out twice, once with the rest ranked anew: only the ranking differs.
    """
    groups = min(pairs.clusters, FEW_GROUPS if pairs.clusters >= MANY_CLUSTERS else MOST_GROUPS)
    bias = np.zeros(za.shape[1])
    group = np.random.default_rng(0).permutation(pairs.clusters) % max(1, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        for left_out in range(groups if groups > 1 else 0):
            kept = np.flatnonzero(group[pairs.cluster] != left_out)
            a, b = (transformed(values, member[kept], normal_scores) for member in (pairs.a, pairs.b))
            bias += np.arctanh(correlation(za[kept], zb[kept])) - np.arctanh(correlation(a, b))
    return np.where(np.isfinite(bias), bias, 0) * (groups - 1) / max(1, groups)


def correct_rank_bias(r: NDArray, bias: NDArray) -> NDArray:
    """Add the rank bias to the arctanh of each unit's correlation; leave correlations of 1 unchanged."""
    # no warning if rounding makes |r| larger than 1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(1 - abs(r) < IDENTICAL, r, np.tanh(np.arctanh(r) + bias))


def correlation(za: NDArray, zb: NDArray) -> NDArray:
    """Return, for each unit, the correlation of first and second pair members; 0 if the unit is constant.

    Both members have one common mean.
    """
    # subtracting the first row makes constant units exactly zero
    shift = za[0]
    za, zb = za - shift, zb - shift
    mean = (za.mean(0) + zb.mean(0)) / 2
    za, zb = za - mean, zb - mean
    squares = ((za**2).sum(0) + (zb**2).sum(0)) / 2
    return np.divide((za * zb).sum(0), squares, out=np.zeros_like(squares), where=squares > 0)


def cluster_sums(za: NDArray, zb: NDArray, pairs: FactorPairs) -> Moments:
    """Return the sums over the pairs of each cluster. Rows of `za` and `zb` are in the order of `pairs`."""
    shift = za[:1].copy()
    a, b = za - shift, zb - shift
    _, starts, count = np.unique(pairs.cluster, return_index=True, return_counts=True)
    total, product, square = (np.add.reduceat(x, starts)[:, None] for x in (a + b, a * b, a**2 + b**2))
    return Moments(count.astype(float)[:, None], total, product, square, shift)


def flipped_bits(
    za: NDArray, zb: NDArray, pairs: FactorPairs, signs: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Return each unit's two-sided p-value, and the unit's bits in the sample and in each sign flip.

    The bits are those of the correlation after the mean of each style and order is subtracted.
    """
    a, b = without_group_means(za, pairs.group_a), without_group_means(zb, pairs.group_b)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    products = np.divide(a * b, scale, out=np.zeros_like(a), where=scale > 0)
    seen, null = abs(products.sum(0)), inflation(pairs) * abs(signs @ products.astype(np.float32))
    return p_value(seen, null), gaussian_bits(seen), gaussian_bits(np.minimum(1, null))


def fisher_interval(r: NDArray, replicates: NDArray, clusters: int, level: float) -> tuple[NDArray, NDArray]:
    """Return each unit's confidence interval in bits, computed from the interval of z = arctanh(r).

    The lower bound is 0 if the interval of z contains 0. Both bounds are infinite for identical members.
    """
    with np.errstate(divide="ignore"):
        z, zs = np.arctanh(r), np.arctanh(np.where(1 - abs(replicates) < IDENTICAL, np.nan, replicates))
    identical = 1 - abs(r) < IDENTICAL
    low, high = interval(np.where(identical, 0, z), zs, clusters, level)
    ends = np.sort(abs(np.stack([low, high])), axis=0)
    ends[0] = np.where((low < 0) & (high > 0), 0, ends[0])
    # Bits are log2(cosh z), computed here in a form that does not overflow for large z.
    ends = ends / np.log(2) + np.log2((1 + np.exp(-2 * ends)) / 2)
    low, high = np.where(identical, np.inf, ends)
    return low, high
