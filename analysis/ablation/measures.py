"""Measure the predictions of a clip's views, without and with an ablation.

Networks with class scores:

    divergence   Kullback-Leibler divergence in bits from the whole network's class probabilities
    top1_kept    share of views whose class with the largest score stays the same
    accuracy     share of forward views whose class with the largest score is the label
    order_bits   Jensen-Shannon divergence of forward and altered order, as in ``behaviour.csv``
    style_bits   Jensen-Shannon divergence of two styles, as in ``behaviour.csv``

Networks that segment an object:

    divergence   Kullback-Leibler divergence in bits per pixel of the object's probability
    kept         intersection over union with the mask that the whole network predicts
    J, F         region similarity and boundary measure of forward views
    mIoU         mean of the intersections over union of the object and of the background, forward views
    order_change 1 - J of the masks with recorded and with altered flow
    style_change 1 - J of the masks in two styles

Each measure is averaged over the views, or pairs of views, of a clip. It is NaN if the clip has none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_softmax, rel_entr
from torch import Tensor

from static_dynamic.analysis.estimate.behaviour import divergences
from static_dynamic.analysis.vos.segmentation import boundary_measure, object_mask, region_similarity
from static_dynamic.models import VideoNetwork

BITS = 1 / np.log(2)
# Object probabilities are clipped to the range from LEAST_PROBABILITY to 1 - LEAST_PROBABILITY.
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class ClipViews:
    """The views of one clip (indices into arrays of predictions), with the clip's class and true masks."""

    # Indices of the views in forward order.
    forward: NDArray[np.int64]
    # Pairs of indices: a view in forward order, and a view of the same style in the altered order.
    orders: list[tuple[int, int]]
    # Pairs of indices: two views in forward order, in different styles.
    styles: list[tuple[int, int]]
    # Number of the clip's class; -1 if the class is not known.
    label: int = -1
    # True masks (H, W) of the views in forward order; empty if the true masks are not known.
    masks: list[NDArray[np.bool_]] = field(default_factory=list)

    @classmethod
    def of(cls, views: pd.DataFrame, label: int = -1) -> "ClipViews":
        """Find the pairs of views. `views` has the columns style, altered (0 or 1) and position."""
        rows = views.reset_index(drop=True)
        forward = rows.index[rows["altered"] == 0]
        place = {(v.style, v.position, v.altered): k for k, v in enumerate(rows.itertuples())}
        orders = [
            (k, place[style, position, 1])
            for (style, position, altered), k in place.items()
            if altered == 0 and (style, position, 1) in place
        ]
        styles = [
            (a, b)
            for a, b in combinations(forward, 2)
            if rows["position"][a] == rows["position"][b] and rows["style"][a] != rows["style"][b]
        ]
        return cls(forward.to_numpy(), orders, styles, label)


class Measures(Protocol):
    """Interface of the classes that measure how predictions change."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the measures."""

    def predict(self, inputs) -> Tensor:
        """Return the network's prediction for a batch of views, one row per view."""

    def measure(self, whole: NDArray, found: NDArray, views: ClipViews) -> list[float]:
        """Return the value of each measure for one clip, from the predictions of its views (views, ...).

        `whole` are the predictions of the whole network, `found` those with an ablation.
        """


@dataclass(frozen=True)
class ClassMeasures:
    """Measures of class scores (views, classes)."""

    net: VideoNetwork
    labelled: bool
    names = ("divergence", "top1_kept", "accuracy", "order_bits", "style_bits")

    def predict(self, inputs) -> Tensor:
        """Return class scores (views, classes)."""
        scores = self.net(inputs)
        return scores.float().reshape(scores.shape[0], -1)

    def measure(self, whole: NDArray, found: NDArray, views: ClipViews) -> list[float]:
        """Return the measures of one clip."""
        p, q = (log_softmax(scores.astype(np.float64), axis=1) for scores in (whole, found))
        divergence = np.where(np.isfinite(p), np.exp(p) * (p - q), 0).sum(1) * BITS
        top = found.argmax(1)
        known = self.labelled and views.label >= 0
        return [
            float(divergence.mean()),
            float((top == whole.argmax(1)).mean()),
            mean_of(top[views.forward] == views.label) if known else np.nan,
            mean_of(divergences(found, *columns(views.orders))),
            mean_of(divergences(found, *columns(views.styles))),
        ]


@dataclass(frozen=True)
class MaskMeasures:
    """Measures of object probabilities (views, H, W)."""

    net: VideoNetwork
    names = ("divergence", "kept", "J", "F", "mIoU", "order_change", "style_change")

    def predict(self, inputs) -> Tensor:
        """Return object probabilities (views, H, W)."""
        return self.net.foreground(inputs).float()

    def measure(self, whole: NDArray, found: NDArray, views: ClipViews) -> list[float]:
        """Return the measures of one clip."""
        low, high = LEAST_PROBABILITY, 1 - LEAST_PROBABILITY
        p, q = (np.clip(x.astype(np.float64), low, high) for x in (whole, found))
        bits = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean() * BITS
        before, after = whole > 0.5, found > 0.5
        own = [
            object_mask(found[k], truth.shape) for k, truth in zip(views.forward, views.masks, strict=False)
        ]

        def against_truth(measure: Callable[[NDArray, NDArray], float]) -> float:
            return mean_of([measure(mask, truth) for mask, truth in zip(own, views.masks, strict=True)])

        def changed(pairs: list[tuple[int, int]]) -> float:
            return mean_of([1 - region_similarity(after[a], after[b]) for a, b in pairs])

        return [
            float(bits),
            mean_of([region_similarity(a, b) for a, b in zip(after, before, strict=True)]),
            against_truth(region_similarity),
            against_truth(boundary_measure),
            against_truth(mean_iou),
            changed(views.orders),
            changed(views.styles),
        ]


def mean_iou(mask: NDArray, truth: NDArray) -> float:
    """Return the mean of the intersections over union of the object and of the background."""
    return (region_similarity(mask, truth) + region_similarity(~mask, ~truth)) / 2


def columns(pairs: list[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the second members of pairs as two arrays."""
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return first, second


def mean_of(values) -> float:
    """Return the mean of a sequence of numbers; NaN if it is empty."""
    values = np.asarray(values, float)
    return float(values.mean()) if len(values) else np.nan
