"""Class Feature Pyramids: the kernels of each layer that a class prediction for one clip depends on.

The method is by Stergiou et al. ("Class Feature Pyramids for Video Explanation", ICCVW 2019).

Class step: the classifier's weights are scaled to [0, 1] over all classes and features. The features whose
weight for the class is at least theta are the kernels of level 1. Each further step (`pyramid_rules`) finds
the children of these kernels in the layer before, which form the next level. The saliency tube of a kernel is
the sum of its children's feature maps over the clip.
"""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.explain.feature_path import FeaturePath
from static_dynamic.analysis.explain.pyramid_rules import RULES, Corrected, Links, Original
from static_dynamic.errors import UserError, nearest
from static_dynamic.models.stages import VideoNetwork


@dataclass(frozen=True)
class Pyramid:
    """The convolution kernels, level by level, that one class prediction for one clip depends on.

    Level 0 is the class and level 1 holds features of the classifier; higher levels lie closer to the input.
    ``steps[level]`` holds the links from the kernels of a level to their children in the next level.
    """

    label: int
    theta: float
    rules: str
    steps: tuple[Links, ...]
    clip: Corrected | Original

    @property
    def links(self) -> pd.DataFrame:
        """Table with one row per link: level, parent kernel, child kernel (on level + 1), strength."""
        tables = [
            pd.DataFrame({"level": level, "parent": parent, "child": child, "strength": strength})
            for level, (parent, child, strength) in enumerate(self.steps)
        ]
        return pd.concat(tables, ignore_index=True)

    @property
    def nodes(self) -> pd.DataFrame:
        """Table with one row per selected kernel: level, number within the level, layer, channel, importance.

        The importance of a kernel is the sum over all paths from the class to the kernel of the product of
        the links' strengths, divided by the largest such sum of the level.
        """
        tables = [pd.DataFrame({"level": [0], "unit": self.label, "layer": "class", "channel": self.label})]
        tables[0]["importance"] = 1.0
        importance: NDArray = np.zeros(self.label + 1)
        importance[self.label] = 1
        for level, (parent, child, strength) in enumerate(self.steps, start=1):
            units = np.unique(child)
            layers, channels = self.clip.name(level, units)
            importance = np.bincount(child, weights=importance[parent] * strength)
            importance = importance / (importance.max(initial=0) or 1)
            columns = {"level": level, "unit": units, "layer": layers, "channel": channels}
            tables.append(pd.DataFrame({**columns, "importance": importance[units]}))
        return pd.concat([table for table in tables if len(table)], ignore_index=True)

    @property
    def n_paths(self) -> int:
        """Number of paths along links from the class to the kernels of the last level.

        The size of the result of `nested` grows with this number.
        """
        # number of paths from the class to each kernel
        counts: NDArray = np.ones(self.label + 1)
        for parent, child, _ in self.steps:
            counts = np.bincount(child, weights=counts[parent])
        return int(counts.sum())

    def children(self, level: int, unit: int) -> NDArray:
        """Return, in ascending order, the numbers of the next-level kernels that a kernel is linked to."""
        parent, child, _ = self.steps[level]
        return np.unique(child[parent == unit])

    def nested(self) -> dict:
        """Return the pyramid as nested dicts, {class: {kernel: [kernels]}}, as in Stergiou et al.'s code.

        Keys are strings, as in JSON. A kernel occurs once per path from the class, so the nested form of a
        deep pyramid is large.
        """
        below: dict[int, list | dict] = {}
        for level in reversed(range(len(self.steps))):
            last = level == len(self.steps) - 1
            units = np.unique(self.steps[level - 1][1]) if level else [self.label]
            nested: dict[int, list | dict] = {}
            for unit in units:
                children = self.children(level, unit).tolist()
                nested[int(unit)] = children if last else {str(c): below[c] for c in children}
            below = nested
        return {str(self.label): below[self.label]}

    def saliency_tube(self, level: int, unit: int) -> NDArray:
        """Return a kernel's saliency tube (t, h, w): the sum of the feature maps of its child kernels."""
        children = self.children(level, unit)
        return self.clip.sum_maps(level, unit, children).float().cpu().numpy()

    def feature_map(self, level: int, unit: int) -> NDArray:
        """Return a kernel's feature map (t, h, w), as the next layer of the network receives it."""
        parent, child, _ = self.steps[level - 1]
        reader = int(parent[child == unit][0])
        return self.clip.sum_maps(level - 1, reader, np.array([unit])).float().cpu().numpy()


