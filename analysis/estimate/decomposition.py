"""Decompose each unit's variance into four parts: content, motion, appearance and residual.

The paper's two scores overlap: what survives both a new style and an altered frame order counts as dynamic
and as static. The decomposition separates this part (content) from what needs the frame order (motion) and
from what needs the style (appearance). For one unit, y[k, s, o] is the activation for clip k, style s and
order o (forward, or one altered order such as shuffled frames):

    1. Keep (k, s) if both orders were computed, and clips that keep at least two styles.
    2. z = y - mean of y over the kept clips of the same style and order
    3. Means of products over all kept pairs of views of one clip, where every pair has the same weight:
       d (same order, other style), t (same style, other order), b (other style, other order);
       v is the mean of z^2 over all kept views.
    4. content = b / v     motion = (d - b) / v     appearance = (t - b) / v     residual = the rest of 1

The estimate is the mean of the jackknife's pseudo-values over videos (`jackknife.py`), and its interval is
estimate -+ t(videos - 1) * standard error. A layer's part is the mean of the parts of its live units. Bits
are H(b/v) for content, H(d/v) - H(b/v) for motion and H(t/v) - H(b/v) for appearance, with
H(r) = -1/2 log2(1 - r^2), averaged over live units.

All means of products are functions of sums over videos. Letters in shapes: K clips, S styles, G videos
(clusters), C units; the axis of length 2 is the order (0 forward, 1 altered).
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .bits import gaussian_bits
from .jackknife import Jackknife, effective_number, jackknife, student_quantile
from .kinds import KINDS, count_bounds, kind_of
from .motion_test import MotionTest
from .order_table import OrderTable

PARTS = ("content", "motion", "appearance", "residual")
BITS = PARTS[:3]
# A variance below this fraction of the unit's mean square is rounding error and counts as 0.
CANCELLATION = 1e-12


class Products(NamedTuple):
    """Per unit: mean products of centred activations for two views of a clip, and variance of activations."""

    # mean product of activations for two views of a clip: same order, different styles
    d: NDArray
    # mean product of activations for two views of a clip: same style, different orders
    t: NDArray
    # mean product of activations for two views of a clip: different styles and orders
    b: NDArray
    # variance of the centred activations; 0 if it is only rounding error
    v: NDArray

    def parts(self) -> NDArray:
        """Return each unit's content, motion, appearance, residual; NaN if it is dead. Shape: (..., 4, C)."""
        d, t, b = (divide(product, self.v) for product in (self.d, self.t, self.b))
        content, motion, appearance = b, d - b, t - b
        return np.stack([content, motion, appearance, 1 - content - motion - appearance], axis=-2)

    def bits(self) -> NDArray:
        """Return each unit's content, motion, appearance in bits; NaN if it is dead. Shape: (..., 3, C)."""
        d, t, b = (gaussian_bits(divide(product, self.v)) for product in (self.d, self.t, self.b))
        return np.stack([b, excess(d, b), excess(t, b)], axis=-2)


def divide(numerator: NDArray, denominator: NDArray) -> NDArray:
    """Divide two arrays; return NaN where the denominator is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def excess(bits: NDArray, content: NDArray) -> NDArray:
    """Return `bits` - `content`, both in bits; 0 where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(bits) & np.isinf(content), 0.0, bits - content)


