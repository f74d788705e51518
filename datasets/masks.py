"""Masks of videos: the region of each pixel of a frame, such as background or foreground.

    masks=DIR          DIR/VIDEO/00001.png ..., DIR/VIDEO.npz or DIR/VIDEO.npy: 0 is background, other labels
                       are objects; an image with the values 0 and 255 alone is foreground where it is 255
    masks=FILE.json    annotations in the format of COCO (images) or YouTube-VIS (videos)
    masks=davis        the annotations of a DAVIS data set
    masks=detector     objects that torchvision's Mask R-CNN detects; masks=package.module.function: objects
                       that this function detects (see `detect_masks`)

Videos in all styles share the masks. Where an image has several labels, 255 marks pixels that belong to no
region.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from static_dynamic.errors import UserError
from static_dynamic.files import json_sha256
from static_dynamic.spacing import evenly_spaced

from .clips import ClipList
from .coco_masks import CocoMasks
from .davis import RESOLUTION, DavisClips
from .detect_masks import DETECTOR, detect, is_function
from .mask_files import VOID, FolderMasks
from .mask_frames import BadMasks, FrameNames, MaskSequence, match, size_of
from .pixels import BadFrames
from .views import frame_columns

log = logging.getLogger(__name__)

BACKGROUND, FOREGROUND = "background", "foreground"
DAVIS = "davis"
# Number of masks per clip that are read before a run starts.
CHECKED = 5
# Largest number of objects per video.
MAX_OBJECTS = 64
# Seconds after which a progress bar is shown.
PATIENT = 5

MaskSource = FolderMasks | CocoMasks


@dataclass(frozen=True)
class Masks:
    """The masks of a data set. ``regions`` are the names of the regions, by region number."""

    source: MaskSource
    numbers_of: FrameNames
    regions: tuple[str, ...]
    identity: dict = field(default_factory=dict)

    @property
    def objects(self) -> bool:
        """Whether each object is a region; otherwise all objects are the foreground."""
        return self.regions != (BACKGROUND, FOREGROUND)

    def read(self, video: str, positions: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
        """Return the region number of each pixel of the frames at 0-based `positions`: (n, H, W) uint8.

        `size` (height, width) is that of the frames. A mask of another size is scaled to it if its aspect
        ratio is the same. Pixels of no region have the number `VOID`. Raises BadMasks if a mask is missing,
        unreadable, or has another aspect ratio.
        """
        return np.stack(list(self.read_each(video, positions, positions, size)))

    def read_each(
        self, video: str, positions: Iterable[int], chosen: Iterable[int], size: tuple[int, int]
    ) -> Iterator[NDArray[np.uint8]]:
        """Yield the regions of the frames `chosen`, once it is known that all `positions` have masks."""
        try:
            sequence = self.source.open(video)
            count, numbers = self.numbers_of(video)
            index = match(video, sequence, count, range(count) if self.source.by_position else numbers)
            for k in positions:
                index[k]
            for k in chosen:
                yield self.regions_of(sequence.labels(index[k]), size, video)
        except BadMasks:
            raise
        except BadFrames as error:
            raise BadMasks(error) from error

    def regions_of(self, labels: NDArray, size: tuple[int, int], video: str) -> NDArray[np.uint8]:
        """Return the region number of each label of a mask (H, W), scaled to `size`."""
        (height, width), (wanted_height, wanted_width) = labels.shape, size
        if abs(height * wanted_width - width * wanted_height) > max(height, width, *size):
            raise BadMasks(
                f"masks of {video} have {width}x{height} pixels, its frames {wanted_width}x{wanted_height}: "
                "give masks with the aspect ratio of the frames"
            )
        values = np.unique(labels)
        binary = set(values.tolist()) <= {0, VOID}
        # many labels in an image mean soft edges; a json file may have any number of objects
        largest = MAX_OBJECTS if self.source.kind != CocoMasks.kind else VOID - 1
        if self.objects:
            largest = len(self.regions) - 1
        if values[0] < 0 or (values[values != VOID] > largest).any():
            wrong = values[0] if values[0] < 0 else values[values != VOID][-1]
            raise BadMasks(
                f"masks of {video} have the label {wrong}: labels are 0 to {largest}, and {VOID} for pixels "
                "of no region (images with soft edges hold no labels)"
            )
        regions = labels.astype(np.uint8) if self.objects and not binary else (labels > 0).astype(np.uint8)
        if not binary:
            regions[labels == VOID] = VOID
        if labels.shape == size:
            return regions
        return np.asarray(Image.fromarray(regions).resize(size[::-1], Image.Resampling.NEAREST))

    def check(self, clips: ClipList, views: pd.DataFrame, on_error: str = "error") -> list[tuple[str, str]]:
        """Read some masks of every clip; return (clip, reason) for each clip whose masks cannot be used.

        Raises UserError for the first such clip, unless ``on_error="skip"``, and if no mask has any
        foreground or none has any background. A clip whose frames are unreadable is not checked.
        """
        columns = frame_columns(views)
        faults: dict[str, tuple[str, str]] = {}  # clip -> (video, reason)
        sizes: dict[str, tuple[int, int] | None] = {}
        without: dict[str, list[str]] = {BACKGROUND: [], FOREGROUND: []}
        checked = 0
        groups = views.groupby("clip", sort=False)
        for clip, rows in tqdm(groups, desc="check masks", unit="clip", delay=PATIENT):
            video = str(rows["video"].iloc[0])
            if video not in sizes:
                sizes[video] = size_of(clips, video)
            size = sizes[video]
            if size is None:
                continue
            positions = np.unique(np.concatenate([np.ravel(f) for c in columns for f in rows[c]])).tolist()
            chosen = [positions[k] for k in evenly_spaced(min(CHECKED, len(positions)), len(positions))]
            # the other masks are read only if those that were chosen lack a region
            rest = [k for k in positions if k not in chosen]
            missing = set(without)
            try:
                for done, regions in enumerate(
                    self.read_each(video, positions, chosen + rest, size), start=1
                ):
                    present = {BACKGROUND: (regions == 0).any(), FOREGROUND: (regions % VOID > 0).any()}
                    missing -= {region for region in present if present[region]}
                    if done >= len(chosen) and not missing:
                        break
            except BadFrames as error:
                faults[str(clip)] = (video, str(error))
                continue
            checked += 1
            for region in missing:
                without[region].append(str(clip))
        if faults and on_error != "skip":
            first, text = next(iter(faults.values()))
            others = len({video for video, _ in faults.values()} - {first})
            more = f" (and {others} more videos have such faults)" if others else ""
            raise UserError(
                f"{text}{more}: complete the masks, omit cells and masks, or give on_error=skip to leave "
                "these clips out"
            )
        if faults:
            clip, (_, text) = next(iter(faults.items()))
            log.warning("masks of %d clips cannot be used, the first: %s (%s)", len(faults), clip, text)
        for region, of_clips in without.items():
            if checked and len(of_clips) == checked:
                raise UserError(
                    f"masks={self.source.name}: no mask has any {region}: check labels and folder"
                )
            if of_clips:
                names = f"{of_clips[0]}{' ...' if of_clips[1:] else ''}"
                log.warning("masks: %d of %d clips have no %s: %s", len(of_clips), checked, region, names)
        return [(clip, text) for clip, (_, text) in faults.items()]


def open_masks(
    source: str | None,
    clips: ClipList,
    objects: bool = False,
    folder: Path | None = None,
    device: str | int | None = None,
) -> Masks:
    """Open the masks that the option ``masks`` names, for the videos of `clips`.

    With `objects`, every labelled object is a region of its own; otherwise all objects are the foreground.
    A detector computes on `device` and writes its masks to `folder`. Raises UserError if `source` does not
    exist. Missing and damaged masks of single videos are left to `Masks.check`.
    """
    if source is None:
        raise UserError(
            "cells=mask and cells=objects need masks: give masks=DIR, masks=FILE.json or, with DAVIS, "
            "masks=davis"
        )
    opened = open_source(source, clips, folder, device)
    listing: list[tuple[str, list]] = []
    largest = 1
    videos = list(dict.fromkeys(clip.video for clip in clips.clips))
    for video in tqdm(videos, desc="list masks", unit="video", delay=PATIENT):
        try:
            listing.append((video, opened.listing(video)))
            if objects:
                largest = max(largest, largest_label(opened.open(video), video))
        except BadFrames as error:
            # `Masks.check` reports this video
            log.debug("%s", error)
            listing.append((video, []))
    if isinstance(opened, CocoMasks):
        require_distinct(opened, listing)
        if opened.boxes:
            log.info("masks: %d annotations are boxes, which are used as filled rectangles", opened.boxes)
    identity = {"kind": opened.kind, "name": opened.name, "listing_sha256": json_sha256(listing)}
    names = (f"object {k}" for k in range(1, largest + 1)) if objects else (FOREGROUND,)
    return Masks(opened, FrameNames(clips), (BACKGROUND, *names), identity)


def largest_label(sequence: MaskSequence, video: str) -> int:
    """Return the largest label in the masks of a video, other than `VOID`; at least 1."""
    largest = max(
        (int(labels[labels != VOID].max(initial=1)) for labels in sequence.every_label()), default=1
    )
    if largest > MAX_OBJECTS:
        raise UserError(
            f"masks of {video} have the label {largest}, but cells=objects allows 0 to {MAX_OBJECTS}: "
            "give cells=mask, or masks with fewer objects"
        )
    return largest


def require_distinct(masks: CocoMasks, listing: Iterable[tuple[str, list]]) -> None:
    """Raise UserError if two videos of the data set would have the masks of one video of the json file."""
    taken: dict[str, str] = {}
    for video, found in listing:
        other = taken.setdefault(found[1], video) if found else video
        if other != video:
            raise UserError(
                f"{masks.file}: the masks of {found[1]} fit the videos {other} and {video}: name the videos "
                "in the file like those of the data set"
            )


def open_source(source: str, clips: ClipList, folder: Path | None, device: str | int | None) -> MaskSource:
    """Open the folder or file of masks that `source` names."""
    if source == DAVIS:
        if not isinstance(clips, DavisClips):
            raise UserError(f"masks=davis needs a DAVIS data set: give masks=DIR with dataset={clips.name}")
        root = clips.original_root / "Annotations" / RESOLUTION
        if not root.is_dir():
            raise UserError(
                f"masks=davis: {root} does not exist: copy the annotations of DAVIS to this folder"
            )
        return FolderMasks(root, DAVIS)
    path = Path(source).expanduser()
    if path.is_dir():
        return FolderMasks(path)
    if path.is_file() and path.suffix.lower() == ".json":
        return CocoMasks(path)
    if folder is not None and (source == DETECTOR or is_function(source)):
        return detect(source, clips, folder, device)
    raise UserError(
        f"masks={source} is neither a folder, a json file nor davis, {DETECTOR}, or package.module.function"
    )
