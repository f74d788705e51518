"""Identified parts of a unit's variance: content, motion, appearance and residual.

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
# Rounding gives a unit that only varies with style a small variance. A variance v below this fraction of the
# unit's mean square counts as 0.
CANCELLATION = 1e-12


class Products(NamedTuple):
    """Means over pairs of views of the products of z, and the variance of z, of each unit."""

    d: NDArray  # pairs of views of one clip in the same order and another style
    t: NDArray  # pairs in the same style and another order
    b: NDArray  # pairs in another style and another order
    v: NDArray  # variance; 0 if z is zero up to rounding

    def parts(self) -> NDArray:
        """Return content, motion, appearance, residual of each unit; NaN if dead. Shape: (..., 4, C)."""
        d, t, b = (divide(product, self.v) for product in (self.d, self.t, self.b))
        content, motion, appearance = b, d - b, t - b
        return np.stack([content, motion, appearance, 1 - content - motion - appearance], axis=-2)

    def bits(self) -> NDArray:
        """Return the bits of content, motion and appearance of each unit; NaN if dead. Shape: (..., 3, C)."""
        d, t, b = (gaussian_bits(divide(product, self.v)) for product in (self.d, self.t, self.b))
        return np.stack([b, excess(d, b), excess(t, b)], axis=-2)


def divide(numerator: NDArray, denominator: NDArray) -> NDArray:
    """Return the quotient; NaN where the denominator is not positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def excess(bits: NDArray, content: NDArray) -> NDArray:
    """Subtract the bits of content; return 0 where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(bits) & np.isinf(content), 0.0, bits - content)


@dataclass(frozen=True)
class OrderSums:
    """Sums over clips from which `Products` are computed; leading axes are free (none, or videos)."""

    pairs: NDArray  # number of clips that keep both styles, (..., S, S)
    linear: NDArray  # (..., S, 2, S or 1, C) sums of y[s, o] over the clips that also keep the other style
    product: NDArray  # (..., 4, C) sums of products of y for d, t, b, v; each pair of views counts twice

    @classmethod
    def per_video(cls, y: NDArray, table: OrderTable) -> Self:
        """Compute the sums of each video from y (K, S, 2, C)."""
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
        """Add up the sums of all videos."""
        return type(self)(self.pairs.sum(0), self.linear.sum(0), self.product.sum(0))

    def leave_one_out(self) -> Self:
        """Return, for each video, the sums over all other videos. Shapes: those of `self`."""
        whole = self.whole()
        return type(self)(whole.pairs - self.pairs, whole.linear - self.linear, whole.product - self.product)

    def products(self) -> Products:
        """Subtract the mean of each style and order, and return the means of products."""
        styles = self.pairs.shape[-1]
        own = np.arange(styles)
        clips = self.pairs[..., own, own]  # number of clips that keep the style, (..., S)
        total = self.linear[..., own, :, own if self.linear.shape[-2] > 1 else 0, :]  # (S, ..., 2, C)
        total = np.moveaxis(total, 0, -3)  # (..., S, 2, C)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / clips[..., None, None]
        mean = np.where(clips[..., None, None] > 0, mean, 0.0)
        turned = mean[..., ::-1, :]
        # A product of two z is the product of both y, minus each y times the other mean, plus both means.
        all_styles = np.stack([self._means(mean, mean), self._means(mean, turned)], axis=-2)  # (..., 2, C)
        one_style = np.stack([(mean * total).sum((-3, -2)), (turned * total).sum((-3, -2))], axis=-2)
        one_style = -one_style  # with the total t = n m, the change -2 m t + n m m is -m t
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
        """Return the change of the sums of products over all pairs of styles when means are subtracted.

        `first` (..., S, 2, C) are the means of the first members, `second` those of the second members.
        """
        linear = self.linear
        if linear.shape[-2] == 1:  # every clip keeps every style
            crossed = (linear[..., 0, :].sum(-3) * second.sum(-3)).sum(-2)
            squared = self.pairs[..., 0, 0, None] * (first.sum(-3) * second.sum(-3)).sum(-2)
        else:
            crossed = np.einsum("...sotc,...toc->...c", linear, second)
            squared = np.einsum("...st,...soc,...toc->...c", self.pairs, first, second, optimize=True)
        return squared - 2 * crossed


@dataclass(frozen=True)
class Decomposition:
    """Parts of the units and of the layer for one altered order, with jackknife deviations per video.

    Units whose variance is zero, or becomes zero without one video, have NaN parts and do not count in the
    layer.
    """

    units: NDArray  # (4, C) estimates of the parts
    errors: NDArray  # (4, C) standard errors
    layer: Jackknife  # (4,) parts of the layer, with deviations (G, 4)
    bits: Jackknife  # (3,) bits of the layer, with deviations (G, 3)
    variance: NDArray  # (C,) variance of z; 0 if the unit is dead
    p_layer: float  # p-values of the test of motion (`motion_test.py`)
    p_units: NDArray  # (C,) p-value of each unit
    p_family: NDArray  # (C,) family-wise p-value of each unit
    error: NDArray  # (3, 3) covariance of the errors of content, motion and appearance, mean over units
    noise: NDArray  # (R, 3, C) errors of content, motion and appearance, drawn at random
    videos: int

    @property
    def effective_units(self) -> float:
        """Effective number of units over which the variance of the stage is spread."""
        return float(effective_number(self.variance))

    @property
    def kinds(self) -> NDArray:
        """Kind of each unit, as indices into `KINDS`."""
        return np.where(self.variance > 0, kind_of(self.units), KINDS.index("dead"))

    def layer_difference(self, first: str, second: str) -> Jackknife:
        """Return the paired difference of two parts of the layer, the first minus the second."""
        j, k = PARTS.index(first), PARTS.index(second)
        estimate, deviation = self.layer.estimate, self.layer.deviation
        return Jackknife(estimate[j] - estimate[k], deviation[:, j] - deviation[:, k])

    def kind_bounds(self, level: float) -> tuple[NDArray, NDArray]:
        """Return lower and upper bounds of the numbers of units of each kind. Shapes: (5,)."""
        return count_bounds(self.units[:3], self.error, self.noise, self.videos, level)

    def unit_bounds(self, level: float) -> tuple[NDArray, NDArray]:
        """Return lower and upper bounds of the units' parts. Shapes: (4, C)."""
        half = student_quantile(level, max(1, self.videos - 1)) * self.errors
        half = np.where(self.videos > 1, half, np.nan)
        return self.units - half, self.units + half

    def bounds(self, found: Jackknife, level: float) -> tuple[NDArray, NDArray]:
        """Return lower and upper bounds of the layer's parts or bits; NaN with one video."""
        half = student_quantile(level, max(1, self.videos - 1)) * found.error
        half = np.where(self.videos > 1, half, np.nan)
        return found.estimate - half, found.estimate + half


