"""Masks of videos: the region of each pixel of a frame, such as background or foreground.

    masks=DIR          DIR/VIDEO/00001.png ..., DIR/VIDEO.npz or DIR/VIDEO.npy: 0 is background, other labels
                       are objects; an image with the values 0 and 255 alone is foreground where it is 255
    masks=FILE.json    annotations in the format of COCO (images) or YouTube-VIS (videos)
    masks=davis        the annotations of a DAVIS data set

Videos in all styles share the masks. Where an image has several labels, 255 marks pixels that belong to no
region.
"""

import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from static_dynamic.errors import UserError, reason
from static_dynamic.files import json_sha256
from static_dynamic.spacing import evenly_spaced

from .clips import ClipList
from .coco_masks import CocoMasks, CocoSequence
from .davis import RESOLUTION, DavisClips
from .discovery import points_outside
from .frames import FrameFolder
from .numbering import frame_numbers
from .pixels import MAX_FRAMES, MAX_PIXELS, BadFrames

log = logging.getLogger(__name__)

BACKGROUND, FOREGROUND = "background", "foreground"
DAVIS = "davis"
# Label of pixels that belong to no region, in images with other labels than 0 and 255.
VOID = 255
# Number of masks per clip that are read before a run starts.
CHECKED = 5
# Largest number of objects per video.
MAX_OBJECTS = 64
MODES = ("1", "L", "P", "I", "I;16")


