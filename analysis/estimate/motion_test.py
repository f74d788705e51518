"""Sign-flip test of motion: does the frame order change a unit's activation in the same way in every style?

Let D[k, s] = z[k, s, forward] - z[k, s, altered] for clip k and style s (`decomposition.py`). Motion is the
mean of D[k, s] D[k, t] / (2 v) over all pairs of styles. Without motion, the sign of D is arbitrary for each
video and style. Random signs, the same for all clips of a video, give the null distribution of

    unit     sum_g q_g / sqrt(sum_g q_g^2), where q_g is the sum of D[k, s] D[k, t] over the clips k of
             video g and over the pairs of styles s < t
    layer    sum_g of the mean over live units of q_g / v
    family   the largest unit statistic of the stage (Westfall & Young 1993)

and p = (1 + number of flips with a statistic at least as large) / (1 + number of flips). The test is exact if
D is symmetric about its mean over clips.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from .order_table import OrderTable
from .sign_flips import p_value

# Mean squared differences between frame orders below this fraction of a unit's variance count as 0.
NEGLIGIBLE = 1e-8
# Differences between frame orders below this fraction of a unit's largest activation count as rounding.
ROUNDING = 8 * float(np.finfo(np.float32).eps)


def draw_pair_signs(table: OrderTable, n: int, seed: Sequence[int]) -> NDArray:
    """Draw the signs of each flip, for the sign-flip test. Shape: (videos, flips, pairs of styles).

    The sign of a pair is the product of the random signs of its two styles. One video alone has no flips.
    """
    styles, n = table.kept.shape[1], n if table.videos > 1 else 0
    rng = np.random.default_rng(list(seed))
    signs = rng.integers(0, 2, (table.videos, n, styles), dtype=np.int8) * np.int8(2) - np.int8(1)
    s, t = style_pairs(styles)
    return signs[..., s] * signs[..., t]


def style_pairs(styles: int) -> NDArray:
    """Return the indices of the first and the second style of all pairs of styles. Shape: (2, pairs)."""
    return np.array(list(combinations(range(styles), 2))).T


def order_differences(y: NDArray, table: OrderTable, largest: NDArray) -> NDArray:
    """Return activations in forward order minus those in altered order, centred over clips. Shape: (K, S, C).

    Units that do not depend on the frame order are 0. `y` (K, S, 2, C) are activations, `largest` (C,) is
    the largest absolute activation of each unit.
    """
    kept = table.kept[..., None]  # (K, S, 1)
    difference = y[:, :, 0] - y[:, :, 1]
    blind = np.abs(difference).max((0, 1)) <= ROUNDING * largest
    difference = difference - np.where(kept, difference, 0).sum(0) / np.maximum(1, kept.sum(0))
    return np.where(kept & ~blind, difference, 0)


class MotionTest:
    """Sign-flip test of motion in one stage: add units block by block, and then compute p-values.

    `signs` are those of `draw_pair_signs`.
    """

    def __init__(self, table: OrderTable, signs: NDArray, units: int):
        self.table, self.signs = table, signs
        self.statistic, self.p_units = np.full((2, units), np.nan)
        flips = signs.shape[1]
        # largest unit statistic of each sign flip
        self.largest = np.full(flips, -np.inf)
        # Sum over units of (product of order differences / variance), per video and pair of styles.
        self.layer = np.zeros((table.videos, signs.shape[2]))

    def add(self, block: slice, y: NDArray, variance: NDArray, largest: NDArray) -> None:
        """Add the units of `block` to the test.

        `y` (K, S, 2, C) are activations, `variance` (C,) are variances, `largest` (C,) the largest absolute
        activations. Dead units (variance 0) have p = 1.
        """
        live = variance > 0
        difference = order_differences(y, self.table, largest)
        squared = self.table.per_video((difference**2).sum(1)).sum(0) / (2 * self.table.kept.sum())
        difference[..., squared <= NEGLIGIBLE * variance] = 0
        s, t = style_pairs(self.table.kept.shape[1])
        q = self.table.per_video(difference[:, s] * difference[:, t])  # (G, pairs, C)
        with np.errstate(invalid="ignore", divide="ignore"):
            q = np.where(live, q / variance, 0)
        self.layer += q.sum(-1)
        of_video = q.sum(1)  # (G, C)
        seen = studentised(of_video.sum(0), (of_video**2).sum(0))
        flipped = flipped_statistics(q, self.signs)
        self.statistic[block], self.p_units[block] = seen, p_value(seen, flipped)
        self.largest = np.maximum(self.largest, flipped.max(1))

    def p_values(self) -> tuple[float, NDArray, NDArray]:
        """Return the layer's p-value, the units' p-values and family-wise p-values; NaN without flips."""
        scale = np.abs(self.layer).sum() or 1.0
        layer = self.layer / scale
        flipped = np.einsum("gnp,gp->n", self.signs, layer, dtype=np.float64)
        p_layer = float(p_value(layer.sum(), flipped))
        return p_layer, self.p_units, p_value(self.statistic, self.largest[:, None])


def flipped_statistics(q: NDArray, signs: NDArray) -> NDArray:
    """Return each unit's test statistic in each sign flip. Shape: (flips, units).

    `q` (G, pairs, C) are products of order differences, `signs` (G, n, pairs) the signs of the flips.
    """
    total, square = np.zeros((2, signs.shape[1], q.shape[-1]), np.float32)
    for signs_of_video, q_of_video in zip(signs, q.astype(np.float32), strict=True):
        flipped = signs_of_video.astype(np.float32) @ q_of_video  # (n, C)
        total += flipped
        square += flipped**2
    return studentised(total, square)


def studentised(total: NDArray, square: NDArray) -> NDArray:
    """Return total / sqrt(square); 0 where `square` is 0."""
    return np.divide(total, np.sqrt(square), out=np.zeros_like(total), where=square > 0)
