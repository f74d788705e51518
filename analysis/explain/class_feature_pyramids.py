"""Class Feature Pyramids (Stergiou et al., "Class Feature Pyramids for Video Explanation", ICCVW 2019): which
kernels, at which depth, a class prediction of a clip leans on.

Class step: the classifier's weights, scaled from 0 to 1 over all classes and features; the features of the
class that reach theta are the kernels of level 1. Back-steps: see `pyramid_rules`. A kernel's tube
is the sum of its children's activation maps over the clip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from static_dynamic.analysis.explain.feature_path import FeaturePath, trace_path
from static_dynamic.analysis.explain.pyramid_rules import RULES, Corrected, Links, Original, count_classes
from static_dynamic.errors import UserError, nearest
from static_dynamic.models.stages import VideoNetwork


@dataclass(frozen=True)
class Pyramid:
    """The kernels behind one class of one clip.

    Level 0 is the class, level 1 the features that the classifier weighs, and so on back through the network;
    ``steps[level]`` are the links from the kernels of that level to those of the next.
    """

    label: int
    theta: float
    rules: str
    steps: tuple[Links, ...]
    clip: Corrected | Original

    @property
    def links(self) -> pd.DataFrame:
        """One row a link: level of the parent, parent, child (in the level after), strength in [0, 1]."""
        tables = [
            pd.DataFrame({"level": level, "parent": parent, "child": child, "strength": strength})
            for level, (parent, child, strength) in enumerate(self.steps)
        ]
        return pd.concat(tables, ignore_index=True)

    @property
    def nodes(self) -> pd.DataFrame:
        """One row a kernel: level, unit (its number there), layer (module path), channel (number within),
        importance.

        Importance is the sum, over all ways that lead from the class to a kernel, of the product of their
        links' strengths; the first kernel of each level has 1.
        """
        tables = [pd.DataFrame({"level": [0], "unit": self.label, "layer": "class", "channel": self.label})]
        tables[0]["importance"] = 1.0
        reached = np.zeros(self.label + 1)
        reached[self.label] = 1
        for level, (parent, child, strength) in enumerate(self.steps, start=1):
            units = np.unique(child)
            layers, channels = self.clip.name(level, units)
            reached = np.bincount(child, weights=reached[parent] * strength)
            reached = reached / (reached.max(initial=0) or 1)
            columns = {"level": level, "unit": units, "layer": layers, "channel": channels}
            tables.append(pd.DataFrame({**columns, "importance": reached[units]}))
        return pd.concat([table for table in tables if len(table)], ignore_index=True)

    @property
    def ways(self) -> int:
        """How many ways lead from the class to the kernels of the last level: entries of the nested form."""
        counts = {self.label: 1}
        for parent, child, _ in self.steps:
            below: dict[int, int] = {}
            for p, c in zip(parent.tolist(), child.tolist(), strict=True):
                below[c] = below.get(c, 0) + counts[p]
            counts = below
        return sum(counts.values())

    def children(self, level: int, unit: int) -> NDArray:
        """Children of a kernel, ascending."""
        parent, child, _ = self.steps[level]
        return np.unique(child[parent == unit])

    def nested(self) -> dict:
        """The original's form: {class: {kernel: {kernel: [kernels]}}} with text keys, as in JSON.

        A kernel stands there once for every path that leads to it, so deep pyramids are large in this form.
        """
        below: dict[int, list | dict] = {}
        for level in reversed(range(len(self.steps))):
            last = level == len(self.steps) - 1
            units = np.unique(self.steps[level - 1][1]) if level else [self.label]
            grown = {}
            for unit in units:
                children = self.children(level, unit).tolist()
                grown[int(unit)] = children if last else {str(c): below[c] for c in children}
            below = grown
        return {str(self.label): below[self.label]}

    def map(self, level: int, unit: int) -> NDArray:
        """Sum of the activation maps of a kernel's children, at the size that those have: (t, h, w)."""
        children = self.children(level, unit)
        return self.clip.map(level, unit, children).float().cpu().numpy()

    def own_map(self, level: int, unit: int) -> NDArray:
        """Activation map of a kernel itself, as the kernels of the level before it read it: (t, h, w)."""
        parent, child, _ = self.steps[level - 1]
        reader = int(parent[child == unit][0])
        return self.clip.map(level - 1, reader, np.array([unit])).float().cpu().numpy()

    def tube(self, level: int, unit: int) -> NDArray:
        """That sum at the size of the clip, from 0 to 1: (T, H, W)."""
        return TUBES[self.rules](self.map(level, unit), self.clip.size)


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
    """Find the kernels behind class `label` in one clip.

    Parameters
    ----------
    net
        A network whose classifier reads the maps of 3D convolutions. Of two pathways both are followed.
    inputs
        What ``net.prepare`` returns, of one clip.
    label
        Number of the class; None: the one that the network says.
    theta
        How strong, from 0 to 1, a channel must be beside the strongest that its kernel reads.
    depth
        Levels of kernels; 1 is the classifier's features alone.
    rules
        ``"corrected"``, or ``"original"`` with the flaws of the original code: see `pyramid_rules`.
    select
        ``"all"``, or ``"topK_inL"``: of each kernel of level L only the K strongest children.
    path
        What `feature_path.trace_path` returned for this network and size of clip, to save time.

    Raises
    ------
    UserError
        No such class or level, theta outside [0, 1], a network without such convolutions, or one whose
        outputs are not finite.
    """
    keep = check_options(theta, depth, rules, select)
    if rules == "corrected":
        path = path or trace_path(net, inputs)
    if label is not None:
        check_label(label, count_classes(net, rules, path))
    clip = RULES[rules](net, inputs, depth, path)
    if not clip.logits.isfinite().all():
        raise UserError(f"{type(net).__name__}: outputs of the network are no finite numbers for this clip")
    return grow(clip, label, theta, depth, rules, keep)