def class_feature_pyramid(
    net: VideoNetwork,
    inputs,
    label: int | None,
    *,
    theta: float = 0.8,
    depth: int = 3,
    rules: str = "corrected",
    select: str = "all",
    path: FeaturePath | None = None,
) -> Pyramid:
    """Find the kernels, level by level, that the prediction of class `label` for one clip depends on.

    Raises UserError if an option is invalid, the class or the level does not exist, the network has no such
    convolutions, or its outputs are not finite.

    Parameters
    ----------
    net
        A network whose classifier reads feature maps of 3D convolutions. If there are two pathways, both are
        followed.
    inputs
        The network's input for one clip, as ``net.prepare`` returns it.
    label
        Number of the class; None: the class that the network predicts.
    theta
        Smallest strength of a link, from 0 to 1, where 1 is the strongest link of a kernel.
    depth
        Number of levels of kernels; 1: only the classifier's features.
    rules
        ``"corrected"``, or ``"original"`` for the rules of the published code with its flaws: see
        `pyramid_rules`.
    select
        ``"all"``, or ``"topK_inL"`` to keep only the K strongest children of each kernel of level L.
    path
        Result of `feature_path.trace_path` for this network and size of clip, which saves the tracing time.
    """
    keep = check_options(theta, depth, rules, select)
    clip = RULES[rules](net, inputs, depth, path)
    if not clip.logits.isfinite().all():
        raise UserError(
            f"{type(net).__name__}: the network's outputs for this clip are not finite: check the weights"
        )
    return build_pyramid(clip, label, theta, depth, rules, keep)


def check_options(theta: float, depth: int, rules: str, select: str) -> tuple[int, int] | None:
    """Raise UserError if an option is invalid; return (K, L) if `select` is ``topK_inL``, else None."""
    if rules not in RULES:
        raise UserError(f"unknown rules {rules!r}{nearest(str(rules), RULES)} (known: {', '.join(RULES)})")
    if not (isinstance(theta, int | float) and 0 <= theta <= 1):
        raise UserError(f"theta={theta}: give a number from 0 to 1")
    if not isinstance(depth, int):
        raise UserError(f"depth={depth}: give a whole number, at least 1")
    if select == "all":
        return None
    match = re.fullmatch(r"top([1-9]\d*)_in([1-9]\d*)", str(select))
    if not match:
        raise UserError(f"select={select!r}: give all, or topK_inL to keep K links per kernel of level L")
    if rules == "original":
        raise UserError(
            "select=topK_inL fails in Stergiou et al.'s code (rules=original): give select=all, or "
            "rules=corrected"
        )
    k, level = int(match[1]), int(match[2])
    if level >= depth:
        raise UserError(f"select={select!r}: the level L of topK_inL must be below depth={depth}")
    return k, level


def check_label(label: int, classes: int) -> None:
    """Raise UserError if the network has no class with the number `label`."""
    if not (isinstance(label, int | np.integer) and 0 <= label < classes):
        raise UserError(f"label={label}: this network's classes are numbered 0 to {classes - 1}")


def build_pyramid(
    clip: Corrected | Original,
    label: int | None,
    theta: float,
    depth: int,
    rules: str = "corrected",
    keep: tuple[int, int] | None = None,
) -> Pyramid:
    """Build the class feature pyramid of one class from the activations of one clip.

    `class_feature_pyramid` explains the options; `keep` is the tuple (K, L) of ``topK_inL``.
    """
    if label is None:
        label = int(clip.logits.argmax())
    steps = [class_step(clip, label, theta)]
    for level in range(1, depth):
        units = np.flatnonzero(np.bincount(steps[-1][1]))
        links = clip.step(level, units, theta)
        if keep and keep[1] == level:
            links = strongest(links, keep[0])
        steps.append(links)
    return Pyramid(label, theta, rules, tuple(steps), clip)


def strongest(links: Links, k: int) -> Links:
    """Keep the `k` strongest links of each parent kernel; prefer the lower child number in ties."""
    parent, child, strength = links
    order = np.lexsort((child, -strength, parent))
    ordered = parent[order]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    kept = order[rank < k]
    return parent[kept], child[kept], strength[kept]


def class_step(clip: Corrected | Original, label: int, theta: float) -> Links:
    """Link a class to each level-1 kernel whose scaled classifier weight for the class is at least theta."""
    check_label(label, clip.class_scores.shape[1])
    scores = clip.class_scores[:, label]
    features = np.flatnonzero(scores >= theta)
    return np.full(len(features), label), clip.features()[features], scores[features]
