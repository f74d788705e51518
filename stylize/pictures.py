"""Convert images to tensors and back, stylize one image, and make contact sheets (grids of images)."""

import cv2
import numpy as np
import torch
from torch import Tensor

from static_dynamic.stylize.flow import Frame
from static_dynamic.stylize.networks import Generator, stylize_any_size

SHEET_HEIGHT = 240


def to_tensor(image: Frame) -> Tensor:
    """Convert an image (H, W, 3) uint8 to a tensor (3, H, W) in [-1, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 127.5 - 1


def to_image(image: Tensor) -> Frame:
    """Convert a tensor (3, H, W) in [-1, 1] to an image (H, W, 3) uint8; truncate values, do not round."""
    return ((image.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()


@torch.inference_mode()
def run_once(generator: Generator, image: Tensor) -> Frame:
    """Stylize one image: tensor (C, H, W) in [-1, 1] -> image (H, W, 3) uint8."""
    device = next(generator.parameters()).device
    return to_image(stylize_any_size(generator.eval(), image[None].to(device))[0])


def contact_sheet(rows: list[list[Frame]], height: int = SHEET_HEIGHT) -> Frame:
    """Scale images to equal height and arrange the images in rows; pad short rows with white."""
    scaled = [
        np.hstack([cv2.resize(i, (round(i.shape[1] * height / i.shape[0]), height)) for i in row])
        for row in rows
    ]
    width = max(row.shape[1] for row in scaled)
    margins = [((0, 4), (0, width - row.shape[1]), (0, 0)) for row in scaled]
    return np.vstack([np.pad(row, m, constant_values=255) for row, m in zip(scaled, margins, strict=True)])
