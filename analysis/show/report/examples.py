"""Example frames in a report: a few frames of a few clips, cropped like the network's input."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from static_dynamic.analysis.show.encoding import jpeg_uri
from static_dynamic.analysis.show.strips import pick_frames, read_frames, side_by_side
from static_dynamic.datasets.views import frame_columns
from static_dynamic.errors import UserError
from static_dynamic.spacing import evenly_spaced

# Number of frames per strip, and height of the frames in pixels.
FRAMES, HEIGHT = 5, 112


@dataclass(frozen=True)
class Strip:
    """A row of frames of one clip as one picture, with label, frame positions, ``data:`` URI and size."""

    label: str
    numbers: list[int]
    picture: str
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """The frame strips of one clip; without readable frames, ``strips`` is empty and ``missing`` says why."""

    clip: str
    strips: list[Strip]
    missing: str = ""


def find_examples(manifest: dict, views: pd.DataFrame, count: int = 2) -> list[Example]:
    """Make the frame strips of `count` clips that are spread evenly over the run's list of clips.

    Each clip is shown in every style, then once with its frames shuffled. The original video comes first if
    the data folder has it. Networks that read optical flow have no examples, nor have imported activations.
    """
    if "Flow" in manifest["input"]["pathways"] or "root" not in manifest or not frame_columns(views):
        return []
    clips = list(dict.fromkeys(views["clip"]))
    chosen = [clips[k] for k in evenly_spaced(count, len(clips), np.trunc)]
    return [make_example(manifest, views[views["clip"] == clip], clip) for clip in chosen]


def make_example(manifest: dict, views: pd.DataFrame, clip: str) -> Example:
    """Make the frame strips of one clip; `views` has one row per network input of the clip."""
    root = Path(manifest["root"])
    first = views.iloc[0]
    video = first["video"]
    column = max(frame_columns(views), key=lambda c: len(first[c]))
    # `wanted` holds (label, style, frame positions) of each strip to make
    wanted = []
    if (root / "style_0").is_dir() and not (views["style"] == 0).any():
        wanted.append(("original", 0, first[column]))
    by_style = views.sort_values("style")
    forward, shuffled = (by_style[by_style["order"] == order] for order in ("forward", "shuffled"))
    for _, view in pd.concat([forward, shuffled.head(1)]).iterrows():
        name = f"style {view['style']}" if view["style"] else "original"
        label = name if view["order"] == "forward" else f"{name}, shuffled"
        wanted.append((label, int(view["style"]), view[column]))
    crop = crop_fraction(manifest["input"])
    strips = []
    try:
        for label, style, positions in wanted:
            numbers = pick_frames(positions, FRAMES)
            strips.append(make_strip(label, read_frames(root, style, video, numbers), numbers, crop))
    except UserError as error:
        return Example(clip, [], str(error))
    return Example(clip, strips)


def crop_fraction(spec: dict) -> float | None:
    """Return the side of the centre crop as a fraction of a frame's short side; None if there is no crop."""
    size, crop = spec.get("size"), spec.get("crop")
    return crop / size if isinstance(size, int) and isinstance(crop, int) and 0 < crop <= size else None


def make_strip(label: str, frames: NDArray[np.uint8], numbers: list[int], crop: float | None) -> Strip:
    """Crop frames (n, H, W, 3) like the network's input, and join the frames into one picture."""
    if crop is not None:
        height, width = frames.shape[1:3]
        side = crop * min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        frames = frames[:, round(top) : round(top + side), round(left) : round(left + side)]
    sheet = side_by_side(frames, height=HEIGHT)
    return Strip(label, numbers, jpeg_uri(sheet), width=sheet.shape[1], height=sheet.shape[0])
