"""Whether a stage sees the same likenesses between videos in both members of pairs: linear CKA, unbiased.

With the videos as samples, K = X X^T and L = Y Y^T hold how alike the stage finds any two videos, in the
first members and in the second. CKA is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al. 2019,
"Similarity of neural network representations revisited"): 1 where both geometries are the same up to
rotation and scale, 0 where they have nothing in common; units may be mixed by any rotation. The plain
estimate of HSIC goes to 1 with more units than videos. Ours is the unbiased one (Song et al. 2012, "Feature
selection via dependence maximization", eq. 5), a mean over tuples of different videos

    sum_(c,d) K_cd L_cd / n_2  +  sum_(c,d,e,g) K_cd L_eg / n_4  -  2 sum_(c,d,e) K_cd L_ce / n_3

averaged over batches of videos so that memory does not grow with their number (Nguyen et al. 2021, "Do wide
and deep networks learn the same things?"). It may fall below 0 by chance.

Pairs of one place in the plan of a clip (its first dynamic pair, its second ...) are compared with each
other: where every clip has the same pairs, styles do not mix. CKA is averaged over these slots. Clips of one
cluster are averaged to one sample, since samples have to be independent; clips that lack a pair are left out.

A bootstrap replicate weighs every tuple of four clusters by the product of how often each was drawn, and
still takes tuples of different clusters only: a video drawn twice would be its own neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.bootstrap import finite_mean, interval
from static_dynamic.analysis.estimate.permutation import FactorPairs, p_value

BATCH = 256
# in memory at a time: a few hundred numbers by samples of a batch, and by pairs of them
REPLICATES_AT_A_TIME, ORDERS_AT_A_TIME = 512, 16
# fewer clusters have no tuples of four
LEAST_CLUSTERS = 4


def batches(clusters: int, seed: int) -> list[NDArray]:
    """Cluster numbers in batches of nearly equal size, drawn."""
    order = np.random.default_rng(seed).permutation(clusters)
    return [np.sort(part) for part in np.array_split(order, max(1, -(-clusters // BATCH)))]


def slots(pairs: FactorPairs) -> list[NDArray]:
    """Positions of the pairs of each slot, of the clips that have all of them."""
    counts = np.bincount(pairs.clip)
    complete = counts[pairs.clip] == counts.max()
    return [np.flatnonzero(complete & (pairs.slot == slot)) for slot in range(counts.max())]


def kernels(
    rows: NDArray, pairs: FactorPairs, chosen: list[NDArray], batch: NDArray
) -> tuple[list[NDArray], list[tuple[int, int]]]:
    """Kernels of the samples in `batch`, each once, and the numbers of the two that each slot compares.

    A sample is the mean of a cluster's members; slots share many, as one view is a member of several pairs.
    """
    found: dict[bytes, int] = {}
    made, compared = [], []
    for slot in chosen:
        inside = slot[np.isin(pairs.cluster[slot], batch)]
        _, starts, counts = np.unique(pairs.cluster[inside], return_index=True, return_counts=True)
        two = []
        for member in (pairs.a[inside], pairs.b[inside]):
            if (key := member.tobytes()) not in found:
                found[key] = len(made)
                x = np.add.reduceat(rows[member].astype(np.float64), starts) / counts[:, None]
                made.append(likeness(x))
            two.append(found[key])
        compared.append(tuple(two))
    return made, compared


def likeness(x: NDArray) -> NDArray:
    """Linear kernel of samples (n, C) about their mean, without its diagonal: HSIC takes no notice of the
    mean, float64 does."""
    x = x - x[0]  # so that constant units are exactly zero
    x = x - x.mean(0)
    k = x @ x.T
    np.fill_diagonal(k, 0)
    return k


@dataclass(frozen=True)
class Draws:
    """How often each replicate drew each sample, w (R, n), and its powers."""

    w: NDArray
    w2: NDArray
    w3: NDArray

    @classmethod
    def of(cls, weights: NDArray) -> Draws:
        """From weights (R, n)."""
        return cls(weights, weights**2, weights**3)

    @cached_property
    def sums(self) -> list[NDArray]:
        """Sums of the powers 1 to 4, each (R,)."""
        return [self.w.sum(1), self.w2.sum(1), self.w3.sum(1), dots(self.w2, self.w2)]

    @cached_property
    def tuples(self) -> NDArray:
        """Sum over tuples of different c, d, e, g of w_c w_d w_e w_g, (R,), from sums of powers (Newton).

        NaN where a replicate drew fewer than four samples.
        """
        p1, p2, p3, p4 = self.sums
        enough = (self.w > 0).sum(1) >= LEAST_CLUSTERS
        return np.where(enough, p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4, np.nan)


@dataclass(frozen=True)
class DrawnKernel:
    """A kernel without diagonal (n, n) and its sums over the samples of each replicate, which HSIC with any
    other needs."""

    k: NDArray
    wk: NDArray  # (R, n): sum_d w_d K_cd
    w_wk: NDArray  # w_c sum_d w_d K_cd
    w2_wk: NDArray  # w_c^2 sum_d w_d K_cd
    w_w2k: NDArray  # w_c sum_d w_d^2 K_cd
    total: NDArray  # (R,): sum_cd w_c w_d K_cd

    @classmethod
    def of(cls, k: NDArray, draws: Draws) -> DrawnKernel:
        """From the kernel and the replicates."""
        wk = draws.w @ k
        w_wk = draws.w * wk
        return cls(k, wk, w_wk, draws.w * w_wk, draws.w * (draws.w2 @ k), w_wk.sum(1))


def dots(a: NDArray, b: NDArray) -> NDArray:
    """Dot product of each row of a and of b (R, n): (R,)."""
    return np.einsum("rc,rc->r", a, b)


def hsic(k: DrawnKernel, l: DrawnKernel, draws: Draws) -> NDArray:  # noqa: E741
    """Unbiased HSIC of two kernels in each replicate, (R,); NaN where fewer than four samples were drawn.

    The sum over tuples of different c, d, e, g of w_c w_d w_e w_g (K_cd L_cd + K_cd L_eg - 2 K_cd L_ce) is
    that over all tuples, less those in which two are the same (inclusion and exclusion).
    """
    first, second = draws.sums[:2]
    both = k.k * l.k
    wb = draws.w @ both
    b11, b21, b31 = (dots(w, wb) for w in (draws.w, draws.w2, draws.w3))  # sums of w_c^p w_d^q K_cd L_cd
    b22 = dots(draws.w2, draws.w2 @ both)
    own = dots(k.w2_wk, l.wk)
    two = (first**2 - second) * b11 - 4 * first * b21 + 4 * b31 + 2 * b22
    three = first * (dots(k.w_wk, l.wk) - b21)
    three -= own - b22 + dots(k.w_w2k, l.wk) + dots(k.wk, l.w_w2k) - 2 * b31
    four = k.total * l.total - 4 * own + 2 * b22
    return (two + four - 2 * three) / draws.tuples


def shuffled_places(orders: NDArray) -> tuple[NDArray, NDArray]:
    """Places in a flat symmetric matrix of n samples: those above its diagonal, (n (n - 1) / 2,), and what
    comes there where the samples are in each of `orders` (P, n): (P, n (n - 1) / 2)."""
    n = orders.shape[1]
    c, d = np.triu_indices(n, 1)
    return c * n + d, orders[:, c] * n + orders[:, d]


def shuffled_hsic(
    k: NDArray,
    l: NDArray,  # noqa: E741
    orders: NDArray,
    above: NDArray,
    places: NDArray,
) -> NDArray:
    """HSIC of K and of L with its samples in each of `orders` (P, n), (P,); `above` and `places` of
    `shuffled_places`."""
    n = len(k)
    row_k, row_l, total = k.sum(0), l.sum(0), k.sum() * l.sum()
    two = 2 * (np.take(l, places) @ np.take(k, above))
    rows = row_l[orders] @ row_k
    three, four = rows - two, total - 4 * rows + 2 * two
    n2 = n * (n - 1)
    return two / n2 + four / (n2 * (n - 2) * (n - 3)) - 2 * three / (n2 * (n - 2))


def stage_cka(
    rows: NDArray, pairs: FactorPairs, weights: NDArray, n_permutations: int, seed: int, level: float
) -> dict:
    """CKA of the members of one factor's pairs at one stage: ``value``, ``low``, ``high``, ``p``.

    Parameters
    ----------
    rows : (views, C)
        Activations; those of one batch of clusters are in memory at a time.
    weights : (replicates, clusters of `pairs`)
        How often each replicate drew each cluster.
    """
    chosen = slots(pairs)
    clusters = np.unique(pairs.cluster[np.concatenate(chosen)])
    if len(clusters) < LEAST_CLUSTERS:
        return dict.fromkeys(("value", "low", "high", "p"), np.nan)
    draw = np.random.default_rng([seed, 1])
    weights = np.vstack([np.ones(weights.shape[1]), weights])  # the first replicate is the sample itself
    sums = np.zeros((len(chosen), 3, len(weights)))
    null = np.zeros((len(chosen), n_permutations))
    for batch in (clusters[part] for part in batches(len(clusters), seed)):
        orders = [draw.permutation(len(batch)) for _ in range(n_permutations)]
        made, compared = kernels(rows, pairs, chosen, batch)
        for start in range(0, len(weights), REPLICATES_AT_A_TIME):
            some = slice(start, start + REPLICATES_AT_A_TIME)
            draws = Draws.of(weights[some, batch])
            drawn = [DrawnKernel.of(k, draws) for k in made]
            own = [np.nan_to_num(hsic(k, k, draws)) for k in drawn]
            for slot, (k, l) in enumerate(compared):  # noqa: E741
                sums[slot, :, some] += [np.nan_to_num(hsic(drawn[k], drawn[l], draws)), own[k], own[l]]
        for start in range(0, n_permutations, ORDERS_AT_A_TIME):
            some = slice(start, start + ORDERS_AT_A_TIME)
            new = np.stack(orders[some])
            places = shuffled_places(new)
            for slot, (k, l) in enumerate(compared):  # noqa: E741
                null[slot, some] += shuffled_hsic(made[k], made[l], new, *places)
    # where a member does not vary between videos, or less than chance has it, there is no CKA
    positive = (sums[:, 1] > 0) & (sums[:, 2] > 0)
    scale = np.sqrt(np.where(positive, sums[:, 1] * sums[:, 2], np.nan))
    value, *drawn = finite_mean(sums[:, 0] / scale)
    null = finite_mean(null / scale[:, :1])
    low, high = interval(value, np.array(drawn), len(clusters), level)
    return {"value": value, "low": low, "high": high, "p": float(p_value(value, null))}
