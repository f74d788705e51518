"""Render the videos of ``dataset=calibrated``, whose static and dynamic content is known exactly.

Each video is a scene of one family, shown in several styles. A style gives each video a new texture, contrast
and colours, but the same motion, shape and place. ``truth.parquet`` has one row per video and style, and
``masks/VIDEO.npz`` the mask of the shape in each frame.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from static_dynamic.assets import cache_dir
from static_dynamic.errors import UserError, nearest
from static_dynamic.files import atomic_path, json_sha256, temporary_folder, write_text
from static_dynamic.rng import generator

from .scenes import FAMILIES, PATTERNS, SHAPES, Look, Scene, path, render, shape_mask
from .write import in_threads

TRUTH, MASKS = "truth.parquet", "masks"
STYLES = (1, 2, 3, 4)
# VERSION is part of the name of the data set's folder: increase VERSION if the pixels of a scene change.
VERSION = 2
DIRECTIONS = tuple(range(0, 360, 45))
# Distances that the motion covers from one frame to the next, as fractions of the image's side.
SPEEDS = (1 / 128, 1 / 64, 3 / 128)
COHERENCES = (0.25, 0.5, 1.0)
# Mean wavelength of the texture in each style, as a fraction of the frame's side.
WAVELENGTHS = {1: 0.14, 2: 0.17, 3: 0.20, 4: 0.24}
# Mean contrast of the texture in each style: the standard deviation of the brightness (0 to 1).
CONTRASTS = {1: 0.20, 2: 0.17, 3: 0.14, 4: 0.11}


def prepare(dataset: DictConfig, style: DictConfig) -> Path:
    """Return the folder of the calibrated data set; render the data set if the folder is incomplete.

    `style` is not used: the looks of the styles belong to the data set.
    """
    settings = cast(dict, OmegaConf.to_container(dataset.render, resolve=True))
    for family in settings["families"]:
        if family not in FAMILIES:
            raise UserError(
                f"dataset.render.families: unknown family {family!r}{nearest(str(family), FAMILIES)} "
                f"(known: {', '.join(FAMILIES)})"
            )
    identity = {"settings": settings, "version": VERSION}
    root = cache_dir() / "datasets" / f"calibrated-{json_sha256(identity)[:12]}"
    if not (root / "complete.json").exists() or not (root / MASKS).exists():
        write_all(root, **settings)
        write_text(root / "complete.json", json.dumps(identity, indent=2) + "\n")
    return root


def write_all(root: Path, families: list[str], videos: int, size: int, frames: int, seed: int) -> None:
    """Render `videos` videos per scene family in all styles; write videos and ground truth to `root`."""
    scenes = {
        f"{family}_{i:03d}": scene
        for family in families
        for i, scene in enumerate(draw_scenes(family, videos, seed))
    }
    looks = {(name, style): draw_look(name, style, seed) for name in scenes for style in STYLES}
    work = partial(write_video, root, scenes, looks, size, frames, seed)
    in_threads(work, list(looks), None, "render calibrated videos", "video")
    rows = []
    for (name, style), look in looks.items():
        across, down = path(scenes[name], frames)[-1] / max(1, frames - 1)
        # Mean velocity, in sides of a frame per frame.
        mean = {"velocity_x": across, "velocity_y": down}
        rows.append({"video": name, "style": style, **asdict(scenes[name]), **mean, **asdict(look)})
    with atomic_path(root / TRUTH) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    if not (root / MASKS).exists():
        with temporary_folder(root / MASKS) as temporary:
            (temporary / "new").mkdir()
            for name, scene in scenes.items():
                np.savez_compressed(temporary / "new" / f"{name}.npz", shape_mask(scene, size, frames))
            (temporary / "new").rename(root / MASKS)


def draw_scenes(family: str, videos: int, seed: int) -> Iterator[Scene]:
    """Yield random scenes of a family; each direction, each speed, each shape ... occurs equally often.

    The place of the shape in the first frame is uniform on the torus: each row and each column of a grid of
    `videos` x `videos` cells has one place (a Latin hypercube). The place is then uniform in every other
    frame too, so that the place in a single frame does not tell the direction of the motion.
    """
    rng = generator(seed, family, "scenes")

    def balanced(values: tuple) -> list:
        return [values[i % len(values)] for i in rng.permutation(videos)]

    factors = (DIRECTIONS, SPEEDS, tuple(PATTERNS), COHERENCES, tuple(SHAPES))
    places = [(rng.permutation(videos) + rng.random(videos)) / max(1, videos) for _ in "xy"]
    for direction, speed, *others in zip(*map(balanced, factors), *places, strict=True):
        yield Scene(family, float(direction), 0.0 if family == "layout" else speed, *others)


def draw_look(name: str, style: int, seed: int) -> Look:
    """Choose a video's texture and colours in one style at random; half of the videos swap dark and light."""
    rng = generator(seed, name, f"look {style}")
    wavelength = WAVELENGTHS[style] * 2 ** rng.uniform(-0.25, 0.25)
    contrast = CONTRASTS[style] * 2 ** rng.uniform(-0.25, 0.25)
    dark, light = rng.uniform((0, 155), (100, 255), (3, 2)).round().astype(int).T.tolist()
    if rng.random() < 0.5:
        dark, light = light, dark
    return Look(float(wavelength), float(contrast), tuple(dark), tuple(light))


def write_video(
    root: Path,
    scenes: dict[str, Scene],
    looks: dict[tuple[str, int], Look],
    size: int,
    frames: int,
    seed: int,
    view: tuple[str, int],
) -> None:
    """Render one video in one style to a folder of png files; do nothing if the folder exists."""
    name, style = view
    folder = root / f"style_{style}" / name
    if folder.exists():
        return
    rng = generator(seed, name, f"texture {style}")
    brightness, palette = render(scenes[name], looks[view], rng, size, frames)
    with temporary_folder(folder) as temporary:
        (temporary / "new").mkdir()
        for t, frame in enumerate(brightness, start=1):
            save_png(frame, palette, temporary / "new" / f"{t:06d}.png")
        (temporary / "new").rename(folder)


def save_png(frame: NDArray[np.uint8], palette: NDArray[np.uint8], path: Path) -> None:
    """Write a frame (H, W), whose pixels are row numbers of the RGB `palette` (n, 3), as a png file."""
    image = Image.fromarray(frame)
    image.putpalette(palette.tobytes())
    image.save(path)


def read_scenes(root: Path) -> pd.DataFrame:
    """Read the ground truth of a calibrated data set: a table with one row per video."""
    return pd.read_parquet(root / TRUTH).drop_duplicates("video")
