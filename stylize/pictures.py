"""Single stylized images, and contact sheets of images."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from static_dynamic.stylize.flow import Frame
from static_dynamic.stylize.networks import Generator, stylize_any_size
from static_dynamic.stylize.patches import to_image

SHEET_HEIGHT = 240


@torch.inference_mode()
def run_once(generator: Generator, image: torch.Tensor) -> Frame:
    """Stylize one image: (C, H, W) in [-1, 1] -> (H, W, 3) uint8."""
    device = next(generator.parameters()).device
    return to_image(stylize_any_size(generator.eval(), image[None].to(device))[0])


def contact_sheet(rows: list[list[Frame]], height: int = SHEET_HEIGHT) -> Frame:
    """Arrange rows of images, all scaled to one height; fill short rows with white."""
    scaled = [
        np.hstack([cv2.resize(i, (round(i.shape[1] * height / i.shape[0]), height)) for i in row])
        for row in rows
    ]
    width = max(row.shape[1] for row in scaled)
    return np.vstack(
        [np.pad(r, ((0, 4), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in scaled]
    )
