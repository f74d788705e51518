"""Compare the effect of ablating a set of units with that of random sets of equal size and matched variance.

For one set and one measure, with m_c its mean over the views of clip c:

    effect   mean over clips of m_c with the set ablated, minus m_c of the whole network
    excess   effect of the set, minus the mean effect of the random sets
    p        (1 + #{random: |x_r - x| >= |x_0 - x|}) / (1 + R)

x_0 is the mean over clips of the set, x_r that of the r-th of R random sets, and x the mean of all R + 1 of
them. If the label of a unit (its kind, its rank) has nothing to do with the measure within strata of equal
variance, the set and the random sets are exchangeable, and P(p <= a) is at most a. The test is conditional on
the clips. The intervals of effect and excess, a jackknife over videos with Student's t, are conditional on
the sets. ``random_low`` and ``random_high`` are the 2.5 % and 97.5 % quantiles of the random sets' effects.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from static_dynamic.analysis.ablation.unit_sets import UnitSet
from static_dynamic.analysis.estimate.intervals import with_bounds
from static_dynamic.analysis.estimate.jackknife import degrees_of_freedom, jackknife, student_quantile

# Two effects that differ by at most this number count as equal.
ROUNDING = 1e-12


def estimate_effects(
    sets: Sequence[UnitSet],
    randoms: Sequence[Sequence[NDArray[np.int64]]],
    numbers: NDArray,
    names: Sequence[str],
    clusters: NDArray,
    variance: NDArray,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return a table with one row per set and measure; measures without a value for any clip are left out.

    Parameters
    ----------
    sets, randoms
        The chosen sets, and the random sets of each.
    numbers
        (clips, 1 + sets, measures): the whole network, then each chosen set followed by its random sets.
    names
        Names of the measures.
    clusters
        (clips,) video of each clip.
    variance
        (units,) variance of the stage's units.
    """
    rows = []
    start = 1
    for one, own_randoms in zip(sets, randoms, strict=True):
        end = start + 1 + len(own_randoms)
        share = variance[one.units].sum() / variance.sum()
        about = {
            "set": one.name,
            "dose": one.dose,
            "units": len(one.units),
            "variance": share,
            "random_variance": np.mean([variance[units].sum() for units in own_randoms]) / variance.sum(),
        }
        for k, name in enumerate(names):
            known = np.isfinite(numbers[:, 0, k])
            if known.any():
                found = effect_columns(
                    numbers[known, 0, k], numbers[known, start:end, k], clusters[known], level
                )
                rows.append(about | {"measure": name} | found)
        start = end
    table = pd.DataFrame(rows)
    return table.assign(q=table.groupby("measure")["p"].transform(lambda p: false_discovery_control(p)))


def effect_columns(whole: NDArray, values: NDArray, clusters: NDArray, level: float) -> dict:
    """Return columns of the table of effects, for one set of units and one measure, as a dict.

    Shapes: `whole` and `clusters` (clips,), `values` (clips, 1 + random sets), the chosen set first.
    """
    own, random = values[:, 0], values[:, 1:]
    effects = (random - whole[:, None]).mean(0)
    low, high = np.quantile(effects, [(1 - level) / 2, (1 + level) / 2])
    return {
        "clips": len(whole),
        "videos": len(np.unique(clusters)),
        "whole": whole.mean(),
        "ablated": own.mean(),
        **with_bounds("effect", *mean_and_bounds(own - whole, clusters, level)),
        **with_bounds("random", effects.mean(), low, high),
        **with_bounds("excess", *mean_and_bounds(own - random.mean(1), clusters, level)),
        "p": p_value(values.mean(0)),
        "random_sets": random.shape[1],
    }


def p_value(means: NDArray) -> float:
    """Return the two-sided p-value of the first of several exchangeable numbers."""
    distance = np.abs(means - means.mean())
    return float((distance >= distance[0] - ROUNDING).mean())


def mean_and_bounds(values: NDArray, clusters: NDArray, level: float) -> tuple[float, float, float]:
    """Return the mean over clips, and its bounds from a jackknife over videos (NaN for one video)."""
    names, video = np.unique(clusters, return_inverse=True)
    mean = float(values.mean())
    if len(names) < 2:
        return mean, np.nan, np.nan
    total, count = np.bincount(video, values), np.bincount(video)
    found = jackknife(np.asarray(mean), (total.sum() - total) / (count.sum() - count))
    half = float(student_quantile(level, degrees_of_freedom(found.deviation)) * found.error)
    return mean, mean - half, mean + half
