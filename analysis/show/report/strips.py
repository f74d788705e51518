"""What the network saw, as a reader sees it: a few frames of a few clips, read again from the data set."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from static_dynamic.datasets.clips import style_folder
from static_dynamic.datasets.discovery import find_video
from static_dynamic.datasets.frames import open_frames
from static_dynamic.errors import UserError

FRAMES, SIDE, GAP, QUALITY = 5, 112, 3, 80


@dataclass(frozen=True)
class Strip:
    """Frames side by side: what they are, their numbers, and the picture as a ``data:`` address."""

    label: str
    numbers: list[int]
    picture: str
    width: int
    height: int


@dataclass(frozen=True)
class Example:
    """The strips of one clip, or why there are none."""

    clip: str
    strips: list[Strip]
    missing: str = ""


def examples(manifest: dict, views: pd.DataFrame, count: int = 2) -> list[Example]:
    """Strips of `count` clips, evenly over the list: the original where it lies beside the styles, each
    style, and the first style in another order; none of networks that see optical flow."""
    if "Flow" in manifest["input"]["pathways"]:
        return []
    clips = list(dict.fromkeys(views["clip"]))
    chosen = [clips[int(k)] for k in np.linspace(0, len(clips) - 1, min(count, len(clips)))]
    return [example(manifest, views[views["clip"] == clip], clip) for clip in chosen]


def example(manifest: dict, views: pd.DataFrame, clip: str) -> Example:
    """The strips of one clip, whose `views` these are."""
    root = Path(manifest["root"])
    first = views.iloc[0]
    column = max((c for c in views if c.startswith("frames_")), key=lambda c: len(first[c]))
    wanted = []
    if (root / "style_0").is_dir() and not (views["style"] == 0).any():
        wanted.append(("original", 0, first[column]))
    for order in ("forward", "shuffled"):
        shown = views[views["order"] == order].sort_values("style")
        for _, view in shown.iloc[: 1 if order == "shuffled" else None].iterrows():
            name = f"style {view['style']}" if view["style"] else "original"
            label = name if order == "forward" else f"{name}, shuffled"
            wanted.append((label, int(view["style"]), view[column]))
    crop = crop_of(manifest["input"])
    try:
        strips = [
            strip(label, read(root, style, first["video"], picked(frames)), picked(frames), crop)
            for label, style, frames in wanted
        ]
    except UserError as error:
        return Example(clip, [], str(error))
    return Example(clip, strips)


def picked(frames: NDArray) -> list[int]:
    """Frame numbers evenly over a view, in its order."""
    return [int(frames[int(k)]) for k in np.linspace(0, len(frames) - 1, min(FRAMES, len(frames)))]


def read(root: Path, style: int, video: str, frames: list[int]) -> NDArray[np.uint8]:
    """Frames of one video, (n, H, W, 3)."""
    return open_frames(find_video(style_folder(root, style), video)).read(frames)


def crop_of(spec: dict) -> float | None:
    """The side of the centre crop as a part of the short side; None where all of a frame is seen."""
    size, crop = spec["size"], spec["crop"]
    return crop / size if isinstance(size, int) and isinstance(crop, int) else None


def strip(label: str, frames: NDArray[np.uint8], numbers: list[int], crop: float | None) -> Strip:
    """Frames (n, H, W, 3) side by side, cropped as the network's are."""
    pictures = []
    for frame in map(Image.fromarray, frames):
        if crop is not None:
            side = crop * min(frame.size)
            left, top = (frame.width - side) / 2, (frame.height - side) / 2
            frame = frame.crop((round(left), round(top), round(left + side), round(top + side)))
        width = max(1, round(frame.width * SIDE / frame.height))
        pictures.append(frame.resize((width, SIDE), Image.Resampling.LANCZOS))
    width = sum(p.width + GAP for p in pictures) - GAP
    sheet = Image.new("RGB", (width, SIDE), "white")
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (k * (picture.width + GAP), 0))
    with io.BytesIO() as file:
        sheet.save(file, "JPEG", quality=QUALITY)
        address = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return Strip(label, numbers, address, *sheet.size)
