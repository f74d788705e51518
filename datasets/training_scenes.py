"""Render videos and labels for ``task=train_calibrated``: moving shapes of known motion, layout and texture.

The labels are exact, because they are computed from the numbers that a video is rendered from:

    velocity   direction of the motion: the 8 values of `DIRECTIONS`
    layout     place of the shape, averaged over the frames (`mean_place`): the 9 cells of a 3 x 3 grid
    texture    wavelength of the texture: 4 classes, which overlap with the styles

The place is averaged because a network needs the order of the frames to tell the place in the first frame.
"""

from dataclasses import asdict, fields, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.rng import generator

from .calibrated import DIRECTIONS, STYLES, WAVELENGTHS, draw_look, draw_scenes
from .scenes import Scene, path, render

# Family of scenes in which motion, layout and texture are all visible.
FAMILY = "sprites"
# Wavelengths that separate the texture classes: geometric means of neighbouring styles' wavelengths.
CUTS = np.sqrt(np.array(list(WAVELENGTHS.values()))[1:] * np.array(list(WAVELENGTHS.values()))[:-1])
# Increase LABELS_VERSION if the meaning of a label changes.
LABELS_VERSION = 3
# Rows and columns of the grid of places, whose cells are the classes of `layout`.
GRID = 3
CLASSES = {"velocity": len(DIRECTIONS), "layout": GRID**2, "texture": len(CUTS) + 1}


def labels_of(target: str, truth: pd.DataFrame, frames: int) -> NDArray[np.int64]:
    """Return the labels (n,) of `target`, a key of `CLASSES`, for the n rows of a table of ground truth.

    `frames` is the number of frames of each video.
    """
    if target == "velocity":
        return np.searchsorted(DIRECTIONS, truth["direction"])
    if target == "layout":
        names = [field.name for field in fields(Scene)]
        scenes = [Scene(*values) for values in truth[names].itertuples(index=False)]
        across, down = (GRID * np.stack([mean_place(scene, frames) for scene in scenes])).astype(np.int64).T
        return GRID * down + across
    return np.digitize(truth["wavelength"], CUTS)


def mean_place(scene: Scene, frames: int) -> NDArray[np.float64]:
    """Return the mean place (x, y) of the scene's shape over the frames, on the torus: from 0 to below 1.

    The path is averaged before it is cut at the edges of the frame: the mean place of a shape that leaves the
    frame on the right and enters it on the left lies near these edges, not in the middle.
    """
    place = (np.array([scene.x, scene.y]) + path(scene, frames).mean(0)) % 1
    # A tiny negative number modulo 1 rounds to 1, which is the same place on the torus as 0.
    return np.where(place < 1, place, 0.0)


def render_training(
    videos: int, size: int, frames: int, step: int, seed: int, shortcut: float = 0.0
) -> tuple[NDArray[np.uint8], pd.DataFrame]:
    """Render scenes in all styles; return n videos (n, 3, T, H, W) and a table of their ground truth, n rows.

    A video has every `step`-th of the rendered frames. In the fraction `shortcut` of the scenes, the mean
    place of the shape tells the direction of the motion.
    """
    rows, clips = [], []
    for number, scene in enumerate(draw_scenes(FAMILY, videos, seed)):
        name = f"{FAMILY}_{number:03d}"
        if generator(seed, name, "shortcut").random() < shortcut:
            scene = with_shortcut(scene, frames)
        for style in STYLES:
            look = draw_look(name, style, seed)
            rng = generator(seed, name, f"texture {style}")
            brightness, palette = render(scene, look, rng, size, frames)
            clips.append(palette[brightness[::step]].transpose(3, 0, 1, 2))  # shape (3, T, H, W)
            rows.append({"video": name, "style": style, **asdict(scene), **asdict(look)})
    return np.stack(clips), pd.DataFrame(rows)


def with_shortcut(scene: Scene, frames: int) -> Scene:
    """Move the path of the shape so that its mean place is in the outer cell in the direction of the motion.

    The mean place keeps its position within a cell of the grid.
    """
    angle = np.deg2rad(scene.direction)
    cell = 1 + np.sign(np.round([np.cos(angle), np.sin(angle)], 6))
    mean = mean_place(scene, frames)
    x, y = ([scene.x, scene.y] + (cell + GRID * mean % 1) / GRID - mean) % 1
    return replace(scene, x=float(x), y=float(y))
