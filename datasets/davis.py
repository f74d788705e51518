"""List the frames of DAVIS that have optical flow, for networks that segment video objects.

A clip is one frame of a sequence in one style, with the flow to its neighbours. Networks that see two frames
add a second frame of the same sequence.

    ROOT/ImageSets/480p/val.txt                          frames; the last frame of a sequence has no flow
    ROOT/FlowImages_gap1/SEQUENCE/00000.png              flow of the unstylized video to the next frame
    ROOT/FlowImages_gap-1/SEQUENCE/00001.png             flow to the previous frame, for networks that see it
    STYLIZED_ROOT/JPEGImages/STYLE/SEQUENCE/00000.jpg    frames in one style

``python misc/prepare_davis.py`` makes these files from a download of DAVIS. In the cinematogram data set
every frame of a sequence is a folder of frames: ``SEQUENCE/00000/00000.jpg``.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from omegaconf import DictConfig
from PIL import Image

from static_dynamic.errors import UserError, nearest, quoted

from .clips import Clip, ClipList
from .discovery import points_outside
from .frames import BadFrames

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from .flow_batches import FlowBatches
    from .loader import Decoded

# Name of the DAVIS folders that hold unstylized frames, masks and split lists.
RESOLUTION = "480p"
# Folders of the flow images: the first for flow to the next frame, the second to the previous frame.
FLOW_FOLDERS = ("FlowImages_gap1", "FlowImages_gap-1")
PREPARE = "python misc/prepare_davis.py"
# Largest allowed relative difference between the aspect ratios of a frame and its flow image.
SHAPE_TOLERANCE = 0.02


@dataclass(frozen=True)
class FrameClip(Clip):
    """A clip of one frame; ``first`` is its index among the video's `video_length` frames that have flow."""

    video_length: int = 0


@dataclass(frozen=True)
class DavisClips(ClipList):
    """A `ClipList` with one clip per DAVIS frame; the frame must have all flow images that the network needs.

    ``root`` holds the frames in all styles, ``rows_per_view`` is the number of frames that the network sees.
    """

    # Folder with the split lists, unstylized frames and flow images.
    original_root: Path = Path()
    # Folder name of each style; the index is the style id.
    style_folders: tuple[str, ...] = ()
    # Folders of the flow images that the network sees.
    flows: tuple[str, ...] = FLOW_FOLDERS[:1]
    # Video -> names of its frames, without suffix.
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    # Video -> (width, height) of its frames.
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def paths_of(self, video: str, style: int) -> list[Path]:
        """Return the folder of a video's frames in one style, and the folders of the video's flow images."""
        return [self.image_folder(video, style), *(self.original_root / flow / video for flow in self.flows)]

    def batches(self, views: pd.DataFrame, rows: NDArray, batch_rows: int, spec) -> FlowBatches:
        """Return the rows `rows` of the table `views` as a `FlowBatches`, in batches of `batch_rows`."""
        # avoids a circular import: flow_batches.py imports davis.py
        from .flow_batches import FlowBatches

        return FlowBatches(self, views, rows, batch_rows, spec.shape)

    def to_inputs(self, batch: list[Decoded], spec, device: torch.device) -> dict[str, Tensor]:
        """Convert a decoded batch to the dict of network inputs that `flow_inputs` returns."""
        from .flow_batches import flow_inputs

        return flow_inputs(batch, spec, device)

    def to_masks(self, batch: list[Decoded], spec, device: torch.device) -> dict[str, Tensor]:
        """Convert the masks of a decoded batch to the dict of masks that `flow_masks` returns."""
        from .flow_batches import flow_masks

        assert self.masks is not None
        return flow_masks(batch, spec, device, len(self.masks.regions))

    @property
    def listing_sha256(self) -> str:
        """SHA-256 of styles, style folders, flow folders and clips; the hash is part of a run's identity."""
        styles = [self.style_folders[style] for style in self.styles]
        listing = [self.styles, styles, self.flows, self.names, *(clip.identity for clip in self.clips)]
        return hashlib.sha256(repr(listing).encode()).hexdigest()

    def remarks(self, assumed_fps: float, resample_fps: float | None, window: int = 1) -> list[str]:
        """Return messages about left-out videos, and about ``resample_fps`` if it is set without effect."""
        unused = "resample_fps has no effect, because this network sees single frames"
        return [*self.left_out(), *([unused] if resample_fps else [])]

    def image_file(self, video: str, style: int, position: int) -> Path:
        """Return the path of the image file of one frame in one style."""
        return self.image_folder(video, style) / f"{self.names[video][position]}.jpg"

    def image_folder(self, video: str, style: int) -> Path:
        """Return the path of the folder that holds the frames of a video in one style."""
        root = self.original_root if style == 0 else self.root
        return root / "JPEGImages" / self.style_folders[style] / video

    def flow_file(self, video: str, flow: str, position: int) -> Path:
        """Return the path of the flow image of one frame."""
        return self.original_root / flow / video / f"{self.names[video][position]}.png"