@dataclass(frozen=True)
class OrderSums:
    """Sums over clips, from which `Products` are computed. Sums per video have a leading axis of videos."""

    # (..., S, S) number of clips that have both the style of axis -2 and that of axis -1
    pairs: NDArray
    # (..., S, 2, S or 1, C) sums of activations in the style of axis -4, over clips that have the style of
    # axis -2. The length of axis -2 is 1 if every clip has every style.
    linear: NDArray
    # (..., 4, C) sums of products of activations, one per field of `Products`: d, t, b, v
    product: NDArray

    @classmethod
    def per_video(cls, y: NDArray, table: OrderTable) -> Self:
        """Compute the sums of each video from activations. Shape of `y`: (clips, styles, 2 orders, units)."""
        kept = table.kept.astype(float)
        of_styles = y.sum(1)  # (K, 2, C)
        square, across = (y**2).sum(1), y.prod(2).sum(1)  # (K, 2, C), (K, C)
        product = np.stack(
            [
                (of_styles**2 - square).sum(1),
                2 * across,
                2 * (of_styles.prod(1) - across),
                square.sum(1),
            ],
            axis=1,
        )
        if table.complete:
            linear = table.per_video(y)[:, :, :, None]
        else:
            linear = np.stack(
                [table.per_video(y * kept[:, s, None, None, None]) for s in range(kept.shape[1])],
                axis=3,
            )
        pairs = table.per_video(kept[:, :, None] * kept[:, None])
        return cls(pairs, linear, table.per_video(product))

    def whole(self) -> Self:
        """Return the sums over the whole data set: add up the sums of all videos."""
        return type(self)(self.pairs.sum(0), self.linear.sum(0), self.product.sum(0))

    def leave_one_out(self) -> Self:
        """Return, for each video, the sums over all other videos, in arrays of the same shapes."""
        whole = self.whole()
        return type(self)(whole.pairs - self.pairs, whole.linear - self.linear, whole.product - self.product)

    def products(self) -> Products:
        """Return mean products of activations, each centred on the mean of its style and frame order."""
        styles = self.pairs.shape[-1]
        own = np.arange(styles)
        # (..., S) number of clips of each style
        clips = self.pairs[..., own, own]
        total = self.linear[..., own, :, own if self.linear.shape[-2] > 1 else 0, :]  # (S, ..., 2, C)
        total = np.moveaxis(total, 0, -3)  # (..., S, 2, C)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / clips[..., None, None]
        mean = np.where(clips[..., None, None] > 0, mean, 0.0)
        turned = mean[..., ::-1, :]
        # With z = y - mean, the product z1 z2 is y1 y2 - y1 mean2 - y2 mean1 + mean1 mean2.
        all_styles = np.stack([self._means(mean, mean), self._means(mean, turned)], axis=-2)  # (..., 2, C)
        one_style = np.stack([(mean * total).sum((-3, -2)), (turned * total).sum((-3, -2))], axis=-2)
        # Subtracting the mean m from n values with total t = n m changes their sum of squares by -m t.
        one_style = -one_style
        correction = np.stack(
            [
                all_styles[..., 0, :] - one_style[..., 0, :],
                one_style[..., 1, :],
                all_styles[..., 1, :] - one_style[..., 1, :],
                one_style[..., 0, :],
            ],
            axis=-2,
        )
        z = self.product + correction
        views = 2 * clips.sum(-1)[..., None]
        of_pairs = 2 * (self.pairs.sum((-2, -1)) - clips.sum(-1))[..., None]
        with np.errstate(invalid="ignore", divide="ignore"):
            d, t, b = z[..., 0, :] / of_pairs, z[..., 1, :] / views, z[..., 2, :] / of_pairs
            v = z[..., 3, :] / views
        v = np.where(z[..., 3, :] > CANCELLATION * self.product[..., 3, :], v, 0.0)
        return Products(d, t, b, v)

    def _means(self, first: NDArray, second: NDArray) -> NDArray:
        """Return how much the sums of products over all pairs of styles change when means are subtracted.

        `first` (..., S, 2, C) are the means of the first members, `second` those of the second members.
        """
        linear = self.linear
        # every clip has every style, so the sums factorise
        if linear.shape[-2] == 1:
            crossed = (linear[..., 0, :].sum(-3) * second.sum(-3)).sum(-2)
            squared = self.pairs[..., 0, 0, None] * (first.sum(-3) * second.sum(-3)).sum(-2)
        else:
            crossed = np.einsum("...sotc,...toc->...c", linear, second)
            squared = np.einsum("...st,...soc,...toc->...c", self.pairs, first, second, optimize=True)
        return squared - 2 * crossed


@dataclass(frozen=True)
class Decomposition:
    """Variance parts of each unit and of the layer, with standard errors from a jackknife over videos.

    Units whose variance is zero, or becomes zero without one video, have NaN parts and do not count in the
    layer.
    """

    # (4, units) estimated content, motion, appearance and residual of each unit
    units: NDArray
    # (4, units) standard errors of content, motion, appearance and residual
    errors: NDArray
    # (4,) content, motion, appearance and residual, averaged over units
    layer: Jackknife
    # (3,) bits of content, motion and appearance, averaged over units
    bits: Jackknife
    # (units,) variance of the centred activations; 0 for dead units
    variance: NDArray
    # p-value of the layer in the test of motion (`motion_test.py`)
    p_layer: float
    # (units,) p-value of each unit in the test of motion
    p_units: NDArray
    # (units,) family-wise p-value of each unit in the test of motion
    p_family: NDArray
    # (3, 3) covariance of the errors of content, motion, appearance; mean over units
    error: NDArray
    # (replicates, 3, units) random draws of the errors of content, motion, appearance
    noise: NDArray
    videos: int

    @property
    def effective_units(self) -> float:
        """Effective number of units over which the variance of the stage is spread."""
        return float(effective_number(self.variance))

    @property
    def kinds(self) -> NDArray:
        """Kind of each unit (content, motion, ...), as an index into `KINDS`."""
        return np.where(self.variance > 0, kind_of(self.units), KINDS.index("dead"))

    def layer_difference(self, first: str, second: str) -> Jackknife:
        """Return the layer's part `first` minus its part `second`; deviations are subtracted per video."""
        j, k = PARTS.index(first), PARTS.index(second)
        estimate, deviation = self.layer.estimate, self.layer.deviation
        return Jackknife(estimate[j] - estimate[k], deviation[:, j] - deviation[:, k])

    def kind_bounds(self, level: float) -> tuple[NDArray, NDArray]:
        """Return lower and upper confidence bounds of the number of units of each kind. Shapes: (5,)."""
        return count_bounds(self.units[:3], self.error, self.noise, self.videos, level)

    def unit_bounds(self, level: float) -> tuple[NDArray, NDArray]:
        """Return lower and upper confidence bounds of each unit's four variance parts. Shapes: (4, C)."""
        half = student_quantile(level, max(1, self.videos - 1)) * self.errors
        half = np.where(self.videos > 1, half, np.nan)
        return self.units - half, self.units + half

    def bounds(self, found: Jackknife, level: float) -> tuple[NDArray, NDArray]:
        """Return lower and upper confidence bounds of the layer's parts or bits; NaN for a single video."""
        half = student_quantile(level, max(1, self.videos - 1)) * found.error
        half = np.where(self.videos > 1, half, np.nan)
        return found.estimate - half, found.estimate + half


