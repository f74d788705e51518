"""Estimate the unbiased linear CKA between a stage's activations for the first and second pair members.

The samples are videos. The Gram matrices K = X X^T and L = Y Y^T hold the inner products between videos, X of
the first members and Y of the second. CKA is HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) (Kornblith et al. 2019,
"Similarity of neural network representations revisited"). It is 1 if both geometries are equal up to rotation
and scale, so units may be mixed by any rotation, and 0 if both are unrelated. The plain estimate of HSIC goes
to 1 with more units than videos. This file uses the unbiased estimate (Song et al. 2012, "Feature selection
via dependence maximization", eq. 5), a mean over tuples of distinct videos

    sum_(c,d) K_cd L_cd / n_2  +  sum_(c,d,e,g) K_cd L_eg / n_4  -  2 sum_(c,d,e) K_cd L_ce / n_3

averaged over batches of videos, so that memory does not grow with the number of videos (Nguyen et al. 2021,
"Do wide and deep networks learn the same things?"). It can fall below 0 by chance.

Pairs of one slot (position within a clip: its first dynamic pair, its second ...) are compared with each
other, so that styles do not mix if every clip has the same pairs. CKA is averaged over slots. Samples have to
be independent: the clips of a cluster are averaged to one sample. Clips that lack a pair are left out.

A bootstrap replicate weighs every tuple of four clusters by the product of the numbers of times that it
contains the clusters. It uses tuples of distinct clusters only: a video drawn twice is not compared with
itself.
"""

import numpy as np
from numpy.typing import NDArray

from static_dynamic.analysis.estimate.intervals import finite_mean, interval
from static_dynamic.analysis.estimate.pairs import FactorPairs
from static_dynamic.analysis.estimate.sign_flips import p_value

# Clusters per batch.
BATCH = 256
# To limit memory, 512 bootstrap replicates or 16 permutations are computed at a time.
REPLICATES_AT_A_TIME, ORDERS_AT_A_TIME = 512, 16
# The unbiased HSIC averages over tuples of four clusters, so at least four clusters are needed.
LEAST_CLUSTERS = 4