def list_davis(
    dataset: DictConfig,
    styles: Sequence[int],
    *,
    both_flows: bool = False,
    reversed_flow: bool = False,
    frames_at_once: int = 1,
    limit: int | None = None,
    on_error: str = "error",
) -> DavisClips:
    """List the first `limit` usable frames of a split of DAVIS, in the order of the split's list file.

    `dataset` is a row of ``configs/dataset`` with the layout ``davis``; `frames_at_once` is the number of
    frames of one video that the network sees together. With `both_flows` the network also sees the flow to
    the previous frame; first frames have none and are left out. They are also left out with `reversed_flow`,
    because the flow of the reversed video is the flow to the previous frame. With ``on_error="skip"`` a
    sequence that lacks a file is left out.

    Raises UserError if a folder, a style or a file is missing, image and flow differ in shape, or no frame is
    left.
    """
    both = both_flows or reversed_flow
    clips = find_folders(dataset, styles, both_flows, frames_at_once)
    if reversed_flow and not both_flows:
        clips = replace(clips, flows=FLOW_FOLDERS)
        backward = clips.original_root / FLOW_FOLDERS[1]
        if not backward.is_dir():
            raise UserError(
                f"orders=reversed needs {backward}, which does not exist: create it with {PREPARE}, "
                "or omit this order"
            )
    videos, filtered = videos_of_split(dataset, clips)
    skipped: list[tuple[str, str]] = []
    found: list[FrameClip] = []
    names, sizes = {}, {}
    for (video, sequence), stems in videos.items():
        # Leave out the last frame, which has no flow to a next frame. If flow to the previous frame is
        # needed, leave out the first frame, too.
        names[video] = stems if dataset.cinematograms else stems[int(both) : -1]
        try:
            sizes[video] = require_files(replace(clips, names=names), video)
        except BadFrames as fault:
            if on_error != "skip":
                raise UserError(f"{fault} (on_error=skip leaves out the video {video})") from fault
            skipped.append((video, str(fault)))
            del names[video]
            continue
        found += [
            FrameClip(f"{video}/{stem}", video, k, 1, -1, sequence, dataset.fps, len(names[video]))
            for k, stem in enumerate(names[video])
        ]
    if not found:
        raise UserError(
            f"no usable frame of split {dataset.split} below {clips.original_root} "
            f"({len(filtered) + len(skipped)} videos were left out)"
        )
    # folders of the flow images to read
    flows = FLOW_FOLDERS if both_flows else FLOW_FOLDERS[:1]
    clips = replace(clips, names=names, sizes=sizes, clips=tuple(found[:limit]), flows=flows)
    return replace(clips, skipped=tuple(skipped), filtered=tuple(filtered))


def find_folders(
    dataset: DictConfig, styles: Sequence[int], both_flows: bool, frames_at_once: int
) -> DavisClips:
    """Return a `DavisClips` with folders but without clips; raise UserError if a folder is missing."""
    if not dataset.root:
        raise UserError(f"dataset {dataset.name!r} needs a folder: give stylized_data_dir=DIR")
    root = Path(dataset.root).expanduser()
    original = Path(dataset.original_data_root or root).expanduser()
    folders = tuple(dataset.style_folders)
    flows = FLOW_FOLDERS if both_flows else FLOW_FOLDERS[:1]
    clips = DavisClips(dataset.name, root, tuple(styles), clips=(), rows_per_view=frames_at_once)
    clips = replace(clips, original_root=original, style_folders=folders, flows=flows)
    for option, folder in (("stylized_data_dir", root), ("original_data_root", original)):
        if not folder.is_dir():
            raise UserError(f"{option}={folder} does not exist or is not a folder")
    for style in styles:
        if not 0 <= style < len(folders):
            known = ", ".join(f"{k} {name}" for k, name in enumerate(folders))
            raise UserError(
                f"styles={style}: dataset.style_folders has no entry for this style (known: {known}): "
                "add the name of its folder"
            )
        folder = clips.image_folder("", style)
        if not folder.is_dir():
            present = ", ".join(sorted(p.name for p in folder.parent.glob("*") if p.is_dir())) or "nothing"
            raise UserError(
                f"{folder} does not exist ({folder.parent} has {present}): create it with {PREPARE}, "
                "or give other folders with dataset.style_folders=[...]"
            )
    for flow in flows:
        if not (original / flow).is_dir():
            raise UserError(f"{original / flow} does not exist: create it with {PREPARE}")
    return clips


# (video, sequence) -> frame names without suffix.
Videos = dict[tuple[str, str], tuple[str, ...]]