def decompose(
    activations: NDArray, table: OrderTable, multipliers: NDArray, signs: NDArray, *, tested: bool = True
) -> Decomposition:
    """Decompose each unit's variance into content, motion, appearance and residual, and test for motion.

    With ``tested=False`` the test of motion is left out, and its p-values are NaN.

    `activations` has the shape (views, C). `signs` are those of `draw_pair_signs`. `multipliers` (R, G) are
    independent standard normal numbers: the sum over videos of deviations times multipliers is a random draw
    of a unit's errors.
    """
    units = activations.shape[1]
    parts, errors = np.full((2, len(PARTS), units), np.nan)
    variance = np.zeros(units)
    error, noise = np.zeros((3, 3)), np.zeros((len(multipliers), 3, units), np.float32)
    totals = LayerTotals(np.zeros(4), np.zeros((table.videos, 4)), np.zeros(3), np.zeros((table.videos, 3)))
    test = MotionTest(table, signs, units)
    live = 0
    for block in table.unit_blocks(units):
        y, largest = table.read(activations, block)
        sums = OrderSums.per_video(y, table)
        whole, left_out = sums.whole().products(), sums.leave_one_out().products()
        variance[block] = whole.v
        if tested:
            test.add(block, y, whole.v, largest)
        known = (whole.v > 0) & (left_out.v > 0).all(0)
        live += known.sum()
        totals.add(whole, left_out, known)
        found = jackknife(whole.parts(), left_out.parts())
        parts[:, block] = np.where(known, found.estimate, np.nan)
        errors[:, block] = np.where(known, found.error, np.nan)
        deviation = found.deviation[:, :3, known]
        error += np.einsum("gic,gjc->ij", deviation, deviation)
        noise[..., np.arange(units)[block][known]] = np.tensordot(multipliers, deviation, 1)
    layer, bits = totals.means(live)
    unknown = np.full(units, np.nan)
    p_layer, p_units, p_family = test.p_values() if tested else (np.nan, unknown, unknown)
    return Decomposition(
        parts,
        errors,
        layer,
        bits,
        variance,
        p_layer,
        p_units,
        p_family,
        error / max(1, live),
        noise,
        table.videos,
    )


class LayerTotals(NamedTuple):
    """Sums of parts and bits over units that vary: for all videos, and with each video left out in turn."""

    parts: NDArray  # (4,)
    parts_left_out: NDArray  # (G, 4)
    bits: NDArray  # (3,)
    bits_left_out: NDArray  # (G, 3)

    def add(self, whole: Products, left_out: Products, live: NDArray) -> None:
        """Add a block of units to the totals; the mask `live` (C,) selects the units that count."""
        self.parts[:] += whole.parts()[:, live].sum(-1)
        self.parts_left_out[:] += left_out.parts()[..., live].sum(-1)
        # no warning if the bits of the units are inf and -inf, whose sum is NaN
        with np.errstate(invalid="ignore"):
            self.bits[:] += whole.bits()[:, live].sum(-1)
            self.bits_left_out[:] += left_out.bits()[..., live].sum(-1)

    def means(self, live: int) -> tuple[Jackknife, Jackknife]:
        """Return jackknife estimates of parts and bits, averaged over units; `live` counts the units."""
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = jackknife(self.parts / live, self.parts_left_out / live)
            bits = jackknife(self.bits / live, self.bits_left_out / live)
            endless = ~np.isfinite(self.bits) | ~np.isfinite(self.bits_left_out).all(0)
        return parts, Jackknife(
            np.where(endless, np.inf, bits.estimate), np.where(endless, np.nan, bits.deviation)
        )
