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

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from analysis.bootstrap import finite_mean, interval
from analysis.null import FactorPairs, p_value

BATCH = 256
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


def samples(
    rows: NDArray, pairs: FactorPairs, chosen: list[NDArray], batch: NDArray
) -> Iterator[tuple[NDArray, NDArray]]:
    """Members of the pairs of each slot, averaged within each cluster of `batch`: X, Y (n, C)."""
    for slot in chosen:
        inside = slot[np.isin(pairs.cluster[slot], batch)]
        _, starts, counts = np.unique(pairs.cluster[inside], return_index=True, return_counts=True)
        yield tuple(
            np.add.reduceat(rows[member[inside]].astype(np.float64), starts) / counts[:, None]
            for member in (pairs.a, pairs.b)
        )


def likeness(x: NDArray) -> NDArray:
    """Linear kernel of samples (n, C) about their mean, without its diagonal: HSIC takes no notice of the
    mean, float64 does."""
    x = x - x.mean(0)
    k = x @ x.T
    np.fill_diagonal(k, 0)
    return k


def hsic(k: NDArray, l: NDArray, weights: NDArray) -> NDArray:  # noqa: E741
    """Unbiased HSIC of two kernels without diagonal (n, n), of samples weighted by each row of `weights`:
    (R,).

    NaN where fewer than four samples have a weight.
    """
    enough = (weights > 0).sum(1) >= LEAST_CLUSTERS
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(enough, tuple_sum(k, l, weights) / tuple_weight(weights), np.nan)


def tuple_weight(w: NDArray) -> NDArray:
    """Sum over tuples of different c, d, e, g of w_c w_d w_e w_g, (R,), from power sums (Newton)."""
    p1, p2, p3, p4 = ((w**k).sum(1) for k in range(1, 5))
    return p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4


def tuple_sum(k: NDArray, l: NDArray, w: NDArray) -> NDArray:  # noqa: E741
    """Sum over tuples of different c, d, e, g of w_c w_d w_e w_g (K_cd L_cd + K_cd L_eg - 2 K_cd L_ce), (R,).

    Sums over all tuples, less those in which two are the same (inclusion and exclusion).
    """
    both, w2, w3 = k * l, w**2, w**3
    wk, w2k, wb = w @ k, w2 @ k, w @ both
    wl, w2l = (wk, w2k) if l is k else (w @ l, w2 @ l)
    first, second = w.sum(1), w2.sum(1)
    b22, b31 = (w2 * (w2 @ both)).sum(1), (w3 * wb).sum(1)  # sums of w_c^p w_d^q K_cd L_cd
    b11, b21 = (w * wb).sum(1), (w2 * wb).sum(1)
    two = (first**2 - second) * b11 - 4 * first * b21 + 4 * b31 + 2 * b22
    own = (w2 * wk * wl).sum(1)
    three = first * ((w * wk * wl).sum(1) - b21)
    three -= own - b22 + (w * w2k * wl).sum(1) + (w * wk * w2l).sum(1) - 2 * b31
    four = (w * wk).sum(1) * (w * wl).sum(1) - 4 * own + 2 * b22
    return two + four - 2 * three


def shuffled_hsic(k: NDArray, l: NDArray, orders: NDArray) -> NDArray:  # noqa: E741
    """HSIC of K and of L with its samples in each of `orders` (P, n): (P,)."""
    n = len(k)
    row_k, row_l, total = k.sum(0), l.sum(0), k.sum() * l.sum()
    two = np.array([np.vdot(k, l[np.ix_(order, order)]) for order in orders])
    rows = np.array([row_k @ row_l[order] for order in orders])
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
        orders = np.stack([draw.permutation(len(batch)) for _ in range(n_permutations)] or [np.arange(0)])
        for slot, (x, y) in enumerate(samples(rows, pairs, chosen, batch)):
            k, l = likeness(x), likeness(y)  # noqa: E741
            sums[slot] += np.nan_to_num([hsic(p, q, weights[:, batch]) for p, q in ((k, l), (k, k), (l, l))])
            if n_permutations:
                null[slot] += shuffled_hsic(k, l, orders)
    # where a member does not vary between videos, or less than chance has it, there is no CKA
    positive = (sums[:, 1] > 0) & (sums[:, 2] > 0)
    scale = np.sqrt(np.where(positive, sums[:, 1] * sums[:, 2], np.nan))
    value, *drawn = finite_mean(sums[:, 0] / scale)
    null = finite_mean(null / scale[:, :1])
    low, high = interval(value, np.array(drawn), len(clusters), level)
    return {"value": value, "low": low, "high": high, "p": float(p_value(value, null))}