def check_options(theta: float, depth: int, rules: str, select: str) -> tuple[int, int] | None:
    """Refuse options that no network can meet; return K and L of ``topK_inL``."""
    if rules not in RULES:
        raise UserError(f"unknown rules {rules!r}{nearest(str(rules), RULES)} (known: {', '.join(RULES)})")
    if not (isinstance(theta, int | float) and 0 <= theta <= 1):
        raise UserError(f"theta={theta}: give a number from 0 to 1")
    if not isinstance(depth, int):
        raise UserError(f"depth={depth}: give a whole number from 1 on")
    return parse_select(select, depth, rules)


def check_label(label: int, classes: int) -> None:
    """Refuse a class that the network does not know."""
    if not (isinstance(label, int | np.integer) and 0 <= label < classes):
        raise UserError(f"label={label}: this network's classes are numbered 0 to {classes - 1}")


def parse_select(select: str | int, depth: int, rules: str) -> tuple[int, int] | None:
    """K and L of ``topK_inL``; None keeps all."""
    if select == "all":
        return None
    match = re.fullmatch(r"top([1-9]\d*)_in([1-9]\d*)", str(select))
    if not match:
        raise UserError(f"select={select!r}: give all, or topK_inL such as top5_in2")
    if rules == "original":
        raise UserError("the original never ran with topK_inL: give select=all, or rules=corrected")
    k, level = int(match[1]), int(match[2])
    if level >= depth:
        raise UserError(f"select={select!r}: of depth={depth}, levels 1 to {depth - 1} have children")
    return k, level


def grow(
    clip: Corrected | Original,
    label: int | None,
    theta: float,
    depth: int,
    rules: str = "corrected",
    keep: tuple[int, int] | None = None,
) -> Pyramid:
    """Step back from a class through a clip that has been read; see `class_feature_pyramid`."""
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
    """Of each kernel the `k` strongest children; of equally strong ones the first."""
    parent, child, strength = links
    order = np.lexsort((child, -strength, parent))
    ordered = parent[order]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    kept = order[rank < k]
    return parent[kept], child[kept], strength[kept]


def class_step(clip: Corrected | Original, label: int, theta: float) -> Links:
    """Features of a class whose weight, scaled over all classes and features, reaches theta."""
    check_label(label, clip.class_scores.shape[1])
    scores = clip.class_scores[:, label]
    features = np.flatnonzero(scores >= theta)
    return np.full(len(features), label), clip.features()[features], scores[features]


def original_tube(activity: NDArray, size: tuple[int, int, int]) -> NDArray:
    """Spline zoom by whole factors, which may lose the last frames and pixels; NaN where all is alike."""
    factors = [n // side for n, side in zip(size, activity.shape, strict=True)]
    zoomed = ndimage.zoom(activity, factors)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (zoomed - zoomed.min()) / (zoomed.max() - zoomed.min())


def corrected_tube(activity: NDArray, size: tuple[int, int, int]) -> NDArray:
    """Zoom to the size of the clip, from 0 to 1; zeros where all is alike."""
    zoomed = zoom_cells(activity, size)
    zoomed = zoomed - zoomed.min()
    return zoomed / zoomed.max() if zoomed.max() > 0 else zoomed


def zoom_cells(activity: NDArray, size: tuple[int, int, int]) -> NDArray:
    """Linear zoom by areas: a cell lies in the middle of the pixels that it stands for.

    A spline between the middles of the outermost pixels, as the original has it, lies up to half a cell off
    and overshoots beside bright cells.
    """
    factors = [n / side for n, side in zip(size, activity.shape, strict=True)]
    return ndimage.zoom(activity, factors, order=1, mode="nearest", grid_mode=True)


TUBES = {"corrected": corrected_tube, "original": original_tube}