@dataclass(frozen=True)
class Masks:
    """The masks of a data set. ``regions`` are the names of the regions, by region number."""

    source: "MaskSource"
    # video -> frame numbers in the names of its frames; None if they have no names, as in video files
    numbers_of: Callable[[str], tuple[int, Sequence[int] | None]]
    regions: tuple[str, ...]
    identity: dict = field(default_factory=dict)

    def read(self, video: str, positions: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the region number of each pixel of the frames at 0-based `positions`: (n, H, W) uint8.

        `size` (height, width) is that of the frames. A mask of another size is scaled to it if its aspect
        ratio is the same. Pixels of no region have the number `VOID`. Raises BadFrames if a mask is missing,
        unreadable, or has another aspect ratio.
        """
        sequence = self.source.open(video)
        index = match(video, sequence, *self.numbers_of(video))
        return np.stack([self.regions_of(sequence.labels(index[k]), size, video) for k in positions])

    def regions_of(self, labels: NDArray, size: tuple[int, int], video: str) -> NDArray[np.uint8]:
        """Return the region number of each label of a mask (H, W), scaled to `size`."""
        (height, width), (wanted_height, wanted_width) = labels.shape, size
        if abs(height * wanted_width - width * wanted_height) > max(height, width, *size):
            raise BadFrames(
                f"masks of {video} have {width}x{height} pixels, its frames {wanted_width}x{wanted_height}: "
                "give masks with the aspect ratio of the frames"
            )
        values = np.unique(labels)
        if len(values) and (values[0] < 0 or (values[values != VOID] > MAX_OBJECTS).any()):
            raise BadFrames(
                f"masks of {video} have the label {values[[0, -1]]}: labels are 0 to {MAX_OBJECTS}"
            )
        binary = set(values.tolist()) <= {0, VOID}
        objects = len(self.regions) > 2 or self.regions[-1] != FOREGROUND
        regions = labels.astype(np.uint8) if objects else (labels > 0).astype(np.uint8)
        if binary:
            regions = (labels > 0).astype(np.uint8)
        else:
            regions[labels == VOID] = VOID
        if labels.shape == size:
            return regions
        return np.asarray(Image.fromarray(regions).resize(size[::-1], Image.Resampling.NEAREST))

    def check(self, clips: ClipList, views: pd.DataFrame) -> None:
        """Read some masks of every clip; raise UserError for the first clip whose masks cannot be used.

        Also raises UserError if no mask that was read has a foreground, or none has a background.
        """
        frames = next(column for column in views if str(column).startswith("frames_"))
        found = np.zeros(2, int)
        faults: list[str] = []
        shown = views.drop_duplicates("clip")
        for row in tqdm(
            shown.itertuples(), total=len(shown), desc="check masks", unit="clip", disable=len(shown) < 50
        ):
            positions = sorted({int(k) for k in np.ravel(getattr(row, str(frames)))})
            chosen = [positions[k] for k in evenly_spaced(min(CHECKED, len(positions)), len(positions))]
            try:
                sequence = self.source.open(row.video)
                index = match(row.video, sequence, *self.numbers_of(row.video))
                for k in positions:
                    index[k]
                regions = [self.read(row.video, [k], size_of(clips, row.video)) for k in chosen]
            except BadFrames as error:
                faults.append(str(error))
                continue
            found += [
                any((part == 0).any() for part in regions),
                any((part % VOID > 0).any() for part in regions),
            ]
        if faults:
            more = f" (and {len(faults) - 1} more clips)" if len(faults) > 1 else ""
            raise UserError(f"{faults[0]}{more}: complete the masks, or omit cells and masks")
        for count, region in zip(found, (BACKGROUND, FOREGROUND), strict=True):
            if not count:
                raise UserError(
                    f"masks={self.source.name}: no mask has any {region}: check labels and folder"
                )
            if count < len(shown):
                log.warning("masks: %d of %d clips have no %s", len(shown) - count, len(shown), region)


def size_of(clips: ClipList, video: str) -> tuple[int, int]:
    """Return height and width of the frames of a video."""
    if isinstance(clips, DavisClips):
        width, height = clips.sizes[video]
        return height, width
    return clips.frames_of(video, clips.styles[0]).read([0]).shape[1:3]


class Index(dict):
    """A dict: position of a frame -> index of its mask. A missing mask raises BadFrames."""

    def __init__(self, video: str, found: dict[int, int], missing: int):
        super().__init__(found)
        self.video, self.missing = video, missing

    def __missing__(self, position: int) -> int:
        raise BadFrames(
            f"video {self.video} has no mask for frame {position} (counted from 0), and {self.missing} "
            "frames have none"
        )


def match(video: str, masks: "MaskSequence", count: int, numbers: Sequence[int] | None) -> Index:
    """Find the mask of each of the `count` frames of a video, whose names hold the frame numbers `numbers`.

    Masks whose names hold the numbers of the frames belong to these frames. Otherwise there must be one mask
    per frame, in the same order.
    """
    if numbers is not None and masks.numbers is not None:
        where = {number: k for k, number in enumerate(masks.numbers)}
        found = {k: where[number] for k, number in enumerate(numbers) if number in where}
        if len(found) == len(where) or len(masks) != count:
            return Index(video, found, count - len(found))
    if len(masks) != count:
        raise BadFrames(f"video {video} has {count} frames but {len(masks)} masks: give one mask per frame")
    return Index(video, {k: k for k in range(count)}, 0)


@dataclass(frozen=True)
class FolderMasks:
    """Masks in a folder: images in ``ROOT/VIDEO/``, or an array in ``ROOT/VIDEO.npz`` or ``.npy``."""

    root: Path

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.root.name

    def open(self, video: str) -> "ImageMasks | ArrayMasks":
        """Open the masks of a video; raise BadFrames if there are none."""
        path = self.path(video)
        return ImageMasks(path) if path.is_dir() else _open_array(path)

    def path(self, video: str) -> Path:
        """Return the folder or the array file that holds the masks of a video."""
        if points_outside(video):
            raise BadFrames(f"the video name {video!r} leads outside the folder of masks")
        folder = self.root / video
        for path in (folder, folder.with_name(f"{folder.name}.npz"), folder.with_name(f"{folder.name}.npy")):
            if path.exists():
                return path
        raise BadFrames(f"video {video} has no masks: {folder} (or .npz, .npy) does not exist")

    def listing(self, video: str) -> list:
        """Return names and sizes of the files with a video's masks."""
        path = self.path(video)
        files = [path / name for name in ImageMasks(path).names] if path.is_dir() else [path]
        return [(file.name, file.stat().st_size) for file in files]


class ImageMasks(FrameFolder):
    """Masks of one video as images with one label per pixel."""

    def labels(self, index: int) -> NDArray:
        """Return the labels (H, W) of one image."""
        return read_labels(self.path / self.names[index])


class ArrayMasks:
    """Masks of one video as an array (n, H, W)."""

    numbers = None

    def __init__(self, array: NDArray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def labels(self, index: int) -> NDArray:
        """Return the labels (H, W) of one mask."""
        return self.array[index].astype(np.int64)


@cache
def _open_array(path: Path) -> ArrayMasks:
    """Read the masks of one video from an array file; raise BadFrames if they are not labels (n, H, W)."""
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        if not isinstance(found, np.ndarray):
            (array,) = (found[name] for name in found.files[:2])
            found = array
    except (OSError, ValueError, EOFError, zlib.error, KeyError) as error:
        raise BadFrames(f"{path} is not an array of masks ({reason(error)})") from error
    if (
        found.ndim != 3
        or found.dtype.kind not in "biu"
        or found[0].size > MAX_PIXELS
        or len(found) > MAX_FRAMES
    ):
        raise BadFrames(
            f"{path} holds {found.dtype} {found.shape}, but labels (frames, height, width) are needed"
        )
    return ArrayMasks(found)


def read_labels(file: Path) -> NDArray:
    """Read an image with one label per pixel, such as a palette image; return the labels (H, W)."""
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadFrames(f"{file} claims {image.width}x{image.height} pixels: too large")
            if image.mode not in MODES:
                raise BadFrames(f"{file} is a colour image ({image.mode}): masks are palette or grey images")
            return np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFrames(f"{file} is not a readable image ({reason(error)})") from error


MaskSequence = ImageMasks | ArrayMasks | CocoSequence
MaskSource = FolderMasks | CocoMasks


def open_masks(source: str | None, clips: ClipList, objects: bool = False) -> Masks:
    """Open the masks that the option ``masks`` names, for the videos of `clips`.

    With `objects`, every labelled object is a region of its own; otherwise all objects are the foreground.
    Raises UserError if `source` does not exist, or if a video has no masks.
    """
    if source is None:
        raise UserError(
            "cells=mask and cells=objects need masks: give masks=DIR, masks=FILE.json or, with DAVIS, "
            "masks=davis"
        )
    opened = open_source(source, clips)
    videos = list(dict.fromkeys(clip.video for clip in clips.clips))
    listing = [(video, opened.listing(video)) for video in videos]
    identity = {"name": opened.name, "listing_sha256": json_sha256(listing)}
    regions: tuple[str, ...] = (BACKGROUND, FOREGROUND)
    if objects:
        most = max(largest_label(opened, video) for video in videos)
        regions = (BACKGROUND, *(f"object {k}" for k in range(1, most + 1)))
    return Masks(opened, cache(lambda video: names_of(clips, video)), regions, identity)


def largest_label(source: MaskSource, video: str) -> int:
    """Return the largest label in evenly spaced masks of a video, other than `VOID`."""
    sequence = source.open(video)
    chosen = evenly_spaced(min(CHECKED, len(sequence)), len(sequence))
    labels = np.concatenate([np.unique(sequence.labels(int(k))) for k in chosen])
    return max(1, int(labels[labels != VOID].max(initial=1)))


def open_source(source: str, clips: ClipList) -> MaskSource:
    """Open the folder or file of masks that `source` names."""
    if source == DAVIS:
        if not isinstance(clips, DavisClips):
            raise UserError(f"masks=davis needs a DAVIS data set: give masks=DIR with dataset={clips.name}")
        return FolderMasks(clips.original_root / "Annotations" / RESOLUTION)
    path = Path(source).expanduser()
    if path.is_dir():
        return FolderMasks(path)
    if path.is_file() and path.suffix == ".json":
        return CocoMasks(path)
    raise UserError(f"masks={source} is neither a folder, a json file nor davis")


def names_of(clips: ClipList, video: str) -> tuple[int, Sequence[int] | None]:
    """Return the number of frames of a video, and the frame numbers in their names (None without names)."""
    if isinstance(clips, DavisClips):
        names = clips.names[video]
        return len(names), frame_numbers(names, Path(video))
    frames = clips.frames_of(video, clips.styles[0])
    return len(frames), getattr(frames, "numbers", None)
