"""Videos whose motion is known exactly: windows that slide over a smooth texture."""

import cv2
import numpy as np


def texture(seed: int, height: int, width: int, blur: float = 2.5) -> np.ndarray:
    """Smooth random colour picture (H, W, 3) float32 in 0..255."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), blur), None, 0, 255, cv2.NORM_MINMAX)


def translation(
    n: int, step: tuple[float, float], height: int = 96, width: int = 128, seed: int = 0
) -> np.ndarray:
    """A picture that moves by `step` (right, down) pixels a frame: (n, H, W, 3) uint8, interpolated."""
    margin = 8 + int(np.ceil(n * max(map(abs, step))))
    whole = texture(seed, height + 2 * margin, width + 2 * margin)
    frames = []
    for t in range(n):
        matrix = np.float32([[1, 0, t * step[0] - margin], [0, 1, t * step[1] - margin]])
        frames.append(cv2.warpAffine(whole, matrix, (width, height), flags=cv2.INTER_CUBIC))
    return np.clip(np.round(frames), 0, 255).astype(np.uint8)
