"""Small trees in the form of DAVIS that tests make themselves."""

from pathlib import Path

import numpy as np
from PIL import Image

SEQUENCES = {"goat": 6, "kite": 5}
STYLES = ("480p", "Lynx", "Maruska640", "Zuzka1", "Zuzka2")
SIZE = (64, 40)  # width, height


def write_davis(root: Path, styles: int = 2, size: tuple[int, int] = SIZE) -> Path:
    """A list, frames (unstylized and in `styles` styles) and flow pictures of random colours."""
    draw = np.random.default_rng(3)
    lines = []
    for name, count in SEQUENCES.items():
        for t in range(count):
            lines.append(f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png ")
            for style in STYLES[: styles + 1]:
                # at a fifth of the size: what is there survives jpg
                write_picture(root / "JPEGImages" / style / name / f"{t:05d}.jpg", draw, size)
            if t < count - 1:
                write_picture(root / "FlowImages_gap1" / name / f"{t:05d}.png", draw, size)
            if t > 0:
                write_picture(root / "FlowImages_gap-1" / name / f"{t:05d}.png", draw, size)
    (root / "ImageSets" / "480p").mkdir(parents=True)
    (root / "ImageSets" / "480p" / "val.txt").write_text("\n".join(lines) + "\n")
    return root


def write_picture(path: Path, draw: np.random.Generator, size: tuple[int, int]) -> None:
    """One picture of coarse random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = draw.integers(0, 256, (size[1] // 5, size[0] // 5, 3)).astype(np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BILINEAR).save(path)
