"""Find the mask of each frame of a video, by the numbers in the names of frames and masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .clips import ClipList
from .coco_masks import CocoSequence
from .davis import DavisClips
from .mask_files import ArrayMasks, ImageMasks, repeated
from .numbering import frame_numbers
from .pixels import BadFrames

MaskSequence = ImageMasks | ArrayMasks | CocoSequence


class BadMasks(BadFrames):
    """Exception for the masks of a video that cannot be used. A run may skip the video."""


@dataclass(frozen=True)
class FrameNames:
    """The numbers in the names of the frames of each video of `clips`."""

    clips: ClipList
    found: dict[str, tuple[int, Sequence[int] | None]] = field(default_factory=dict, repr=False)

    def __call__(self, video: str) -> tuple[int, Sequence[int] | None]:
        """Return number of frames and their numbers; None for the numbers of frames in a video file."""
        if video not in self.found:
            self.found[video] = names_of(self.clips, video)
        return self.found[video]


def names_of(clips: ClipList, video: str) -> tuple[int, Sequence[int] | None]:
    """Return the number of frames of a video, and the frame numbers in their names (None without names)."""
    if isinstance(clips, DavisClips):
        names = clips.names[video]
        return len(names), frame_numbers(names, Path(video))
    for style in clips.styles:
        try:
            frames = clips.frames_of(video, style)
            return len(frames), getattr(frames, "numbers", None)
        except BadFrames:
            if style == clips.styles[-1]:
                raise
    raise AssertionError("a data set has at least one style")


def size_of(clips: ClipList, video: str) -> tuple[int, int] | None:
    """Return height and width of the frames of a video; None if its frames are unreadable."""
    if isinstance(clips, DavisClips):
        width, height = clips.sizes[video]
        return height, width
    for style in clips.styles:
        try:
            height, width = clips.frames_of(video, style).read([0]).shape[1:3]
        except BadFrames:
            continue
        return height, width
    return None


class Index(dict):
    """A dict: position of a frame -> index of its mask. A missing mask raises BadMasks."""

    def __init__(self, video: str, found: dict[int, int], count: int):
        super().__init__(found)
        self.video, self.count = video, count

    def __missing__(self, position: int) -> int:
        raise BadMasks(
            f"video {self.video} has no mask for frame {position} (counted from 0); {self.count - len(self)} "
            f"of its {self.count} frames have none, and masks are not interpolated"
        )


def match(video: str, masks: MaskSequence, count: int, numbers: Sequence[int] | None) -> Index:
    """Find the mask of each of the `count` frames of a video, whose names hold the frame numbers `numbers`.

    Masks whose names hold the numbers of the frames belong to these frames. Otherwise there must be one mask
    per frame, in the same order.
    """
    own = masks.numbers
    if own is not None and (twice := repeated(own)) is not None:
        raise BadMasks(f"video {video} has two masks for the frame number {twice}")
    if numbers is not None and own is not None:
        where = {number: k for k, number in enumerate(own)}
        found = {k: where[number] for k, number in enumerate(numbers) if number in where}
        # frames 1 to 4 and masks 0 to 2 may be counted differently: the numbers would give wrong masks
        shifted = own and numbers and own[0] < numbers[0] and own[-1] < numbers[-1]
        if len(found) in (len(where), count) or (len(masks) != count and not shifted):
            return Index(video, found, count)
        if len(masks) != count:
            raise BadMasks(
                f"video {video} has frames {numbers[0]} to {numbers[-1]}, but masks {own[0]} to {own[-1]}, "
                f"and {count - len(found)} frames have no mask of their number (name masks like frames)"
            )
    if len(masks) != count:
        raise BadMasks(f"video {video} has {count} frames but {len(masks)} masks: give one mask per frame")
    return Index(video, {k: k for k in range(count)}, count)
