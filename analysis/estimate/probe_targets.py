"""Make the targets of probes, divide videos into folds, and permute targets between and within videos.

Views of one video are alike, so single views cannot be exchanged. A permutation gives each video the targets
of another video, clip by clip, and exchanges the styles and the orders within each video in a random way that
is the same for all its clips. Without information about the target, all these targets are equally probable.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.rng import generator

from .probe_jackknife import MOST_BLOCKS
from .probe_variables import CLASSES, Variable

log = logging.getLogger(__name__)

# To limit memory and time, all permutations together have at most LARGEST target values. But at least
# FEWEST_PERMUTATIONS are drawn, because p cannot be as small as 0.05 with fewer permutations.
LARGEST, FEWEST_PERMUTATIONS = 100_000_000, 19


@dataclass(frozen=True)
class Targets:
    """Targets of one variable: the known views, their videos and folds, and replicates of the targets."""

    classes: bool
    rows: NDArray  # (n,) row numbers of the views
    video: NDArray  # (n,) from 0 to G - 1
    fold: NDArray  # (G,)
    block: NDArray  # (G,): block of the jackknife
    replicates: NDArray  # (n, B, k): the target itself, then permuted targets

    @classmethod
    def of(
        cls, variable: Variable, views: pd.DataFrame, folds: int, permutations: int, seed: int
    ) -> "Targets":
        """Assign videos to folds and blocks at random, and permute the targets between videos."""
        rows = variable.rows(views)
        own = views.iloc[rows]
        names, video = np.unique(own["cluster"].to_numpy(str), return_inverse=True)
        fold = generator(seed, variable.name, "probe folds").permutation(len(names)) % folds
        blocks = min(MOST_BLOCKS, len(names))
        block = generator(seed, variable.name, "probe blocks").permutation(len(names)) % blocks
        rng = generator(seed, variable.name, "probe permutations")
        grid, cells = donor_grid(own)
        allowed = max(FEWEST_PERMUTATIONS, LARGEST // max(1, variable.targets[rows].size))
        if permutations > allowed:
            log.warning(
                "%s: %d permutations instead of %d, because of many views and classes",
                variable.name,
                allowed,
                permutations,
            )
            permutations = allowed
        donors = [np.arange(len(rows)), *(permute(grid, cells, rng) for _ in range(permutations))]
        replicates = variable.targets[rows][np.stack(donors, axis=1)]
        return cls(variable.kind == CLASSES, rows, video, fold, block, replicates)


def donor_grid(views: pd.DataFrame) -> tuple[NDArray, NDArray]:
    """Arrange views in a grid of row numbers (videos, clips, styles, orders).

    Also return the cell (4, views) of each view. Empty cells of a video with fewer clips, or of a clip with
    fewer views, repeat views of the same video.
    """
    video = pd.factorize(views["cluster"], sort=True)[0]
    clip = rank_within(views["clip"], video)
    style = rank_within(views["style"], pd.factorize(views["clip"])[0])
    order = pd.factorize(views["order"])[0]
    cells = np.stack([video, clip, style, order])
    grid = np.full(cells.max(1) + 1, -1)
    grid[tuple(cells)] = np.arange(len(views))
    for own in grid:
        clips = int((own >= 0).any(axis=(1, 2)).sum())
        for k, rows in enumerate(own):
            if k >= clips:
                own[k] = own[k % clips]
            else:
                rows[rows < 0] = np.resize(rows[rows >= 0], int((rows < 0).sum()))
    return grid, cells


def rank_within(values: pd.Series, group: NDArray) -> NDArray:
    """Number the distinct values within each group, from 0."""
    return values.groupby(group).transform(lambda own: pd.factorize(own, sort=True)[0]).to_numpy(int)


def permute(grid: NDArray, cells: NDArray, rng: np.random.Generator) -> NDArray:
    """Return, for each view, the row number of the view whose target it gets. Shape: (views,)."""
    videos, _, styles, orders = grid.shape
    video, clip, style, order = cells
    donor = rng.permutation(videos)
    new_style = rng.random((videos, styles)).argsort(1)
    new_order = rng.random((videos, orders)).argsort(1)
    return grid[donor[video], clip, new_style[video, style], new_order[video, order]]
