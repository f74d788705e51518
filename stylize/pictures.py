"""Single pictures: stylized, side by side, on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from static_dynamic.errors import UserError
from static_dynamic.files import atomic_path
from static_dynamic.stylize.networks import Generator, stylize_any_size
from static_dynamic.stylize.patches import to_image

SHEET_HEIGHT = 240


@torch.inference_mode()
def run_once(generator: Generator, image: torch.Tensor) -> np.ndarray:
    """Stylize one image (C, H, W) -> (H, W, 3) uint8."""
    device = next(generator.parameters()).device
    return to_image(stylize_any_size(generator.eval(), image[None].to(device))[0])


def contact_sheet(rows: list[list[np.ndarray]], height: int = SHEET_HEIGHT) -> np.ndarray:
    """Images in rows, scaled to one height; short rows end in white."""
    scaled = [
        np.hstack([cv2.resize(i, (round(i.shape[1] * height / i.shape[0]), height)) for i in row])
        for row in rows
    ]
    width = max(row.shape[1] for row in scaled)
    return np.vstack(
        [np.pad(r, ((0, 4), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in scaled]
    )


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a whole RGB image, or nothing."""
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), np.ascontiguousarray(image[..., ::-1])):
            raise UserError(f"{path} could not be written (is the disk full?)")
