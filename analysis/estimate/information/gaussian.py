"""Mutual information of the two members of pairs, unit by unit, in bits: as if Gaussian, and of the Gaussian
copula.

Two Gaussian variables of correlation r share -1/2 log2(1 - r^2) bits (Cover & Thomas, "Elements of
Information Theory", section 8.5), with a negative r as much as with a positive one. ``gaussian`` takes the
unit score of the paper for r. ``copula`` first puts normal scores in the place of the activations, member by
member: the quantiles of the normal distribution at rank / (n + 1), ties at their mean rank (Ince et al.
2017, "A statistical framework for neuroimaging data analysis based on mutual information estimated via a
Gaussian copula"). Whatever the distribution of a unit (rectified, heavy-tailed), that is a lower bound to
what its members share, up to the error of estimation.

r^2 is too large by chance. The expected excess is taken off as the bootstrap over clusters finds it, 2 * bits
- mean(bits of the replicates); for independent pairs this is, to the first order in 1 / n, Ince's digamma
correction, and it holds for pairs that depend on each other too. Corrected bits may fall below zero where
nothing is shared: only so do they average to zero. Replicates keep the normal scores of the whole sample.
Ranks among few videos take away some of what those have in common, which such replicates cannot show. What
arctanh(r) loses where groups of videos are left out and the others ranked anew tells how much that is, to the
first order in 1 / n (the jackknife; Quenouille 1956, "Notes on bias in estimation"), and is given back to
all of them. The interval of a unit is that of arctanh(r) (Fisher's z: bits = log2 cosh z), so that it never
leaves the range of information.

A stage's number is the mean over its live units. It is no information of the stage: units share what they
know with each other, and may know together what none knows alone (`subspace.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from static_dynamic.analysis.estimate.bootstrap import (
    corrected_bits,
    interval,
    one_replicate,
    over_all_clusters,
    resample,
    stage_bits,
)
from static_dynamic.analysis.estimate.estimator import (
    IDENTICAL,
    Moments,
    covariance_and_variance,
    gaussian_bits,
    unit_correlations,
)
from static_dynamic.analysis.estimate.permutation import FactorPairs, p_value, shuffled_means
from static_dynamic.analysis.estimate.studentised import added_bits, errors_of_bits

UNITS_AT_A_TIME = 128
# of clusters, for the jackknife of ranks: its own error falls with their number, and matters for few clusters
MOST_GROUPS, FEW_GROUPS, MANY_CLUSTERS = 8, 2, 300

# of the columns of (n, C), whose rows count so many times (n,)
Transform = Callable[[NDArray, NDArray], NDArray]


def as_it_is(x: NDArray, counts: NDArray) -> NDArray:
    """No transform: the Gaussian measure."""
    return x


def normal_scores(x: NDArray, counts: NDArray) -> NDArray:
    """Columns of x (n, C) as normal scores among rows that count `counts` times each, (n,) whole numbers; a
    constant column stays constant."""
    units, n, total = x.shape[1], len(x), int(counts.sum())
    x = np.ascontiguousarray(x.T)
    order = np.argsort(x, axis=1)
    x = np.take_along_axis(x, order, axis=1)
    begins = np.ones((units, n), bool)
    begins[:, 1:] = x[:, 1:] != x[:, :-1]
    starts = np.flatnonzero(begins)  # of each run of equal values, column after column
    tied = np.add.reduceat(counts[order].ravel(), starts)
    up_to = np.cumsum(tied) - starts // n * total
    # ranks are whole or half: twice the mean rank of a run is a place in a table
    table = ndtri(np.arange(2 * total + 1) / (2 * (total + 1)))
    scores = table[2 * up_to - tied + 1]
    scores = np.repeat(scores, np.diff(starts, append=units * n)).reshape(units, n)
    found = np.empty_like(scores)
    np.put_along_axis(found, order, scores, axis=1)
    return np.ascontiguousarray(found.T)


TRANSFORMS: dict[str, Transform] = {"gaussian": as_it_is, "copula": normal_scores}


def unit_information(
    rows: NDArray,
    pairs: FactorPairs,
    weights: NDArray,
    orders: NDArray,
    transform: Transform,
    level: float,
) -> tuple[dict, pd.DataFrame]:
    """Bits of every unit of one stage for one factor, and their mean over the stage.

    Parameters
    ----------
    rows : (views, C)
        Activations; a block of units is in memory at a time.
    weights : (replicates, clusters of `pairs`)
        How often each replicate drew each cluster.
    orders : (permutations, N)
        Places of the second members under the null (`null.shuffles`).

    Returns
    -------
    layer, units
        ``value``, ``low``, ``high``, ``p``, and ``plug_in``, the bits before correction; units are NaN where
        dead.
    """
    tables, drawn_sum, null_sum, scores = [], np.zeros(len(weights)), np.zeros(len(orders)), []
    kinds, added = same_plan(pairs), np.zeros((1 + len(weights), pairs.clusters))
    for start in range(0, rows.shape[1], UNITS_AT_A_TIME):
        values = rows[:, start : start + UNITS_AT_A_TIME].astype(np.float64)
        za, zb = (transformed(values, member, transform) for member in (pairs.a, pairs.b))
        sums = pair_sums(za, zb, pairs)
        drawn = [one_replicate(over_all_clusters(sums)), resample(sums, weights, slice(None))]
        as_drawn = [correlations(m) for m in drawn]
        given_back = as_drawn
        if transform is normal_scores:
            lost = lost_to_ranks(values, za, zb, pairs)
            given_back = [raised(r, lost) for r in as_drawn]
        parts = zip(drawn, given_back, as_drawn, strict=True)
        added += np.concatenate([added_bits(sums, *part)[:, 0] for part in parts])
        plain, r, replicates = as_drawn[0][0, 0], given_back[0][0, 0], given_back[1][:, 0]
        null = null_correlations(za, zb, kinds, orders)
        value, drawn = corrected_bits(r, replicates)
        low, high = bounds(r, replicates, pairs.clusters, level)
        units = np.arange(start, start + len(r))
        p = p_value(abs(plain), abs(null))
        columns = {"unit": units, "value": value, "low": low, "high": high, "p": p}
        tables.append(pd.DataFrame(columns | {"plug_in": gaussian_bits(plain)}))
        scores.append(r)
        drawn_sum += np.nansum(drawn, axis=1)
        null_sum += gaussian_bits(null)[:, ~np.isnan(r)].sum(1)
    units, r = pd.concat(tables, ignore_index=True), np.concatenate(scores)
    live = max(1, (~np.isnan(r)).sum())
    errors = errors_of_bits(added, np.bincount(pairs.cluster), np.vstack([np.ones(pairs.clusters), weights]))
    value, low, high = stage_bits(r, units["value"].to_numpy(), drawn_sum, errors, pairs.clusters, level)
    plug_in = units["plug_in"].mean()
    p = float(p_value(plug_in, null_sum / live))
    return {"value": value, "low": low, "high": high, "p": p, "plug_in": plug_in}, units


def transformed(values: NDArray, member: NDArray, transform: Transform) -> NDArray:
    """One member of pairs, (N, C): a view that is a member of several is transformed once."""
    views, place, counts = np.unique(member, return_inverse=True, return_counts=True)
    return transform(values[views], counts)[place]


def lost_to_ranks(values: NDArray, za: NDArray, zb: NDArray, pairs: FactorPairs) -> NDArray:
    """What arctanh(r) of normal scores za, zb (N, C) lost to ranking, by a jackknife over groups of clusters,
    (C,); 0 where that is no number.

    Each group is left out once, with the others ranked anew and as they are: all but their ranks is the same.
    """
    groups = min(pairs.clusters, FEW_GROUPS if pairs.clusters >= MANY_CLUSTERS else MOST_GROUPS)
    lost = np.zeros(za.shape[1])
    group = np.random.default_rng(0).permutation(pairs.clusters) % max(1, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        for left_out in range(groups if groups > 1 else 0):
            own = np.flatnonzero(group[pairs.cluster] != left_out)
            again = (transformed(values, member[own], normal_scores) for member in (pairs.a, pairs.b))
            lost += np.arctanh(correlation(za[own], zb[own])) - np.arctanh(correlation(*again))
    return np.where(np.isfinite(lost), lost, 0) * (groups - 1) / max(1, groups)


def raised(r: NDArray, lost: NDArray) -> NDArray:
    """Correlations (..., C) with what arctanh(r) lost; members that are the same stay so."""
    with np.errstate(divide="ignore", invalid="ignore"):  # r may be above 1 in its last digit
        return np.where(1 - abs(r) < IDENTICAL, r, np.tanh(np.arctanh(r) + lost))


def correlation(za: NDArray, zb: NDArray) -> NDArray:
    """Correlation of the members by unit, (C,), about their common mean; 0 where a unit is dead."""
    a, b = standardised(za, zb)
    return np.einsum("nu,nu->u", a, b, dtype=np.float64) / max(1, len(a))


def correlations(drawn: Moments) -> NDArray:
    """Correlation of the members by unit, as `static_dynamic.analysis.estimate.estimator` has it, in each replicate: (R, 1, C)."""
    covariance, variance, _ = covariance_and_variance(drawn)
    return unit_correlations(covariance, variance)


def pair_sums(za: NDArray, zb: NDArray, pairs: FactorPairs) -> Moments:
    """Sums of each cluster, of one factor: za, zb (N, C) in the order of `pairs`."""
    shift = za[:1].copy()
    a, b = za - shift, zb - shift
    total, product, square = (np.add.reduceat(x, pairs.starts)[:, None] for x in (a + b, a * b, a**2 + b**2))
    count = np.bincount(pairs.cluster).astype(float)[:, None]
    return Moments(count, total, product, square, shift)


def standardised(za: NDArray, zb: NDArray) -> tuple[NDArray, NDArray]:
    """Both members about their common mean, in units of their common standard deviation, float32; a dead unit
    is 0."""
    shift = za[0]  # so that a dead unit is exactly zero
    za, zb = za - shift, zb - shift
    mean = (za.mean(0) + zb.mean(0)) / 2
    spread = np.sqrt((((za - mean) ** 2).mean(0) + ((zb - mean) ** 2).mean(0)) / 2)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    return ((za - mean) * scale).astype(np.float32), ((zb - mean) * scale).astype(np.float32)


def same_plan(pairs: FactorPairs) -> NDArray | None:
    """Which pairs of a cluster have one second member: their kinds 0 .. L - 1 (pairs of a cluster,), or None
    where clusters differ in that."""
    counts = np.bincount(pairs.cluster)
    if (counts != counts[0]).any():
        return None
    second = pairs.b.reshape(-1, counts[0])
    first = (second[:, :, None] == second[:, None]).argmax(2)  # the first pair of the same second member
    return np.unique(first[0], return_inverse=True)[1] if (first == first[0]).all() else None


def null_correlations(za: NDArray, zb: NDArray, kinds: NDArray | None, orders: NDArray) -> NDArray:
    """Correlations of members that are paired anew, (P, C): za, zb (N, C), orders (P, N) as `null.shuffles`
    makes them, `kinds` of `same_plan`.

    Where clusters have the same plan, first members of one kind are added up before they meet the second
    ones, and a permutation moves whole clusters: fewer products, and longer stretches of memory.
    """
    za, zb = standardised(za, zb)
    if kinds is None:
        return shuffled_means(za, zb, orders)
    size, units = len(kinds), za.shape[1]
    own = kinds == np.arange(kinds.max() + 1)[:, None]  # (L, pairs of a cluster)
    sums = np.einsum("lj,kju->klu", own.astype(np.float32), za.reshape(-1, size, units))
    seconds = zb.reshape(-1, size, units)[:, own.argmax(1)]
    products = shuffled_means(
        sums.reshape(len(sums), -1), seconds.reshape(len(sums), -1), orders[:, ::size] // size
    )
    return products.reshape(len(orders), len(own), units).sum(1) / size


def bounds(r: NDArray, replicates: NDArray, clusters: int, level: float) -> tuple[NDArray, NDArray]:
    """Interval in bits of each unit, from that of arctanh(r); from 0 where that holds 0, infinite where r is
    one."""
    with np.errstate(divide="ignore"):
        z, drawn = np.arctanh(r), np.arctanh(np.where(1 - abs(replicates) < IDENTICAL, np.nan, replicates))
    same = 1 - abs(r) < IDENTICAL
    low, high = interval(np.where(same, 0, z), drawn, clusters, level)
    ends = np.sort(abs(np.stack([low, high])), axis=0)
    ends[0] = np.where((low < 0) & (high > 0), 0, ends[0])
    # log2 cosh z, where cosh would overflow
    ends = ends / np.log(2) + np.log2((1 + np.exp(-2 * ends)) / 2)
    return tuple(np.where(same, np.inf, end) for end in ends)
