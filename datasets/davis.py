"""DAVIS with optical flow, for networks that segment: a clip is one frame of a sequence (or two, for
networks that see two), in a style, with the flow to its neighbours.

    ROOT/ImageSets/480p/val.txt                          which frames; the last of each sequence has no flow
    ROOT/FlowImages_gap1/SEQUENCE/00000.png              flow of the unstylized video to the next frame
    ROOT/FlowImages_gap-1/SEQUENCE/00001.png             to the one before, for networks that see both
    STYLIZED_ROOT/JPEGImages/STYLE/SEQUENCE/00000.jpg    the frames in a style

``python misc/prepare_davis.py`` makes all of it of DAVIS as downloaded. Of cinematograms, every frame of a
sequence is a folder of frames: ``SEQUENCE/00000/00000.jpg``.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig
from PIL import Image

from static_dynamic.datasets.clips import Clip, ClipList
from static_dynamic.datasets.discovery import leads_out
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.errors import UserError

RESOLUTION = "480p"  # the folder that DAVIS has its unstylized frames and its lists in
FLOW_FOLDERS = ("FlowImages_gap1", "FlowImages_gap-1")  # to the next frame, to the one before
PREPARE = "python misc/prepare_davis.py makes it"
# shapes that differ by less, relatively, are those of one video at two sizes
SHAPE_TOLERANCE = 0.02


@dataclass(frozen=True)
class FrameClip(Clip):
    """One frame of a video of which `video_length` frames may be seen; ``first`` counts among those."""

    video_length: int = 0


@dataclass(frozen=True)
class DavisClips(ClipList):
    """The frames of DAVIS that have what a network needs, as clips.

    ``names`` are the stems of the files of each video's frames, ``sizes`` width and height of all its
    images; ``root`` holds the styles, ``original_root`` all else; ``flows`` the folders of flow pictures
    that the network sees; ``rows_per_view`` is how many frames it sees at once.
    """

    original_root: Path = Path()
    style_folders: tuple[str, ...] = ()
    flows: tuple[str, ...] = FLOW_FOLDERS[:1]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def listing_sha256(self) -> str:
        """Hash of what was listed, with the folders of the styles."""
        styles = [self.style_folders[style] for style in self.styles]
        return hashlib.sha256(
            repr([self.styles, styles, self.flows, self.names, *map(astuple, self.clips)]).encode()
        ).hexdigest()

    def remarks(self, assumed_fps: float, resample_fps: float | None, window: int = 1) -> list[str]:
        """What a user should know of this list; frames are looked at one by one, at no rate."""
        unused = ["resample_fps has no effect: frames are looked at one by one"] if resample_fps else []
        return [*self.left_out(), *unused]

    def image_file(self, video: str, style: int, position: int) -> Path:
        """The file of one frame in one style."""
        return self.image_folder(video, style) / f"{self.names[video][position]}.jpg"

    def image_folder(self, video: str, style: int) -> Path:
        """The folder of a video in one style."""
        root = self.original_root if style == 0 else self.root
        return root / "JPEGImages" / self.style_folders[style] / video

    def flow_file(self, video: str, flow: str, position: int) -> Path:
        """The flow picture of one frame."""
        return self.original_root / flow / video / f"{self.names[video][position]}.png"


def list_davis(
    dataset: DictConfig,
    styles: Sequence[int],
    *,
    both_flows: bool = False,
    frames_at_once: int = 1,
    limit: int | None = None,
    on_error: str = "error",
) -> DavisClips:
    """List the frames of a split of DAVIS, in its order; the first `limit` of them.

    Parameters
    ----------
    dataset
        A row of ``configs/dataset`` with the layout ``davis``.
    both_flows
        The network sees the flow to the frame before too: first frames, which have none, are left out.
    frames_at_once
        Frames of one video that the network sees together.
    on_error
        ``error`` refuses a sequence of which a file is missing, ``skip`` leaves it out, with the reason.

    Raises
    ------
    UserError
        A folder, a style or a file that is not there, pictures of another shape, or no frame at all.
    """
    clips = find_folders(dataset, styles, both_flows, frames_at_once)
    videos, filtered = videos_of_split(dataset, clips)
    skipped, found, names, sizes = [], [], {}, {}
    for (video, sequence), stems in videos.items():
        # the last frame has no flow to the next, the first none to the one before
        names[video] = stems if dataset.cinematograms else stems[int(both_flows) : -1]
        try:
            sizes[video] = require_files(replace(clips, names=names), video)
        except BadFrames as fault:
            if on_error != "skip":
                raise UserError(f"{fault}; or give on_error=skip to leave {video} out") from fault
            skipped.append((video, str(fault)))
            del names[video]
            continue
        found += [
            FrameClip(f"{video}/{stem}", video, k, 1, -1, sequence, dataset.fps, len(names[video]))
            for k, stem in enumerate(names[video])
        ]
    if not found:
        raise UserError(
            f"no frame of split {dataset.split} can be used below {clips.original_root} "
            f"({len(filtered) + len(skipped)} videos were left out)"
        )
    lists = {"clips": tuple(found[:limit]), "skipped": tuple(skipped), "filtered": tuple(filtered)}
    return replace(clips, names=names, sizes=sizes, **lists)


def find_folders(
    dataset: DictConfig, styles: Sequence[int], both_flows: bool, frames_at_once: int
) -> DavisClips:
    """The folders of a data set, without clips yet.

    Raises
    ------
    UserError
        One that is not there.
    """
    if not dataset.root:
        raise UserError(f"dataset {dataset.name!r} needs a folder: give stylized_data_dir=DIR")
    root = Path(dataset.root).expanduser()
    original = Path(dataset.original_data_root or root).expanduser()
    folders = tuple(dataset.style_folders)
    flows = FLOW_FOLDERS if both_flows else FLOW_FOLDERS[:1]
    clips = DavisClips(
        dataset.name,
        root,
        tuple(styles),
        clips=(),
        rows_per_view=frames_at_once,
        original_root=original,
        style_folders=folders,
        flows=flows,
    )
    for option, folder in (("stylized_data_dir", root), ("original_data_root", original)):
        if not folder.is_dir():
            raise UserError(f"{option}={folder} does not exist or is not a folder")
    for style in styles:
        if not 0 <= style < len(folders):
            known = ", ".join(f"{k} {name}" for k, name in enumerate(folders))
            raise UserError(
                f"styles={style}: dataset.style_folders has no such entry (it has {known}): "
                "name the folder of every style there"
            )
        folder = clips.image_folder("", style)
        if not folder.is_dir():
            have = ", ".join(sorted(p.name for p in folder.parent.glob("*") if p.is_dir())) or "nothing"
            raise UserError(
                f"{folder} does not exist ({folder.parent} has {have}): {PREPARE}, "
                "and dataset.style_folders=[...] names others"
            )
    for flow in flows:
        if not (original / flow).is_dir():
            raise UserError(f"{original / flow} does not exist: {PREPARE}")
    return clips


Videos = dict[tuple[str, str], tuple[str, ...]]  # video and sequence -> stems of its frames


def videos_of_split(dataset: DictConfig, clips: DavisClips) -> tuple[Videos, list[tuple[str, str]]]:
    """The videos of the split with their frames, in the order of its list, and those left out."""
    listed: dict[str, list[str]] = defaultdict(list)
    for sequence, stem in read_split(clips.original_root, dataset.split):
        listed[sequence].append(stem)
    wanted = [dataset.sequences] if isinstance(dataset.sequences, str) else dataset.sequences
    if wanted is not None and not isinstance(wanted, int):
        missing = [name for name in wanted if name not in listed]
        if missing:
            raise UserError(f"dataset.sequences: split {dataset.split} has no sequence {missing[0]!r}")
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
    """Sequence and stem of every frame that a split's list names: the first file of each line.

    Raises
    ------
    UserError
        No such list, or a line that names no frame below the data set.
    """
    file = root / "ImageSets" / RESOLUTION / f"{split}.txt"
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read: original_data_root=DIR is the folder of DAVIS as downloaded, "
            "dataset.split=val the name of its list"
        ) from error
    frames = []
    for n, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name = line.split()[0].lstrip("/")
        path = PurePosixPath(name)
        if leads_out(name) or len(path.parts) < 3:
            raise UserError(
                f"{file}, line {n}: {line[:60]!r} does not begin with JPEGImages/480p/SEQUENCE/FRAME"
            )
        frames.append((path.parent.name, path.stem))
    return frames


def frames_with_flow(clips: DavisClips, video: str) -> tuple[str, ...]:
    """Stems of the frames of a cinematogram that have every flow picture."""
    stems = stems_in(clips.image_folder(video, clips.styles[0]), ".jpg")
    for flow in clips.flows:
        stems &= stems_in(clips.original_root / flow / video, ".png")
    return tuple(sorted(stems))


def stems_in(folder: Path, suffix: str) -> set[str]:
    """Stems of the files in a folder; none where there is no folder."""
    try:
        return {name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix)}
    except OSError:
        return set()


def require_files(clips: DavisClips, video: str) -> tuple[int, int]:
    """Width and height of a video's images.

    Raises
    ------
    BadFrames
        A frame of it lacks a style or a flow, or the first of them do not fit together.
    """
    names = clips.names[video]
    if not names:
        raise BadFrames(f"video {video}: no frame of it has every flow")
    folders = {clips.image_folder(video, style): ".jpg" for style in clips.styles}
    folders |= {clips.original_root / flow / video: ".png" for flow in clips.flows}
    for folder, suffix in folders.items():
        there = stems_in(folder, suffix)
        for name in names:
            if name not in there:
                raise BadFrames(f"{folder / name}{suffix} does not exist: {PREPARE}")
    first, *others = (clips.image_file(video, style, 0) for style in clips.styles)
    size = image_size(first)
    for file in others:
        if image_size(file) != size:
            raise BadFrames(
                f"{file} has {size_text(image_size(file))} pixels, {first} {size_text(size)}: {PREPARE} anew"
            )
    for flow in clips.flows:
        file = clips.flow_file(video, flow, 0)
        require_shape(file, image_size(file), size)
    return size


def require_shape(file: Path, size: tuple[int, int], image: tuple[int, int]) -> None:
    """Raise where a flow picture cannot be of the same video as an image."""
    if abs(size[0] * image[1] / (size[1] * image[0]) - 1) > SHAPE_TOLERANCE:
        raise BadFrames(
            f"{file} has {size_text(size)} pixels, its image {size_text(image)}, of another shape: "
            f"{PREPARE} anew"
        )


def image_size(file: Path) -> tuple[int, int]:
    """Width and height of an image, without decoding it."""
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFrames(f"{file} is not a readable image ({error})") from error


def size_text(size: Iterable[int]) -> str:
    """Width and height as an error says them."""
    return "x".join(map(str, size))
