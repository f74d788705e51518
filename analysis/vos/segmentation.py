"""How well a mask fits the truth, as DAVIS 2016 measures it (Perazzi et al., CVPR 2016), and masks as files.

    J  region similarity: intersection over union
    F  boundary measure: harmonic mean of precision and recall of the boundary, where a boundary pixel counts
       as found if the other boundary has one within 0.008 of the picture's diagonal (rounded up)

Two masks without an object agree (1); one without and one with do not (0). All masks are (H, W) bool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from static_dynamic.datasets.frames import BadFrames, read_image
from static_dynamic.errors import UserError

# within so many diagonals of the picture, boundaries meet
TOLERANCE = 0.008
# a frame is recalled where its measure exceeds this
RECALLED = 0.5
QUARTERS = 4
# of the overlay: what was found is filled, the true outline is a line; colours tell apart for all readers
FOUND_COLOUR, TRUE_COLOUR = (213, 94, 0), (240, 228, 66)


class Statistics(NamedTuple):
    """One measure over the frames of a sequence: its mean; the share of frames above 0.5; how much the
    first quarter's mean exceeds the last's."""

    mean: float
    recall: float
    decay: float


def region_similarity(mask: NDArray, truth: NDArray) -> float:
    """J: intersection over union of two masks.

    Raises
    ------
    UserError
        Masks of different sizes.
    """
    require_same_size(mask, truth)
    if not mask.any() and not truth.any():
        return 1.0
    return float(coco.iou([encoded(mask)], [encoded(truth)], [0])[0, 0])


def boundary_measure(mask: NDArray, truth: NDArray, tolerance: float = TOLERANCE) -> float:
    """F: how well the boundaries of two masks meet, within `tolerance` diagonals of the picture.

    Raises
    ------
    UserError
        Masks of different sizes.
    """
    require_same_size(mask, truth)
    found, true = boundary(mask), boundary(truth)
    if not found.any() and not true.any():
        return 1.0
    disk = disk_of(math.ceil(tolerance * math.hypot(*mask.shape)))
    # with one of them empty, one of the two is 0
    precision, recall = met(found, true, disk), met(true, found, disk)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: NDArray) -> NDArray[np.bool_]:
    """Pixels that differ from their neighbour to the right, below, or to the right below."""
    mask = np.asarray(mask, bool)
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def met(lines: NDArray, others: NDArray, disk: NDArray) -> float:
    """Share of the pixels of `lines` that have one of `others` within a disk; 1 where there are none."""
    if not lines.any():
        return 1.0
    near = cv2.dilate(others.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return float(near[lines].mean())


def disk_of(radius: int) -> NDArray[np.uint8]:
    """Pixels within `radius` of the middle one."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def require_same_size(mask: NDArray, truth: NDArray) -> None:
    """Refuse masks of different sizes: one of them is not of this picture."""
    if mask.shape != truth.shape:
        sizes = (" x ".join(map(str, m.shape)) for m in (mask, truth))
        raise UserError("masks of different sizes cannot be compared: {} and {} pixels".format(*sizes))


def summarize(values: Sequence[float]) -> Statistics:
    """Mean, recall and decay of one measure over the frames of a sequence, in their order."""
    values = np.asarray(values, float)
    # neighbouring quarters share a frame, as in DAVIS' own evaluation; halves are rounded up
    ends = np.floor(np.linspace(1, len(values), QUARTERS + 1) + 0.5).astype(int) - 1
    first, last = values[: ends[1] + 1], values[ends[-2] :]
    return Statistics(
        float(values.mean()), float((values > RECALLED).mean()), float(first.mean() - last.mean())
    )


def read_mask(file: Path) -> NDArray[np.bool_]:
    """The object of an annotation picture: whatever is not black.

    Raises
    ------
    BadFrames
        What is no picture.
    """
    return read_image(file).any(axis=-1)


def read_truth(file: Path, image: NDArray) -> NDArray[np.bool_]:
    """The true mask of an image (H, W, 3).

    Raises
    ------
    BadFrames
        No picture there, or one of another size than the image.
    """
    if not file.is_file():
        raise BadFrames(f"{file} does not exist: the masks of DAVIS as downloaded belong there")
    mask = read_mask(file)
    if mask.shape != image.shape[:2]:
        sizes = (f"{width}x{height}" for height, width in (mask.shape, image.shape[:2]))
        raise BadFrames("{} has {} pixels, its image {}: is it of another resolution?".format(file, *sizes))
    return mask


def resize_mask(mask: NDArray, size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask in another (height, width), each pixel that of the nearest one."""
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def object_mask(probability: NDArray, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where the object is more likely than not, in (height, width) `size`."""
    return cv2.resize(probability, size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def encoded(mask: NDArray) -> dict:
    """A mask as COCO's run-length encoding, ``counts`` in bytes."""
    return coco.encode(np.asfortranarray(mask, np.uint8))


def coco_masks(masks: Mapping[str, NDArray]) -> dict:
    """Masks by file name of their image as one COCO file: one category, one annotation an image."""
    images, annotations = [], []
    for number, (name, mask) in enumerate(masks.items(), start=1):
        runs = encoded(mask)
        height, width = mask.shape
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "area": int(coco.area(runs)),
                "bbox": coco.toBbox(runs).tolist(),
                "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")},
            }
        )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}


def overlay(image: NDArray, mask: NDArray, truth: NDArray) -> NDArray[np.uint8]:
    """An image (H, W, 3) with what was found filled and the true outline drawn over it."""
    picture = image.copy()
    picture[mask] = (0.5 * image[mask] + 0.5 * np.array(FOUND_COLOUR)).astype(np.uint8)
    picture[cv2.dilate(boundary(truth).astype(np.uint8), disk_of(1)).astype(bool)] = TRUE_COLOUR
    return picture


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Callable[[NDArray], None]]:
    """Write a video (H.264): yields what takes its frames, (H, W, 3) uint8, all of one size."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20"}

        def write(frame: NDArray) -> None:
            height, width = (side - side % 2 for side in frame.shape[:2])  # halved colour needs even sides
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            cut = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))

        yield write
        container.mux(stream.encode(None))
