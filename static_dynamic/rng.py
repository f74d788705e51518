"""Random numbers that depend only on the seed, the clip and the name of the random choice (`purpose`).

So the number of workers, sharding and the other clips of a list change no random choice. The file
docs/random_streams.md lists every random choice of the project with the seed.
"""

import hashlib

import numpy as np


def generator(seed: int, clip: str, purpose: str) -> np.random.Generator:
    """Return a random generator that depends only on the seed, the clip and the name of the random choice."""
    return np.random.default_rng(list(digest(seed, clip, purpose)))


def digest(seed: int, clip: str, purpose: str) -> bytes:
    """Return 32 pseudorandom bytes that depend only on the seed, the clip and the name of the choice."""
    return hashlib.sha256(f"{seed}|{clip}|{purpose}".encode()).digest()