def decompose(activations: NDArray, table: OrderTable, multipliers: NDArray, signs: NDArray) -> Decomposition:
    """Decompose the variance of each unit of `activations` (views, C) into the four parts, and test motion.

    `signs` are those of `draw_pair_signs`. `multipliers` (R, G) are independent standard normal numbers:
    the sum over videos of deviations times multipliers is a random draw of a unit's errors.
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
    return Decomposition(
        parts, errors, layer, bits, variance, *test.p_values(), error / max(1, live), noise, table.videos
    )


class LayerTotals(NamedTuple):
    """Sums of parts and bits over units that vary: for all videos, and with each video left out in turn."""

    parts: NDArray  # (4,)
    parts_left_out: NDArray  # (G, 4)
    bits: NDArray  # (3,)
    bits_left_out: NDArray  # (G, 3)

    def add(self, whole: Products, left_out: Products, live: NDArray) -> None:
        """Add to the totals those units of a block for which the mask `live` (C,) is true."""
        self.parts[:] += whole.parts()[:, live].sum(-1)
        self.parts_left_out[:] += left_out.parts()[..., live].sum(-1)
        with np.errstate(invalid="ignore"):  # infinite bits of opposite signs add up to NaN
            self.bits[:] += whole.bits()[:, live].sum(-1)
            self.bits_left_out[:] += left_out.bits()[..., live].sum(-1)

    def means(self, live: int) -> tuple[Jackknife, Jackknife]:
        """Return the jackknife of the mean over `live` units, of the parts and of the bits."""
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = jackknife(self.parts / live, self.parts_left_out / live)
            bits = jackknife(self.bits / live, self.bits_left_out / live)
            endless = ~np.isfinite(self.bits) | ~np.isfinite(self.bits_left_out).all(0)
        return parts, Jackknife(
            np.where(endless, np.inf, bits.estimate), np.where(endless, np.nan, bits.deviation)
        )
