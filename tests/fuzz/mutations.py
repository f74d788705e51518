"""Mutations of the bytes of any file."""

from collections.abc import Callable

import numpy as np

NUMBERS = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**50, 2**63 - 1, 2**64 - 1)
ENDS = 400  # bytes at both ends of a file, where many formats keep their headers


def place(rng: np.random.Generator, data: bytes) -> int:
    """Draw a position; half of the draws are near the ends of the file."""
    at = int(rng.integers(len(data)))
    near = min(int(rng.integers(ENDS)), len(data) - 1)
    return (at, near, at, len(data) - 1 - near)[rng.integers(4)]


def flip_bits(rng: np.random.Generator, data: bytes) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(data)
    for _ in range(2 ** int(rng.integers(4))):
        changed[place(rng, data)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut_off(rng: np.random.Generator, data: bytes) -> bytes:
    """Keep the beginning of the file."""
    return data[: place(rng, data)]


def overwrite(rng: np.random.Generator, data: bytes) -> bytes:
    """Overwrite up to 64 bytes with zeros, ones or noise."""
    at, count = place(rng, data), int(rng.integers(1, 65))
    count = min(count, len(data) - at)
    noise = rng.bytes(count)
    return data[:at] + (bytes(count), b"\xff" * count, noise)[rng.integers(3)] + data[at + count :]


def move(rng: np.random.Generator, data: bytes) -> bytes:
    """Remove, repeat or insert up to 64 bytes."""
    at, count = place(rng, data), int(rng.integers(1, 65))
    piece = (b"", data[at : at + count] * 2, rng.bytes(count) + data[at : at + count])[rng.integers(3)]
    return data[:at] + piece + data[at + count :]


def change_number(rng: np.random.Generator, data: bytes) -> bytes:
    """Replace 2, 4 or 8 bytes with an extreme integer."""
    size = (2, 4, 8)[rng.integers(3)]
    at = max(min(place(rng, data), len(data) - size), 0)
    number = NUMBERS[rng.integers(len(NUMBERS))] % 2 ** (8 * size)
    return data[:at] + number.to_bytes(size, ("little", "big")[rng.integers(2)]) + data[at + size :]


MUTATIONS: dict[str, Callable[[np.random.Generator, bytes], bytes]] = {
    "flipped bits": flip_bits,
    "cut off": cut_off,
    "overwritten bytes": overwrite,
    "moved bytes": move,
    "changed numbers": change_number,
}
