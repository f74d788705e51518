"""Mutual information of the two members of pairs, unit by unit, in bits: as if Gaussian, and of the Gaussian
copula.

Two Gaussian variables of correlation r share -1/2 log2(1 - r^2) bits (Cover & Thomas, "Elements of
Information Theory", section 8.5), with a negative r as much as with a positive one. ``gaussian`` takes the
unit score of `paper.py` for r. ``copula`` first puts normal scores in the place of the activations, member
by member: the quantiles of the normal distribution at rank / (n + 1), ties at their mean rank (Ince et al.
2017, "A statistical framework for neuroimaging data analysis based on mutual information estimated via a
Gaussian copula"). Whatever the distribution of a unit (rectified, heavy-tailed), that is a lower bound to
what its members share, up to the error of estimation.

r^2 is too large by chance. The expected excess is taken off as the bootstrap over clusters finds it, 2 * bits
- mean(bits of the replicates); for independent pairs this is, to the first order in 1 / n, Ince's digamma
correction, and it holds for pairs that depend on each other too. Corrected bits may fall below zero where
nothing is shared: only so do they average to zero. Replicates keep the normal scores of the whole sample,
which changes their spread in higher order only. The interval of a unit is that of arctanh(r) (Fisher's z:
bits = log2 cosh z), so that it never leaves the range of information.

A stage's number is the mean over its live units. It is no information of the stage: units share what they
know with each other, and may know together what none knows alone (`subspace.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from analysis.bootstrap import corrected_bits, interval, over_all_clusters, resample, stage_bits
from analysis.null import FactorPairs, p_value, shuffled_means
from analysis.paper import IDENTICAL, Moments, covariance_and_variance, gaussian_bits, unit_correlations

UNITS_AT_A_TIME = 128

Transform = Callable[[NDArray], NDArray]


def as_it_is(x: NDArray) -> NDArray:
    """No transform: the Gaussian measure."""
    return x


def normal_scores(x: NDArray) -> NDArray:
    """Columns of x (N, C) as normal scores; a constant column stays constant."""
    return ndtri(rankdata(x, axis=0) / (len(x) + 1))


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
    for start in range(0, rows.shape[1], UNITS_AT_A_TIME):
        values = rows[:, start : start + UNITS_AT_A_TIME].astype(np.float64)
        za, zb = transform(values[pairs.a]), transform(values[pairs.b])
        r, replicates = correlations(za, zb, pairs, weights)
        null = shuffled_means(*standardised(za, zb), orders)
        value, drawn = corrected_bits(r, replicates)
        low, high = bounds(r, replicates, pairs.clusters, level)
        units = np.arange(start, start + len(r))
        columns = {"unit": units, "value": value, "low": low, "high": high, "p": p_value(abs(r), abs(null))}
        tables.append(pd.DataFrame(columns | {"plug_in": gaussian_bits(r)}))
        scores.append(r)
        drawn_sum += np.nansum(drawn, axis=1)
        null_sum += gaussian_bits(null)[:, ~np.isnan(r)].sum(1)
    units, r = pd.concat(tables, ignore_index=True), np.concatenate(scores)
    live = max(1, (~np.isnan(r)).sum())
    value, low, high = stage_bits(r, units["value"].to_numpy(), drawn_sum / live, pairs.clusters, level)
    plug_in = units["plug_in"].mean()
    p = float(p_value(plug_in, null_sum / live))
    return {"value": value, "low": low, "high": high, "p": p, "plug_in": plug_in}, units


def correlations(za: NDArray, zb: NDArray, pairs: FactorPairs, weights: NDArray) -> tuple[NDArray, NDArray]:
    """Correlation of the members by unit (C,), as `paper.py` has it, and in each replicate (R, C)."""
    sums = pair_sums(za, zb, pairs)

    def correlation(m: Moments) -> NDArray:
        covariance, variance, _ = covariance_and_variance(m)
        return unit_correlations(covariance, variance)[..., 0, :]

    return correlation(over_all_clusters(sums)), correlation(resample(sums, weights, slice(None)))


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
    mean = (za.mean(0) + zb.mean(0)) / 2
    spread = np.sqrt((((za - mean) ** 2).mean(0) + ((zb - mean) ** 2).mean(0)) / 2)
    scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    return ((za - mean) * scale).astype(np.float32), ((zb - mean) * scale).astype(np.float32)


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
