"""Pictures of saliency tubes: heat maps over the frames of a clip, as strips, videos and tilted stacks.

The files ``.npy`` hold the tubes without any change; only the pictures are corrected for zero padding. Some
kernels respond to zero padding many times more strongly than to anything in the clip. Kernels of
Inception-I3D with Kinetics weights, for example, respond in the right corners of the last frames of every
clip, even of a uniform grey one. Therefore the pictures show a tube minus 1.25 times the tube of the same
kernel for a uniform clip in the mean colour. The factor exceeds 1 because the two responses to padding are
not exactly equal. The colour scale ends at the 99.5th percentile of the cells.
"""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from static_dynamic.analysis.explain.class_feature_pyramids import Pyramid
from static_dynamic.analysis.show.encoding import video_writer
from static_dynamic.analysis.show.figure_style import save
from static_dynamic.files import atomic_path
from static_dynamic.spacing import evenly_spaced

HEAT_COLOURS = matplotlib.colormaps["inferno"]
PERCENTILE = 99.5
# Pictures show a saliency tube minus this factor times the same kernel's tube for a uniform clip.
BLANK_FACTOR = 1.25
# Most frames per strip, most frames per stack, and the longer side in pixels of a frame in a strip.
STRIP_FRAMES, STACK_FRAMES, STRIP_SIDE = 8, 8, 128
# Frames per second of the written videos, slow enough to follow by eye.
FRAMES_PER_SECOND = 8


def scaled(tube: NDArray, blank: NDArray) -> NDArray[np.float32]:
    """Subtract the tube of a uniform clip and scale to [0, 1]; return zeros if a voxel is not finite."""
    shown = np.maximum(tube - BLANK_FACTOR * np.maximum(blank, 0), 0)
    if not np.isfinite(shown).all() or not shown.any():
        return np.zeros(tube.shape, np.float32)
    high = np.percentile(shown, PERCENTILE) or shown.max()
    return np.clip(shown / high, 0, 1).astype(np.float32)


def tube_map(pyramid: Pyramid, level: int, unit: int) -> NDArray:
    """Return a kernel's saliency tube; on the last level, where kernels have no children, its feature map."""
    if level < len(pyramid.steps):
        return pyramid.saliency_tube(level, unit)
    return pyramid.feature_map(level, unit)


def level_map(pyramid: Pyramid, level: int) -> NDArray:
    """Return the sum (t, h, w) of a level's feature maps; a kernel with two parents counts twice."""
    maps: dict[tuple[int, ...], NDArray] = {}
    for unit in np.unique(pyramid.steps[level - 1][0]).tolist():
        tube = pyramid.saliency_tube(level - 1, unit)
        if np.isfinite(tube).all():
            maps[tube.shape] = maps.get(tube.shape, 0) + tube
    if not maps:
        return np.zeros((1, 1, 1), np.float32)
    size = tuple(max(sides) for sides in zip(*maps, strict=True))
    return np.sum([tube if tube.shape == size else zoom_cells(tube, size) for tube in maps.values()], axis=0)


def zoom_cells(activity: NDArray, size: tuple[int, ...]) -> NDArray:
    """Resize a feature map to `size` by linear interpolation between the centres of the map's cells.

    Stergiou et al.'s code fits a spline between the outermost pixels. The spline moves cells by up to half a
    cell and overshoots beside bright cells.
    """
    factors = [n / side for n, side in zip(size, activity.shape, strict=True)]
    return ndimage.zoom(activity, factors, order=1, mode="nearest", grid_mode=True)


def overlay(frames: NDArray[np.uint8], heat: NDArray) -> NDArray[np.uint8]:
    """Blend a heat map (T, H, W) from 0 to 1 over frames (T, H, W, 3); opacity grows with the heat."""
    colour = HEAT_COLOURS(heat)[..., :3] * 255
    opacity = (0.8 * np.sqrt(heat))[..., None]
    return (frames * (1 - opacity) + colour * opacity).round().astype(np.uint8)


def draw_tube(path: Path, tube: NDArray, blank: NDArray, frames: NDArray, title: str, video: str) -> None:
    """Draw a saliency tube over the frames as a strip, a stack and a video; write the tube as ``.npy``."""
    with atomic_path(path.with_name(f"{path.name}.npy")) as temporary:
        np.save(temporary, tube)
    heat = zoom_cells(scaled(tube, blank), frames.shape[:3])
    shown = overlay(frames, heat)
    draw_strip(path.with_name(f"{path.name}.png"), frames, shown)
    draw_stack(path.with_name(f"{path.name}_stack.png"), shown, heat, title)
    if video != "none":
        VIDEOS[video](path.with_name(f"{path.name}.{video}"), shown)


def draw_strip(path: Path, frames: NDArray[np.uint8], shown: NDArray[np.uint8]) -> None:
    """Draw frames of a clip in one row, and the same frames under the heat map in a second row."""
    chosen = evenly_spaced(STRIP_FRAMES, len(frames))
    height, width = frames.shape[1:3]
    factor = STRIP_SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    rows = [
        np.hstack([cv2.resize(video[t], size, interpolation=cv2.INTER_AREA) for t in chosen])
        for video in (frames, shown)
    ]
    with atomic_path(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary)


def draw_stack(path: Path, shown: NDArray[np.uint8], heat: NDArray, title: str) -> None:
    """Draw frames as a tilted stack with the first frame in front; the frame with the most heat is opaque."""
    chosen = evenly_spaced(STACK_FRAMES, len(shown))
    main = int(np.argmax(heat[chosen].sum(axis=(1, 2))))
    ratio = shown.shape[1] / shown.shape[2]
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for k in reversed(range(len(chosen))):
        tilt = Affine2D().scale(0.6, ratio).skew_deg(0, -18).translate(0.42 * k, 0.04 * k)
        alpha, linewidth = (1.0, 1.4) if k == main else (0.53, 0.5)
        image = axes.imshow(shown[chosen[k]], extent=(0, 1, 0, 1), alpha=alpha, interpolation="bilinear")
        image.set_transform(tilt + axes.transData)
        corners = tilt.transform([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
        axes.plot(*corners.T, color="black", linewidth=linewidth)
        x, y = tilt.transform((0.5, 0))
        axes.annotate(
            str(chosen[k]), (x, y), xytext=(0, -3), textcoords="offset points", ha="center", va="top"
        )
    axes.set(xlim=(-0.1, 0.42 * len(chosen) + 0.3), ylim=(-0.45, ratio + 0.1 + 0.04 * len(chosen)))
    axes.set_title(title.replace("$", r"\$"))
    axes.set_aspect("equal")
    axes.axis("off")
    save(figure, path)


def write_mp4(path: Path, shown: NDArray[np.uint8]) -> None:
    """Encode frames (T, H, W, 3) as MP4 with one thread, so that equal frames give equal bytes."""
    with atomic_path(path) as temporary, video_writer(temporary, FRAMES_PER_SECOND, threads="1") as write:
        for picture in shown:
            write(picture)


def write_gif(path: Path, shown: NDArray[np.uint8]) -> None:
    """Write frames (T, H, W, 3) as an animated GIF that repeats endlessly."""
    # The default method of PIL's `quantize` takes seconds per frame.
    octree = Image.Quantize.FASTOCTREE
    first, *rest = (Image.fromarray(picture).quantize(256, octree) for picture in shown)
    with atomic_path(path) as temporary:
        first.save(temporary, save_all=True, append_images=rest, duration=1000 // FRAMES_PER_SECOND, loop=0)


VIDEOS = {"mp4": write_mp4, "gif": write_gif}
