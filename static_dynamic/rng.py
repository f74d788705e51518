"""Random generators that depend only on the seed, the clip and the purpose of the numbers.

Results therefore do not depend on the number of workers or on which other clips are listed.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, clip: str, purpose: str) -> np.random.Generator:
    """Return the random generator of one clip for one purpose."""
    return np.random.default_rng(list(digest(seed, clip, purpose)))


def digest(seed: int, clip: str, purpose: str) -> bytes:
    """Return 32 pseudorandom bytes for one clip and one purpose."""
    return hashlib.sha256(f"{seed}|{clip}|{purpose}".encode()).digest()
