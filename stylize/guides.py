"""Guide images, an extra input of the generator: coloured Gaussian spots that follow an object's motion.

Points are sampled on the mask of each key frame (Poisson-disk sampling), tracked along the flow into every
other frame, and drawn as Gaussians of random colour. The colours tell the generator where a patch lies.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from static_dynamic.stylize.flow import Flow, Frame

Points = NDArray[np.float64]  # (N, 2): x, y
# TRIES: number of candidates that Bridson's method tries around one point
TRIES = 30


def poisson_disk(width: float, height: float, radius: float, rng: np.random.Generator) -> Points:
    """Sample dense random points, at least `radius` apart, in a rectangle (Poisson disk; Bridson, 2007)."""
    # `cell`: side of a grid cell, chosen so that a cell holds at most one point
    cell = radius / np.sqrt(2)
    columns, rows = int(width / cell) + 1, int(height / cell) + 1
    # `taken` holds the point in each grid cell; an empty cell holds the far-away point (-1e9, -1e9).
    # The grid has a margin of two empty cells on every side, so that every cell has a 5x5 neighbourhood.
    taken = np.full((rows + 4, columns + 4, 2), -1e9)
    limit = np.array([width, height])

    def place(point: NDArray) -> None:
        column, row = (point / cell).astype(int)
        taken[row + 2, column + 2] = point
        points.append(point)
        active.append(point)

    points: list[NDArray] = []
    active: list[NDArray] = []
    place(rng.uniform(0, limit))
    while active:
        i = int(rng.integers(len(active)))
        angle = rng.uniform(0, 2 * np.pi, TRIES)
        # Candidates are uniformly distributed in the ring between the distances `radius` and 2 `radius`.
        distance = radius * np.sqrt(rng.uniform(1, 4, TRIES))
        ring = active[i] + distance[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        for candidate in ring[((ring >= 0) & (ring <= limit)).all(1)]:
            column, row = (candidate / cell).astype(int)
            near = taken[row : row + 5, column : column + 5]
            if np.square(near - candidate).sum(-1).min() >= radius**2:
                place(candidate)
                break
        else:
            active[i] = active[-1]
            active.pop()
    return np.array(points)


def sample_points(mask: NDArray[np.uint8], radius: float, rng: np.random.Generator) -> Points:
    """Return Poisson-disk samples (N, 2) at pixels where a mask (H, W) is brighter than 64."""
    height, width = mask.shape
    points = poisson_disk(width - 1, height - 1, radius, rng)
    x, y = points.astype(int).T
    return points[mask[y, x] > 64]


def track(points: Points, flow: Flow) -> Points:
    """Move points (N, 2) to the next frame by the bilinearly interpolated flow.

    A point outside the image moves by the flow of the nearest pixel.
    """
    height, width = flow.shape[:2]
    x, y = points.clip(0, (width - 1, height - 1)).T
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    s, t = (x - left)[:, None], (y - top)[:, None]
    upper = (1 - s) * flow[top, left] + s * flow[top, left + 1]
    lower = (1 - s) * flow[top + 1, left] + s * flow[top + 1, left + 1]
    return points + (1 - t) * upper + t * lower


def draw_disks(
    points: Iterable[NDArray], colours: Iterable[NDArray], sigma: float, height: int, width: int
) -> Frame:
    """Draw Gaussian spots on a black image (H, W, 3); at distance d, a spot's opacity is exp(-d^2 / sigma^2).

    A spot is cut off at 3 sigma in x and y. Later spots cover earlier spots, as in Texler et al.'s tool.
    """
    canvas = np.zeros((height, width, 3), np.float32)
    reach = int(3 * sigma)
    for (px, py), colour in zip(points, colours, strict=True):
        x = np.arange(max(0, int(np.ceil(px - reach))), min(width, int(np.floor(px + reach)) + 1))
        y = np.arange(max(0, int(np.ceil(py - reach))), min(height, int(np.floor(py + reach)) + 1))
        if len(x) and len(y):
            across, down = (np.exp(-(np.square(d) / sigma**2)) for d in (x - px, y - py))
            weight = (down[:, None] * across)[..., None].astype(np.float32)
            spot = canvas[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
            spot += weight * (colour - spot)
    return (255 * canvas + 0.5).astype(np.uint8)
