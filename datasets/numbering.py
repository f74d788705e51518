"""Find the frame number in the names of a video's images.

A name may hold several numbers: ``frame12_640x480.png``, ``img (1).png``, ``img_12_v2.png``. The frame number
is the number that differs from frame to frame. Frames in a wrong order would look like shuffled frames, so
names that allow two orders are refused.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from .pixels import BadFrames

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
DIGITS = re.compile(r"\d+")
MAX_DIGITS = 20


def is_image(name: str) -> bool:
    """Return whether a file name has a known image suffix and is not hidden."""
    return name[-5:].lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def frame_numbers(names: Sequence[str], path: Path) -> list[int]:
    """Return the frame number in each image name; `path` names the video in error messages.

    Raises BadFrames if a name has more or fewer numbers than most names, or if the names allow several orders
    of the frames.
    """
    plain = _only_number(names)
    if plain:
        return plain
    found = [DIGITS.findall(os.path.splitext(name)[0] if is_image(name) else name) for name in names]
    count = Counter(map(len, found)).most_common(1)[0][0] if found else 0
    for name, digits in zip(names, found, strict=True):
        if len(digits) != count:
            raise BadFrames(
                f"{path}: the name {name!r} is not numbered like most of the frames: rename this image, or "
                "move it to another folder"
            )
    if found and not count:
        raise BadFrames(f"{path}: image names such as {names[0]!r} hold no number: rename the images")
    try:
        rows = [tuple(map(int, digits)) for digits in found]
    except ValueError as error:  # int() refuses texts of thousands of digits
        raise BadFrames(f"{path}: the number in the name of a frame is too long") from error
    distinct = sorted(set(rows))
    position = _position(list(zip(*distinct, strict=True)))
    if position is None:
        raise BadFrames(
            f"{path}: image names such as {names[0]!r} allow several orders of the frames: "
            "rename the images to 000001, 000002 and so on"
        )
    return [row[position] for row in rows]


def _only_number(names: Sequence[str]) -> list[int]:
    """Return the frame numbers if the names differ in only one number; else return an empty list.

    This is the common case, and many times faster than comparing all numbers.
    """
    first, last = min(names, default=""), max(names, default="")
    # length of the prefix that all names share
    start = len(os.path.commonprefix([first, last]))
    while start and first[start - 1].isdecimal():
        start -= 1
    digits = DIGITS.match(first, start)
    if not digits or digits.end() - start > MAX_DIGITS or first == last:
        return []
    tail = first[digits.end() :]
    texts = [name[start : len(name) - len(tail)] for name in names if name.endswith(tail)]
    sound = len(texts) == len(names) and all(text.isdecimal() and len(text) <= MAX_DIGITS for text in texts)
    return list(map(int, texts)) if sound else []


def _position(columns: list[tuple[int, ...]]) -> int | None:
    """Return which of the numbers in an image name is the frame number; None if this is ambiguous.

    A column holds one number per frame. The frame number differs between all frames; a column without gaps
    takes precedence over a column with gaps, such as a time stamp or a score.
    """
    varying = [k for k, column in enumerate(columns) if len(set(column)) > 1]
    if not varying:
        return len(columns) - 1
    keys = [k for k in varying if len(set(columns[k])) == len(columns[k])]
    dense = [k for k in keys if max(columns[k]) - min(columns[k]) == len(columns[k]) - 1]
    rivals = [k for k in varying if k in dense or k not in keys] if dense else varying
    for key in dense or keys:
        order = sorted(range(len(columns[key])), key=columns[key].__getitem__)
        if any(_is_out_of_order([columns[k][i] for i in order]) for k in rivals):
            return None
    return next(iter(dense or keys), None)


def _is_out_of_order(values: list[int]) -> bool:
    """Return whether the values are not in ascending order, although equal values are always adjacent.

    Such values, for example the minutes of time stamps, show that the frames are in the wrong order. Values
    that recur later, such as the seconds of a clock or a score, say nothing about the order.
    """
    blocks = [value for value, _ in groupby(values)]
    return len(set(blocks)) == len(blocks) and blocks != sorted(blocks)
