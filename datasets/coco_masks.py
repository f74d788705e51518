"""Masks from a json file: COCO (annotations per image) or YouTube-VIS (annotations per video).

COCO           images: file_name (VIDEO/000001.jpg), or video_id and frame_index (frame_id)
               annotations: image_id, and track_id, object_id or instance_id
YouTube-VIS    videos: file_names; annotations: video_id, and segmentations (bboxes), one per frame
both           a segmentation is run lengths or polygons; without one, bbox is a filled rectangle
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from static_dynamic.errors import nearest, reason
from static_dynamic.files import sha256

from .annotation_files import read_json
from .mask_files import VOID
from .numbering import frame_numbers
from .pixels import MAX_FRAMES, MAX_PIXELS, BadFrames

# Keys that number the objects of a video, in annotations per image.
OBJECT_KEYS = ("track_id", "object_id", "instance_id")
# Keys that number the frames of a video, in images without file name.
FRAME_KEYS = ("frame_index", "frame_id")
COUNTS = re.compile(rb"[0-o]*")  # characters of compressed run lengths
# Largest total length of the outlines of one polygon annotation, in pixels; pycocotools stores each pixel.
MAX_OUTLINE = 1_000_000


# Largest label of an object; further objects share this label, because the next one is `VOID`.
MOST = VOID - 1


class CocoFrame:
    """Annotations of one frame: size, and for each object its number and its annotation."""

    def __init__(self, name: str, height: int, width: int):
        self.name, self.height, self.width = name, int(height), int(width)
        self.objects: list[tuple[int, dict]] = []


class CocoMasks:
    """Masks of the videos of one json file. A video is named by the folder of its images."""

    kind, by_position = "json", False

    def __init__(self, file: Path):
        self.name, self.file = file.name, file
        content = read_json(file, dict)
        try:
            per_video = any("file_names" in about for about in content.get("videos", ()))
            self.videos = read_videos(content) if per_video else read_images(content)
        except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
            raise BadFrames(
                f"{file} is not in the format of COCO or YouTube-VIS "
                f"({type(error).__name__}: {reason(error)})"
            ) from error
        self.digest = sha256(file)

    @property
    def boxes(self) -> int:
        """Number of annotations that have a box only."""
        frames = (frame for video in self.videos.values() for frame in video)
        return sum(not annotation.get("segmentation") for frame in frames for _, annotation in frame.objects)

    def key(self, video: str) -> str:
        """Return the name that the file has for a video: its path, or the end of one of both paths.

        Raises BadFrames if the file has no masks of the video, or several names fit.
        """
        if video in self.videos:
            return video
        fits = [name for name in self.videos if f"/{name}".endswith(f"/{video}")]
        fits = fits or [name for name in self.videos if f"/{video}".endswith(f"/{name}")]
        if len(fits) > 1:
            raise BadFrames(f"{self.file}: video {video} may be {fits[0]} or {fits[1]}: rename the videos")
        if not fits:
            raise BadFrames(f"{self.file} has no masks of video {video}{nearest(video, self.videos)}")
        return fits[0]

    def open(self, video: str) -> "CocoSequence":
        """Open the masks of a video; raise BadFrames if the file has none."""
        return CocoSequence(self.file, video, self.videos[self.key(video)])

    def listing(self, video: str) -> list:
        """Return the hash of the json file, and the name that the file has for a video."""
        return [self.digest, self.key(video)]


class CocoSequence:
    """Masks of one video, in the order of the frame numbers in their names."""

    def __init__(self, file: Path, video: str, frames: Sequence[CocoFrame]):
        if len(frames) > MAX_FRAMES:
            raise BadFrames(f"{file}: video {video} has more than {MAX_FRAMES} frames: too large")
        numbers = frame_numbers([frame.name for frame in frames], file)
        order = np.argsort(numbers, kind="stable").tolist()
        self.file, self.video, self.frames = file, video, [frames[k] for k in order]
        self.numbers = [numbers[k] for k in order]

    def __len__(self) -> int:
        return len(self.frames)

    def labels(self, index: int) -> NDArray:
        """Return the labels (H, W) of one frame; where objects overlap, the later one counts."""
        frame = self.frames[index]
        if not (0 < frame.height and 0 < frame.width and frame.height * frame.width <= MAX_PIXELS):
            raise BadFrames(f"{self.file}: {frame.name} claims {frame.width}x{frame.height} pixels")
        labels = np.zeros((frame.height, frame.width), np.int64)
        for number, annotation in frame.objects:
            try:
                labels[shape_of(annotation, frame.height, frame.width)] = min(number, MOST)
            except (LookupError, TypeError, ValueError, OverflowError, MemoryError, AttributeError) as error:
                raise BadFrames(
                    f"{self.file}: an annotation of {frame.name} is damaged ({reason(error)})"
                ) from error
        return labels

    def every_label(self) -> Iterator[NDArray]:
        """Yield the numbers of the objects of each frame."""
        objects = ([min(number, MOST) for number, _ in frame.objects] for frame in self.frames)
        return (np.array([0, *numbers]) for numbers in objects)


def shape_of(annotation: dict, height: int, width: int) -> NDArray[np.bool_]:
    """Decode an annotation (run lengths, polygons, or a box) to a mask (H, W)."""
    shape = annotation.get("segmentation")
    if not shape:
        x, y, w, h = (float(value) for value in annotation["bbox"])
        mask = np.zeros((height, width), bool)
        mask[max(0, round(y)) : max(0, round(y + h)), max(0, round(x)) : max(0, round(x + w))] = True
        return mask
    if isinstance(shape, list):
        return fill(shape, height, width)
    if list(shape["size"]) != [height, width]:
        raise ValueError(f"its size is {shape['size']}, that of the frame [{height}, {width}]")
    if isinstance(shape["counts"], list):
        counts = [int(count) for count in shape["counts"]]
        if min(counts, default=0) < 0 or sum(counts) != height * width:
            raise ValueError("its run lengths do not add up to the frame")
        return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    if not isinstance(shape["counts"], str):
        raise ValueError("its run lengths are neither a list nor a text")
    return np.repeat(*run_lengths(shape["counts"].encode(), height * width)).reshape(width, height).T


def fill(shape: list, height: int, width: int) -> NDArray[np.bool_]:
    """Return the mask (H, W) of the pixels inside any of the polygons [x, y, x, y, ...]."""
    polygons = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in shape]
    for points in polygons:
        # pycocotools would read beyond the end of a polygon without points
        if len(points) < 3:
            raise ValueError("a polygon has less than three points")
        if not (np.abs(points) <= 10 * (height + width)).all():  # also refuses NaN
            raise ValueError("a polygon lies far outside the frame")
    outlines = (np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum() for points in polygons)
    if sum(outlines) > MAX_OUTLINE:
        raise ValueError("the outlines of its polygons are too long")
    parts = coco.frPyObjects([points.ravel().tolist() for points in polygons], height, width)
    return coco.decode(coco.merge(parts)) > 0  # decoding each part would need the memory of many frames


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
        video = str(about.get("name") or PurePosixPath(names[0]).parent)
        if video in videos:
            raise ValueError(f"two videos have the name {video}")
        videos[video] = frames
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
    """Read annotations per image (COCO); the tracked objects of a video are numbered from 1."""
    names = {about["id"]: str(about.get("name") or about["id"]) for about in content.get("videos", ())}
    videos: dict[str, list[CocoFrame]] = defaultdict(list)
    by_id = {}
    for about in content["images"]:
        index = next((about[key] for key in FRAME_KEYS if key in about), "")
        path = PurePosixPath(str(about.get("file_name") or f"{int(index):06d}"))
        video = str(path.parent)
        if "video_id" in about:
            video = names.get(about["video_id"], str(about["video_id"]))
        frame = CocoFrame(path.name, about["height"], about["width"])
        by_id[about["id"]] = video, frame
        videos[video].append(frame)
    tracks: dict[str, dict] = defaultdict(dict)
    for annotation in content["annotations"]:
        track = next((annotation[key] for key in OBJECT_KEYS if key in annotation), None)
        video, frame = by_id[annotation["image_id"]]
        number = tracks[video].setdefault(track, len(tracks[video]) + 1)
        frame.objects.append((number, annotation))
    for video, numbers in tracks.items():
        # number the objects in ascending order of their tracks, whatever the order of the annotations
        rank = {numbers[track]: k for k, track in enumerate(sorted(numbers, key=sort_key), start=1)}
        for frame in videos[video]:
            frame.objects = [(rank[number], annotation) for number, annotation in frame.objects]
    return dict(videos)


def sort_key(track: object) -> tuple[bool, float, str]:
    """Order tracks by number; tracks that are no numbers follow in the order of their texts."""
    if isinstance(track, int | float):
        return False, track, ""
    return True, 0, str(track)
