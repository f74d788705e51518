"""Gaussian-disk guides: coloured spots that ride on what moves, as extra input of the stylizer.

Points are strewn over the mask of each key frame (Poisson disk), carried along the flow to every other
frame, and drawn as Gaussians of random colour; so a patch tells where on the object it is.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from static_dynamic.stylize.flow import Flow

Points = NDArray[np.float64]  # (N, 2): x, y
TRIES = 30  # candidates around a point before it is given up (Bridson, SIGGRAPH 2007)


def poisson_disk(width: float, height: float, radius: float, draw: np.random.Generator) -> Points:
    """Points in [0, width] x [0, height], none nearer than `radius` to another, dense (Bridson's method)."""
    cell = radius / np.sqrt(2)  # one point a cell at most
    columns, rows = int(width / cell) + 1, int(height / cell) + 1
    # two cells of margin, so that a neighbourhood is always a full square; far points stand for none
    taken = np.full((rows + 4, columns + 4, 2), -1e9)
    limit = np.array([width, height])

    def place(point: NDArray) -> None:
        column, row = (point / cell).astype(int)
        taken[row + 2, column + 2] = point
        points.append(point)
        active.append(point)

    points: list[NDArray] = []
    active: list[NDArray] = []
    place(draw.uniform(0, limit))
    while active:
        i = int(draw.integers(len(active)))
        angle = draw.uniform(0, 2 * np.pi, TRIES)
        # uniform over the ring from radius to twice the radius
        distance = radius * np.sqrt(draw.uniform(1, 4, TRIES))
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


def strew(mask: NDArray[np.uint8], radius: float, draw: np.random.Generator) -> Points:
    """Poisson-disk points where a mask (H, W) is over 64."""
    height, width = mask.shape
    points = poisson_disk(width - 1, height - 1, radius, draw)
    x, y = points.astype(int).T
    return points[mask[y, x] > 64]


def carry(points: Points, flow: Flow) -> Points:
    """Points one frame on: each moved by the flow where it is, bilinear; outside, by the nearest in it."""
    height, width = flow.shape[:2]
    x, y = points.clip(0, (width - 1, height - 1)).T
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    s, t = (x - left)[:, None], (y - top)[:, None]
    upper = (1 - s) * flow[top, left] + s * flow[top, left + 1]
    lower = (1 - s) * flow[top + 1, left] + s * flow[top + 1, left + 1]
    return points + (1 - t) * upper + t * lower


def draw_disks(
    points: Iterable[NDArray], colours: Iterable[NDArray], sigma: float, height: int, width: int
) -> NDArray[np.uint8]:
    """Gaussian spots over black, (H, W, 3): each blends towards its colour with weight exp(-d^2 / sigma^2).

    A spot is drawn within 3 sigma (a square); later ones lie over earlier ones, as in the original tool.
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