def batches(clusters: int, seed: int) -> list[NDArray]:
    """Divide the clusters (videos) at random into batches of nearly equal size."""
    order = np.random.default_rng(seed).permutation(clusters)
    return [np.sort(part) for part in np.array_split(order, max(1, -(-clusters // BATCH)))]


def gram_matrices(
    rows: NDArray, pairs: FactorPairs, slots: list[NDArray], batch: NDArray
) -> tuple[dict[bytes, NDArray], list[tuple[bytes, bytes]]]:
    """Return a dict of Gram matrices for a batch of clusters, and the pairs of dict keys to be compared.

    A sample is a cluster's mean. The list has one item per slot (pair position in a clip).
    """
    matrices: dict[bytes, NDArray] = {}
    compared = []
    for slot in slots:
        inside = slot[np.isin(pairs.cluster[slot], batch)]
        _, starts, counts = np.unique(pairs.cluster[inside], return_index=True, return_counts=True)
        members = pairs.a[inside], pairs.b[inside]
        for member in members:
            if member.tobytes() not in matrices:
                x = np.add.reduceat(rows[member].astype(np.float64), starts) / counts[:, None]
                matrices[member.tobytes()] = gram_matrix(x)
        compared.append((members[0].tobytes(), members[1].tobytes()))
    return matrices, compared


def gram_matrix(x: NDArray) -> NDArray:
    """Return the Gram matrix of centred samples, with a zero diagonal. Shape: (samples, samples)."""
    # subtracting the first sample makes constant units exactly zero
    x = x - x[0]
    # centring lessens rounding error, and does not change HSIC
    x = x - x.mean(0)
    k = x @ x.T
    np.fill_diagonal(k, 0)
    return k


def row_products(a: NDArray, b: NDArray) -> NDArray:
    """Return the dot product of each row of `a` with the row of `b` at the same index."""
    return np.einsum("rc,rc->r", a, b)


class ReplicateWeights:
    """Bootstrap weights w, and the powers and sums of w that HSIC needs. Shape of w: (replicates, samples).

    ``w2`` and ``w3`` are powers of w, ``sums`` the sums over samples of w and w^2, each (R,). ``tuples`` (R,)
    is the sum of w_c w_d w_e w_g over distinct c, d, e, g by Newton's identities; NaN below 4 samples.
    """

    def __init__(self, w: NDArray):
        self.w, self.w2, self.w3 = w, w**2, w**3
        p1, p2, p3, p4 = w.sum(1), self.w2.sum(1), self.w3.sum(1), row_products(self.w2, self.w2)
        enough = (w > 0).sum(1) >= LEAST_CLUSTERS
        self.sums = p1, p2
        self.tuples = np.where(enough, p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4, np.nan)


class WeightedGram:
    """A Gram matrix with zero diagonal, and its weighted row sums for each bootstrap replicate."""

    def __init__(self, k: NDArray, weights: ReplicateWeights):
        self.k = k
        self.wk = weights.w @ k  # (R, n): sum_d w_d K_cd
        self.w_wk = weights.w * self.wk  # w_c sum_d w_d K_cd
        self.w2_wk = weights.w * self.w_wk  # w_c^2 sum_d w_d K_cd
        self.w_w2k = weights.w * (weights.w2 @ k)  # w_c sum_d w_d^2 K_cd
        self.total = self.w_wk.sum(1)  # sum_cd w_c w_d K_cd


def hsic(k: WeightedGram, l: WeightedGram, weights: ReplicateWeights) -> NDArray:  # noqa: E741
    """Return the unbiased HSIC of two Gram matrices for each bootstrap replicate.

    The sum over tuples of distinct c, d, e, g of w_c w_d w_e w_g (K_cd L_cd + K_cd L_eg - 2 K_cd L_ce) is
    computed as the sum over all tuples minus those with equal indices (inclusion and exclusion). NaN for
    replicates of fewer than four distinct samples.
    """
    first, second = weights.sums
    both = k.k * l.k
    wb = weights.w @ both
    # The variable b<pq> is the sum over samples c and d of w_c^p w_d^q K_cd L_cd.
    b11, b21, b31 = (row_products(w, wb) for w in (weights.w, weights.w2, weights.w3))
    b22 = row_products(weights.w2, weights.w2 @ both)
    own = row_products(k.w2_wk, l.wk)
    two = (first**2 - second) * b11 - 4 * first * b21 + 4 * b31 + 2 * b22
    three = first * (row_products(k.w_wk, l.wk) - b21)
    three -= own - b22 + row_products(k.w_w2k, l.wk) + row_products(k.wk, l.w_w2k) - 2 * b31
    four = k.total * l.total - 4 * own + 2 * b22
    return (two + four - 2 * three) / weights.tuples


def permuted_hsic(compared: list[tuple[NDArray, NDArray]], orders: NDArray) -> NDArray:
    """Return the HSIC of Gram matrices K and L, for each permutation (row of `orders`) of the samples of L.

    Shapes: `compared` S times K, L (n, n), orders (P, n) -> (S, P).
    """
    n = orders.shape[1]
    c, d = np.triu_indices(n, 1)
    upper, permuted = c * n + d, orders[:, c] * n + orders[:, d]  # flat indices in K, L
    n2, found = n * (n - 1), []
    for k, l in compared:  # noqa: E741
        row_k, row_l, total = k.sum(0), l.sum(0), k.sum() * l.sum()
        two = 2 * (np.take(l, permuted) @ np.take(k, upper))
        rows = row_l[orders] @ row_k
        three, four = rows - two, total - 4 * rows + 2 * two
        found.append(two / n2 + four / (n2 * (n - 2) * (n - 3)) - 2 * three / (n2 * (n - 2)))
    return np.array(found)


def stage_cka(
    rows: NDArray, pairs: FactorPairs, weights: NDArray, n_permutations: int, seed: int, level: float
) -> dict:
    """Return the CKA between the first and the second members of `pairs`, with interval bounds and p-value.

    Activations `rows` (views, C) are read batch by batch. Weights (R, K) are of the clusters of `pairs`.
    """
    slots = pairs.slots()
    clusters = np.unique(pairs.cluster[np.concatenate(slots)])
    if len(clusters) < LEAST_CLUSTERS:
        return dict.fromkeys(("value", "low", "high", "p"), np.nan)
    rng = np.random.default_rng([seed, 1])
    weights = np.vstack([np.ones(weights.shape[1]), weights])  # row 0 is the sample
    sums = np.zeros((len(slots), 3, len(weights)))
    null = np.zeros((len(slots), n_permutations))
    for batch in (clusters[part] for part in batches(len(clusters), seed)):
        orders = [rng.permutation(len(batch)) for _ in range(n_permutations)]
        matrices, compared = gram_matrices(rows, pairs, slots, batch)
        for start in range(0, len(weights), REPLICATES_AT_A_TIME):
            block = slice(start, start + REPLICATES_AT_A_TIME)
            block_weights = ReplicateWeights(weights[block, batch])
            grams = {key: WeightedGram(k, block_weights) for key, k in matrices.items()}
            own = {key: np.nan_to_num(hsic(k, k, block_weights)) for key, k in grams.items()}
            for slot, (k, l) in enumerate(compared):  # noqa: E741
                both = np.nan_to_num(hsic(grams[k], grams[l], block_weights))
                sums[slot, :, block] += [both, own[k], own[l]]
        for start in range(0, n_permutations, ORDERS_AT_A_TIME):
            block = slice(start, start + ORDERS_AT_A_TIME)
            two_each = [(matrices[k], matrices[l]) for k, l in compared]  # noqa: E741
            null[:, block] += permuted_hsic(two_each, np.stack(orders[block]))
    # CKA is NaN if HSIC(K, K) or HSIC(L, L) is not positive, as then activations vary no more than by chance.
    positive = (sums[:, 1] > 0) & (sums[:, 2] > 0)
    scale = np.sqrt(np.where(positive, sums[:, 1] * sums[:, 2], np.nan))
    value, *replicates = finite_mean(sums[:, 0] / scale)
    null = finite_mean(null / scale[:, :1])
    low, high = interval(value, np.array(replicates), len(clusters), level)
    return {"value": value, "low": low, "high": high, "p": float(p_value(value, null))}
