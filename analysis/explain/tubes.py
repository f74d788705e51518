"""Saliency tubes to look at: heat over the frames of a clip, as strips, films and tilted stacks.

What is drawn is made for the eye; the maps beside the pictures (``.npy``) are as the network has them. Some
kernels answer to nothing but the zeros beyond the rim of the picture, and many times as strongly as to
anything in it: those of Inception-I3D with its Kinetics weights do so in the right-hand corners of the last
frames, of a grey clip as of any other. From what is drawn, therefore, what the same kernels show of a clip of
plain mean colour is taken off, and a quarter of it more, since it is never quite the same. The scale ends at
the 99.5th percentile of the cells.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray
from PIL import Image

from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid, zoom_cells
from static_dynamic.analysis.show.figures import save
from static_dynamic.files import atomic_path

HEAT_COLOURS = matplotlib.colormaps["inferno"]
PERCENTILE = 99.5
# how much of a blank clip's map is taken off
BLANK_FACTOR = 1.25
STRIP_FRAMES, STRIP_SIDE, STACK_FRAMES = 8, 128, 8
# slow enough to be followed
FRAMES_A_SECOND = 8


def scaled(activity: NDArray, blank: NDArray) -> NDArray[np.float32]:
    """A map (t, h, w) from 0 to 1 for the eye, less that of a blank clip; zeros where nothing is left, and
    where it is no map."""
    shown = np.maximum(activity - BLANK_FACTOR * np.maximum(blank, 0), 0)
    if not np.isfinite(shown).all() or not shown.any():
        return np.zeros(activity.shape, np.float32)
    high = np.percentile(shown, PERCENTILE) or shown.max()
    return np.clip(shown / high, 0, 1).astype(np.float32)


def tube_map(pyramid: Pyramid, level: int, unit: int) -> NDArray:
    """What a kernel is shown by: the sum of its children's maps; its own map on the last level."""
    if level < len(pyramid.steps):
        return pyramid.map(level, unit)
    return pyramid.own_map(level, unit)


def level_map(pyramid: Pyramid, level: int) -> NDArray:
    """Sum of the maps of a level's kernels, once for each kernel that selected them: (t, h, w).

    Where layers of one level have maps of several sizes, all are brought to the largest.
    """
    maps: dict[tuple[int, ...], NDArray] = {}
    for unit in np.unique(pyramid.steps[level - 1][0]).tolist():
        own = pyramid.map(level - 1, unit)
        if np.isfinite(own).all():
            maps[own.shape] = maps.get(own.shape, 0) + own
    if not maps:
        return np.zeros((1, 1, 1), np.float32)
    size = tuple(max(sides) for sides in zip(*maps, strict=True))
    return np.sum([own if own.shape == size else zoom_cells(own, size) for own in maps.values()], axis=0)


def overlay(frames: NDArray[np.uint8], heat: NDArray) -> NDArray[np.uint8]:
    """Lay heat (T, H, W), 0 to 1, over frames (T, H, W, 3): the more, the less of the frame."""
    colour = HEAT_COLOURS(heat)[..., :3] * 255
    much = (0.8 * np.sqrt(heat))[..., None]
    return (frames * (1 - much) + colour * much).round().astype(np.uint8)


def evenly(count: int, at_most: int) -> NDArray[np.int64]:
    """Positions of at most so many of `count` frames, evenly spread."""
    return np.linspace(0, count - 1, min(count, at_most)).round().astype(int)


def draw_tube(
    path: Path, activity: NDArray, blank: NDArray, frames: NDArray[np.uint8], title: str, video: str
) -> None:
    """Write one tube as ``path``.png (strip), _stack.png, .mp4 or .gif, and .npy (the map as it is)."""
    with atomic_path(path.with_name(f"{path.name}.npy")) as temporary:
        np.save(temporary, activity)
    heat = zoom_cells(scaled(activity, blank), frames.shape[:3])
    shown = overlay(frames, heat)
    draw_strip(path.with_name(f"{path.name}.png"), frames, shown)
    draw_stack(path.with_name(f"{path.name}_stack.png"), shown, heat, title)
    if video != "none":
        VIDEOS[video](path.with_name(f"{path.name}.{video}"), shown)


def draw_strip(path: Path, frames: NDArray[np.uint8], shown: NDArray[np.uint8]) -> None:
    """Frames of a clip in a row, and below them the same under the heat."""
    chosen = evenly(len(frames), STRIP_FRAMES)
    height, width = frames.shape[1:3]
    factor = STRIP_SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    rows = [
        np.hstack([cv2.resize(film[t], size, interpolation=cv2.INTER_AREA) for t in chosen])
        for film in (frames, shown)
    ]
    with atomic_path(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary)


def draw_stack(path: Path, shown: NDArray[np.uint8], heat: NDArray, title: str) -> None:
    """Frames as a tilted stack, the first in front; the one with most heat is opaque."""
    chosen = evenly(len(shown), STACK_FRAMES)
    main = int(np.argmax(heat[chosen].sum(axis=(1, 2))))
    ratio = shown.shape[1] / shown.shape[2]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for k in reversed(range(len(chosen))):
        tilt = Affine2D().scale(0.6, ratio).skew_deg(0, -18).translate(0.42 * k, 0.04 * k)
        image = axes.imshow(
            shown[chosen[k]], extent=(0, 1, 0, 1), alpha=1.0 if k == main else 0.53, interpolation="bilinear"
        )
        image.set_transform(tilt + axes.transData)
        corners = tilt.transform([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
        axes.plot(*corners.T, color="black", linewidth=1.4 if k == main else 0.5)
        foot = tilt.transform((0.5, 0))
        axes.annotate(str(chosen[k]), foot, xytext=(0, -3), textcoords="offset points", ha="center", va="top")
    axes.set(
        xlim=(-0.1, 0.42 * len(chosen) + 0.3),
        ylim=(-0.45, ratio + 0.1 + 0.04 * len(chosen)),
        title=title.replace("$", r"\$"),
    )
    axes.set_aspect("equal")
    axes.axis("off")
    save(figure, path)


def write_mp4(path: Path, shown: NDArray[np.uint8]) -> None:
    """Write frames (T, H, W, 3) as a film."""
    codec = next(name for name in ("libx264", "mpeg4") if name in av.codecs_available)
    height, width = (side - side % 2 for side in shown.shape[1:3])  # the format halves both for colour
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=Fraction(FRAMES_A_SECOND))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        for picture in shown:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_gif(path: Path, shown: NDArray[np.uint8]) -> None:
    """Write frames (T, H, W, 3) as a film without end."""
    octree = Image.Quantize.FASTOCTREE  # the default takes seconds a frame
    first, *rest = (Image.fromarray(picture).quantize(256, octree) for picture in shown)
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=rest, duration=1000 // FRAMES_A_SECOND, loop=0)


VIDEOS = {"mp4": write_mp4, "gif": write_gif}
