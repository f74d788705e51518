"""Inputs and weights that the golden files of the atlas were computed with; also used by the tests."""

import zlib

import numpy as np

# Network -> shape (T, H, W, 3) of the clip of its golden file.
CLIPS = {
    "physnet": (16, 32, 32, 3),
    "tscan": (40, 36, 36, 3),
    "efficientphys": (16, 72, 72, 3),
    "physformer": (8, 128, 128, 3),
    "transnetv2": (24, 27, 48, 3),
}


def clip(network):
    """Return random bytes (T, H, W, 3), which drift in brightness from frame to frame."""
    shape = CLIPS[network]
    rng = np.random.default_rng(zlib.crc32(network.encode()))
    drift = np.linspace(0, 60, shape[0])[:, None, None, None]
    return (rng.integers(0, 196, shape) + drift).astype(np.uint8)


def weights(name, shape):
    """Return random weights of a variable of the file: kernels with 2 or more axes, or positive vectors."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1:
        return (0.5 + rng.random(shape)).astype(np.float32)
    return (rng.uniform(-1, 1, shape) * np.sqrt(3 / np.prod(shape[:-1]))).astype(np.float32)