def videos_of_split(dataset: DictConfig, clips: DavisClips) -> tuple[Videos, list[tuple[str, str]]]:
    """Return the videos of a split with their frame names, and a list of (left-out video, reason)."""
    listed: dict[str, list[str]] = defaultdict(list)
    for sequence, stem in read_split(clips.original_root, dataset.split):
        listed[sequence].append(stem)
    wanted = [dataset.sequences] if isinstance(dataset.sequences, str) else dataset.sequences
    if wanted is not None and not isinstance(wanted, int):
        missing = [name for name in wanted if name not in listed]
        if missing:
            hint = other_split(clips.original_root, missing[0], "dataset.split=")
            raise UserError(f"dataset.sequences: split {dataset.split} has no sequence {missing[0]!r}{hint}")
        listed = {name: listed[name] for name in wanted}
    videos: Videos = {}
    filtered = []
    for sequence, stems in listed.items():
        if isinstance(wanted, int) and len({s for _, s in videos}) >= wanted:
            break
        if not any(clips.image_folder(sequence, style).is_dir() for style in clips.styles):
            filtered.append((sequence, "not on disk"))
        elif dataset.cinematograms:
            for stem in stems:
                video = f"{sequence}/{stem}"
                shown = frames_with_flow(clips, video)
                if shown:
                    videos[video, sequence] = shown
                else:
                    filtered.append((video, "no frame with flow"))
        else:
            videos[sequence, sequence] = tuple(sorted(set(stems)))
    return videos, filtered


def read_split(root: Path, split: str) -> list[tuple[str, str]]:
    """Read the list file of a split; return one tuple (sequence, frame name without suffix) per line.

    Raises UserError if there is no such list, or a line does not name a frame of the data set.
    """
    file = root / "ImageSets" / RESOLUTION / f"{split}.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        lists = sorted(path.stem for path in file.parent.glob("*.txt"))
        if lists and split not in lists:
            known = f"{nearest(split, lists)} (lists in {file.parent}: {', '.join(lists)})"
            raise UserError(f"there is no split {quoted(split)}{known}") from error
        raise UserError(
            f"{file} cannot be read: give the DAVIS folder, which holds ImageSets/{RESOLUTION}"
        ) from error
    frames = []
    for n, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = line.split()[0].lstrip("/")
        path = PurePosixPath(name)
        if points_outside(name) or len(path.parts) < 3:
            raise UserError(
                f"{file}, line {n}: {line[:60]!r} does not begin with JPEGImages/480p/SEQUENCE/FRAME"
            )
        frames.append((path.parent.name, path.stem))
    return frames


def other_split(root: Path, sequence: str, option: str) -> str:
    """Return a text for error messages that names the first split with `sequence`; "" if no split has it."""
    for file in sorted((root / "ImageSets" / RESOLUTION).glob("*.txt")):
        try:
            if any(name == sequence for name, _ in read_split(root, file.stem)):
                return f": it is in split {file.stem}, give {option}{file.stem}"
        except UserError:  # a list of another form
            continue
    return ""


def frames_with_flow(clips: DavisClips, video: str) -> tuple[str, ...]:
    """Return the sorted names, without suffix, of those frames of a video that have all flow images."""
    stems = stems_in(clips.image_folder(video, clips.styles[0]), ".jpg")
    for flow in clips.flows:
        stems &= stems_in(clips.original_root / flow / video, ".png")
    return tuple(sorted(stems))


def stems_in(folder: Path, suffix: str) -> set[str]:
    """Return the names of the files in `folder` that end in `suffix`, with the suffix removed.

    The set is empty if the folder is missing.
    """
    try:
        return {name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix)}
    except OSError:
        return set()


def require_files(clips: DavisClips, video: str) -> tuple[int, int]:
    """Check that a video has all its image and flow files; return the width and height of the frames.

    Raises BadFrames if a frame is missing in a style or lacks flow, or if the first frame and the first flow
    image differ in shape.
    """
    names = clips.names[video]
    if not names:
        raise BadFrames(f"video {video}: no frame has all flow images that the network needs")
    folders = {clips.image_folder(video, style): ".jpg" for style in clips.styles}
    folders |= {clips.original_root / flow / video: ".png" for flow in clips.flows}
    for folder, suffix in folders.items():
        present = stems_in(folder, suffix)
        for name in names:
            if name not in present:
                raise BadFrames(f"{folder / name}{suffix} does not exist: create it with {PREPARE}")
    first, *others = (clips.image_file(video, style, 0) for style in clips.styles)
    size = image_size(first)
    for file in others:
        if image_size(file) != size:
            raise BadFrames(
                f"{file} has {size_text(image_size(file))} pixels, but {first} has {size_text(size)}: "
                f"delete the wrong file and run {PREPARE} again"
            )
    for flow in clips.flows:
        file = clips.flow_file(video, flow, 0)
        require_shape(file, image_size(file), size)
    return size


def require_shape(file: Path, size: tuple[int, int], image: tuple[int, int]) -> None:
    """Raise BadFrames if the aspect ratios of a flow image and its frame differ."""
    if abs(size[0] * image[1] / (size[1] * image[0]) - 1) > SHAPE_TOLERANCE:
        raise BadFrames(
            f"{file} has {size_text(size)} pixels, but its frame has {size_text(image)} and thus another "
            f"aspect ratio: delete the flow image and run {PREPARE} again"
        )


def image_size(file: Path) -> tuple[int, int]:
    """Read the width and height of an image without decoding it."""
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFrames(f"{file} is not a readable image ({error})") from error


def size_text(size: Iterable[int]) -> str:
    """Format (width, height) as text for an error message, such as 854x480."""
    return "x".join(map(str, size))
