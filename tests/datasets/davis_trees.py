"""Small folder trees in the layout of DAVIS, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

SEQUENCES = {"goat": 6, "kite": 5}
STYLES = ("480p", "Lynx", "Maruska640", "Zuzka1", "Zuzka2")
SIZE = (64, 40)  # width, height


def write_davis(root: Path, styles: int = 2, size: tuple[int, int] = SIZE) -> Path:
    """Write a list, frames (unstylized and in `styles` styles) and flow images of random colours."""
    rng = np.random.default_rng(3)
    lines = []
    for name, count in SEQUENCES.items():
        for t in range(count):
            lines.append(f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png ")
            for style in STYLES[: styles + 1]:
                # coarse at a fifth of the size, so that the colours survive jpg compression
                write_picture(root / "JPEGImages" / style / name / f"{t:05d}.jpg", rng, size)
            if t < count - 1:
                write_picture(root / "FlowImages_gap1" / name / f"{t:05d}.png", rng, size)
            if t > 0:
                write_picture(root / "FlowImages_gap-1" / name / f"{t:05d}.png", rng, size)
    (root / "ImageSets" / "480p").mkdir(parents=True)
    (root / "ImageSets" / "480p" / "val.txt").write_text("\n".join(lines) + "\n")
    return root


def write_picture(path: Path, rng: np.random.Generator, size: tuple[int, int]) -> None:
    """Write an image of coarse random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 256, (size[1] // 5, size[0] // 5, 3)).astype(np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BILINEAR).save(path)
