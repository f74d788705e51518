"""Test the faithfulness of saliency maps: does the prediction depend on the voxels with large values?

The test is deletion and insertion (Petsiuk et al., BMVC 2018) at a single area. Either the fraction `AREA`
of the voxels with the largest heat is blurred, or all other voxels are. Random masks are made from the same
map, which is flipped and shifted at random, so they have the same area and smoothness. If the map marks what
the prediction depends on, less probability than with random masks is left when its voxels are blurred, and
more probability is left when all other voxels are blurred.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid
from static_dynamic.analysis.explain.tubes import level_map, scaled, zoom_cells
from static_dynamic.analysis.show.text import align
from static_dynamic.rng import generator

# Fraction of the voxels that a mask selects.
AREA = 0.2
# Standard deviation of the spatial Gaussian blur, as a fraction of the shorter side of a frame.
BLUR = 0.1
# Two tests: the selected voxels are blurred, or they are kept and all other voxels are blurred.
WAYS = ("blurred", "kept")


def measure_faithfulness(
    probability: Callable[[Tensor], float],
    video: Tensor,
    pyramid: Pyramid,
    blank: Pyramid,
    masks: int,
    seed: int,
) -> pd.DataFrame:
    """Compare the saliency map of each pyramid level with random masks; return one row per level.

    `probability` maps a video (3, T, H, W) to the probability of the explained class, and `video` is the
    network's input. `blank` is the pyramid of a uniform clip (`Explainer.blank`). `masks` is the number of
    random masks.

    Columns: ``level``; for each of `WAYS`: ``WAY``, the fraction of the probability that is left (NaN if the
    map is 0 everywhere), ``WAY_random``, its mean over random masks, and ``WAY_better``, the number of random
    masks that leave more (blurred) or less (kept); ``masks``.
    """
    whole = probability(video)
    blurred = blur(video)

    def left(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        selected = torch.from_numpy(mask).to(video.device)
        videos = (torch.where(selected, blurred, video), torch.where(selected, video, blurred))
        return np.array([probability(changed) for changed in videos]) / whole

    size, rng = tuple(video.shape[1:]), generator(seed, "saliency", "random masks")
    maps = [scaled(level_map(pyramid, k), level_map(blank, k)) for k in range(1, len(pyramid.steps) + 1)]
    rows = []
    with tqdm(total=len(maps) * (1 + masks), desc="test of faithfulness", unit="mask", delay=2) as bar:
        for level, heat in enumerate(maps, start=1):
            # The first row of `found` holds the results of the map, the other rows those of random masks.
            found = np.full((1 + masks, len(WAYS)), np.nan)
            for k in range(1 + masks):
                if heat.any():
                    moved = displaced(heat, rng) if k else heat
                    found[k] = left(largest(moved, size, pyramid.clip.size, rng))
                bar.update()
            rows.append({"level": level, **numbers_of(found[0], found[1:]), "masks": masks})
    return pd.DataFrame(rows)


def blur(video: Tensor) -> Tensor:
    """Blur each frame of a video (3, T, H, W) by a Gaussian whose SD is `BLUR` times the shorter side."""
    sigma = BLUR * min(video.shape[2:])
    smooth = ndimage.gaussian_filter(video.cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(smooth).to(video.device)


def displaced(heat: NDArray, rng: np.random.Generator) -> NDArray:
    """Flip a map (t, h, w) along random axes, and shift it by random numbers of cells; cells wrap around."""
    flipped = np.flip(heat, tuple(axis for axis in range(heat.ndim) if rng.random() < 0.5))
    return np.roll(flipped, [int(rng.integers(side)) for side in heat.shape], axis=tuple(range(heat.ndim)))


def largest(
    heat: NDArray, size: tuple[int, ...], shown: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Select the fraction `AREA` of the voxels with the largest heat; return a mask of shape `size`.

    `size` is (T, H, W). `heat` covers the first `shown` frames, rows and columns of the video. Ties are
    broken at random.
    """
    voxels = zoom_cells(heat.astype(np.float64), shown).ravel()
    voxels += 1e-9 * (voxels.max() or 1) * rng.random(voxels.size)
    count = round(AREA * voxels.size)
    chosen = np.zeros(voxels.size, bool)
    chosen[np.argpartition(-voxels, count)[:count]] = True
    mask = np.zeros(size, bool)
    mask[: shown[0], : shown[1], : shown[2]] = chosen.reshape(shown)
    return mask


def numbers_of(own: NDArray, random: NDArray) -> dict[str, float]:
    """Compute columns of the table of `measure_faithfulness` from the results of a map and of random masks.

    `own` (2,) and `random` (masks, 2) hold the fraction of the probability that is left for each of `WAYS`.
    """
    better = {"blurred": own[0] < random[:, 0], "kept": own[1] > random[:, 1]}
    columns: dict[str, float] = {}
    for k, way in enumerate(WAYS):
        columns |= {
            way: own[k],
            f"{way}_random": random[:, k].mean(),
            f"{way}_better": int(better[way].sum()),
        }
    return columns


def format_faithfulness(table: pd.DataFrame) -> str:
    """Return the table of `measure_faithfulness` for one clip as text, with a verdict per level."""
    masks = table["masks"].iloc[0]
    rows = []
    for row in table.itertuples():
        better = min(row.blurred_better, row.kept_better)
        verdict = "marks what the prediction depends on" if better == masks else "not told from random masks"
        rows.append(
            {
                "level": row.level,
                "blurred %": f"{100 * row.blurred:.0f} (random {100 * row.blurred_random:.0f})",
                "kept %": f"{100 * row.kept:.0f} (random {100 * row.kept_random:.0f})",
                "better than": f"{row.blurred_better} and {row.kept_better} of {masks}",
                "the map": "is 0 everywhere" if np.isnan(row.kept) else verdict,
            }
        )
    return (
        "faithfulness: percentage of the probability that is left\n"
        f"  blurred: after blurring the {100 * AREA:.0f} % of the voxels with the largest heat\n"
        f"  kept:    after blurring all other voxels\n"
        f"  random:  mean of {masks} random masks: the same map, flipped and shifted\n\n{align(rows)}"
    )


def format_clips(table: pd.DataFrame) -> str:
    """Return a text table: number of clips per level whose map does better than the mean of random masks."""
    rows = []
    for level, own in table.groupby("level"):
        clips = own.dropna(subset=["blurred"])
        rows.append(
            {
                "level": level,
                "clips": len(clips),
                "blurred: better": int((clips["blurred"] < clips["blurred_random"]).sum()),
                "kept: better": int((clips["kept"] > clips["kept_random"]).sum()),
            }
        )
    return (
        f"faithfulness: number of clips whose map does better than the mean of random masks\n\n{align(rows)}"
    )
