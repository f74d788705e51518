"""Random generators that depend on the seed, a clip and a purpose alone: neither on the number of workers
nor on the other clips."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, clip: str, purpose: str) -> np.random.Generator:
    """The random generator of one clip for one purpose."""
    return np.random.default_rng(list(digest(seed, clip, purpose)))


def digest(seed: int, clip: str, purpose: str) -> bytes:
    """32 bytes that look random."""
    return hashlib.sha256(f"{seed}|{clip}|{purpose}".encode()).digest()
