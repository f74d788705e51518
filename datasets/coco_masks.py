"""Masks from a json file in the format of COCO (one annotation per image) or YouTube-VIS (one per video)."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from static_dynamic.errors import reason
from static_dynamic.files import sha256

from .annotation_files import read_json
from .numbering import frame_numbers
from .pixels import MAX_PIXELS, BadFrames

# Keys that number the objects of a video, in annotations per image.
OBJECT_KEYS = ("track_id", "object_id", "instance_id")
COUNTS = re.compile(rb"[0-o]*")  # characters of compressed run lengths


class CocoMasks:
    """Masks of the videos of one json file. A video is named by the folder of its images."""

    def __init__(self, file: Path):
        self.name, self.file = file.name, file
        content = read_json(file, dict)
        try:
            self.videos = read_videos(content) if "videos" in content else read_images(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BadFrames(f"{file} is not in the format of COCO ({reason(error)})") from error
        self.digest = sha256(file)

    def open(self, video: str) -> "CocoSequence":
        """Open the masks of a video; raise BadFrames if the file has none."""
        frames = self.videos.get(video) or self.videos.get(PurePosixPath(video).name)
        if frames is None:
            raise BadFrames(f"{self.file} has no masks of video {video}")
        return CocoSequence(self.file, video, frames)

    def listing(self, video: str) -> list:
        """Return the hash of the json file."""
        return [self.digest]


class CocoFrame:
    """Annotations of one frame: size, and for each object its number and its annotation."""

    def __init__(self, name: str, height: int, width: int):
        self.name, self.height, self.width = name, int(height), int(width)
        self.objects: list[tuple[int, dict]] = []


class CocoSequence:
    """Masks of one video."""

    def __init__(self, file: Path, video: str, frames: Sequence[CocoFrame]):
        self.file, self.video, self.frames = file, video, frames
        self.numbers = frame_numbers([frame.name for frame in frames], file)

    def __len__(self) -> int:
        return len(self.frames)

    def labels(self, index: int) -> NDArray:
        """Return the labels (H, W) of one frame; where objects overlap, the later one counts."""
        frame = self.frames[index]
        if not 0 < frame.height * frame.width <= MAX_PIXELS:
            raise BadFrames(f"{self.file}: {frame.name} claims {frame.width}x{frame.height} pixels")
        labels = np.zeros((frame.height, frame.width), np.int64)
        for number, annotation in frame.objects:
            try:
                labels[shape_of(annotation, frame.height, frame.width)] = number
            except (KeyError, TypeError, ValueError, IndexError, OverflowError, MemoryError) as error:
                raise BadFrames(
                    f"{self.file}: an annotation of {frame.name} is damaged ({reason(error)})"
                ) from error
        return labels


def shape_of(annotation: dict, height: int, width: int) -> NDArray[np.bool_]:
    """Decode an annotation (run lengths, polygons, or a box) to a mask (H, W)."""
    shape = annotation.get("segmentation")
    if not shape:
        x, y, w, h = (float(value) for value in annotation["bbox"])
        mask = np.zeros((height, width), bool)
        mask[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = True
        return mask
    if isinstance(shape, list):
        polygons = [[float(value) for value in polygon] for polygon in shape]
        # polygons far outside the frame would exhaust the memory
        if not all(abs(value) <= 10 * (height + width) for polygon in polygons for value in polygon):
            raise ValueError("a polygon lies far outside the frame")
        return coco.decode(coco.frPyObjects(polygons, height, width)).any(axis=2)
    if list(shape["size"]) != [height, width]:
        raise ValueError(f"its size is {shape['size']}, that of the frame [{height}, {width}]")
    if isinstance(shape["counts"], list):
        counts = [int(count) for count in shape["counts"]]
        if min(counts, default=0) < 0 or sum(counts) != height * width:
            raise ValueError("its run lengths do not add up to the frame")
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    text = shape["counts"].encode() if isinstance(shape["counts"], str) else bytes(shape["counts"])
    return np.repeat(*run_lengths(text, height * width)).reshape(width, height).T


def run_lengths(text: bytes, pixels: int) -> tuple[NDArray[np.bool_], list[int]]:
    """Decode COCO's compressed run lengths; return the value of each run, and its length.

    A number is written in groups of five bits, lowest first; from the fourth on, a number is the difference
    to the number two places before. Raises ValueError if the runs do not add up to `pixels`.
    """
    if not COUNTS.fullmatch(text):
        raise ValueError("its run lengths hold foreign characters")
    counts: list[int] = []
    number = shift = 0
    for character in text:
        group = character - 48
        number |= (group & 31) << shift
        shift += 5
        if group & 32:
            if shift > 60:
                raise ValueError("a run length is too large")
            continue
        if group & 16:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if min(counts, default=0) < 0 or sum(counts) != pixels:
        raise ValueError("its run lengths do not add up to the frame")
    return np.arange(len(counts)) % 2 == 1, counts


def read_videos(content: dict) -> dict[str, list[CocoFrame]]:
    """Read annotations per video (YouTube-VIS); the objects of a video are numbered from 1."""
    videos, by_id = {}, {}
    for about in content["videos"]:
        names = [str(name) for name in about["file_names"]]
        frames = [CocoFrame(PurePosixPath(name).name, about["height"], about["width"]) for name in names]
        by_id[about["id"]] = frames
        videos[str(about.get("name") or PurePosixPath(names[0]).parent)] = frames
    numbers: dict = defaultdict(int)
    for annotation in content["annotations"]:
        key = annotation["video_id"]
        numbers[key] += 1
        shapes, boxes = (
            [None] * len(by_id[key]) if annotation.get(name) is None else annotation[name]
            for name in ("segmentations", "bboxes")
        )
        for frame, shape, box in zip(by_id[key], shapes, boxes, strict=True):
            if shape or box:
                frame.objects.append((numbers[key], {"segmentation": shape, "bbox": box}))
    return videos


def read_images(content: dict) -> dict[str, list[CocoFrame]]:
    """Read annotations per image (COCO); a video is a folder of images, ordered by frame number."""
    videos: dict[str, list[CocoFrame]] = defaultdict(list)
    by_id = {}
    for about in content["images"]:
        path = PurePosixPath(str(about["file_name"]))
        frame = CocoFrame(path.name, about["height"], about["width"])
        by_id[about["id"]] = frame
        videos[str(path.parent)].append(frame)
    for annotation in content["annotations"]:
        number = next((annotation[key] for key in OBJECT_KEYS if key in annotation), 1)
        by_id[annotation["image_id"]].objects.append((int(number), annotation))
    for video, frames in videos.items():
        order = np.argsort(frame_numbers([frame.name for frame in frames], Path(video)), kind="stable")
        videos[video] = [frames[k] for k in order]
    return dict(videos)
