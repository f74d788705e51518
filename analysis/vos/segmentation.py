"""Segmentation measures of DAVIS 2016 (Perazzi et al., CVPR 2016), and functions for masks.

    J  region similarity: intersection over union
    F  boundary measure: harmonic mean of precision and recall of the boundary pixels; a pixel is correct if
       the other boundary has a pixel within 0.008 of the image diagonal (rounded up)

Both are 1 for two empty masks, and 0 for an empty mask and a mask with an object. All masks are (H, W) bool.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from static_dynamic.datasets.frames import BadFrames, read_image
from static_dynamic.errors import UserError

# Largest distance between two boundary pixels that match, as a fraction of the image diagonal.
TOLERANCE = 0.008
# Recall is the share of frames whose measure exceeds this value.
RECALLED = 0.5
QUARTERS = 4
# RGB colours of the overlay: fill of the predicted mask, outline of the true mask.
FOUND_COLOUR, TRUE_COLOUR = (213, 94, 0), (240, 228, 66)


class Statistics(NamedTuple):
    """Mean, recall and decay of one measure over the frames of a sequence."""

    mean: float
    # Share of frames whose measure exceeds 0.5.
    recall: float
    # Mean over the first quarter of the frames minus mean over the last quarter.
    decay: float


def region_similarity(mask: NDArray, truth: NDArray) -> float:
    """Return J, the intersection over union of two masks; raise UserError if the masks differ in size."""
    require_same_size(mask, truth)
    if not mask.any() and not truth.any():
        return 1.0
    return float(coco.iou([encoded(mask)], [encoded(truth)], [0])[0, 0])


def boundary_measure(mask: NDArray, truth: NDArray, tolerance: float = TOLERANCE) -> float:
    """Return F, the agreement of the boundaries of two masks; raise UserError if the masks differ in size."""
    require_same_size(mask, truth)
    found, true = boundary(mask), boundary(truth)
    if not found.any() and not true.any():
        return 1.0
    disk = disk_of(math.ceil(tolerance * math.hypot(*mask.shape)))
    # If one boundary is empty, precision or recall is 0.
    precision, recall = matched(found, true, disk), matched(true, found, disk)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary(mask: NDArray) -> NDArray[np.bool_]:
    """Return a mask's boundary: pixels that differ from the pixel to the right, below, or below right."""
    mask = np.asarray(mask, bool)
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])


def matched(boundary: NDArray, other: NDArray, disk: NDArray) -> float:
    """Return the share of `boundary` pixels that lie near the boundary `other`; 1 if `boundary` is empty."""
    if not boundary.any():
        return 1.0
    near = cv2.dilate(other.astype(np.uint8), disk, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return float(near[boundary].mean())


def disk_of(radius: int) -> NDArray[np.uint8]:
    """Return a disk as an array: 1 within `radius` of the centre, 0 elsewhere."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (x * x + y * y <= radius * radius).astype(np.uint8)


def require_same_size(mask: NDArray, truth: NDArray) -> None:
    """Raise UserError if two masks have different sizes."""
    if mask.shape != truth.shape:
        sizes = (" x ".join(map(str, m.shape)) for m in (mask, truth))
        raise UserError("masks of different sizes cannot be compared: {} and {} pixels".format(*sizes))


def summarize(values: Sequence[float]) -> Statistics:
    """Return mean, recall and decay of one measure over a sequence's frames, given in temporal order."""
    measured = np.asarray(values, float)
    # As in DAVIS's code, neighbouring quarters share a frame, and positions that end in .5 are rounded up.
    ends = np.floor(np.linspace(1, len(measured), QUARTERS + 1) + 0.5).astype(int) - 1
    first, last = measured[: ends[1] + 1], measured[ends[-2] :]
    recall, decay = (measured > RECALLED).mean(), first.mean() - last.mean()
    return Statistics(float(measured.mean()), float(recall), float(decay))


def read_mask(file: Path) -> NDArray[np.bool_]:
    """Read a mask from an annotation image, in which every pixel that is not black belongs to the object."""
    return np.asarray(read_image(file).any(axis=-1))


def read_truth(file: Path, image: NDArray) -> NDArray[np.bool_]:
    """Read the true mask of an image; raise BadFrames if the mask is missing or differs in size."""
    if not file.is_file():
        raise BadFrames(f"the true mask {file} does not exist: put the masks of DAVIS there")
    mask = read_mask(file)
    if mask.shape != image.shape[:2]:
        own, other = (f"{width}x{height}" for height, width in (mask.shape, image.shape[:2]))
        raise BadFrames(f"the mask {file} has {own} pixels, the image {other}: give masks of equal size")
    return mask


def resize_mask(mask: NDArray, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask to `size` (height, width) by nearest-neighbour interpolation."""
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)


def object_mask(probability: NDArray, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a probability map to `size` (height, width) and return the mask of probabilities above 0.5."""
    return cv2.resize(probability, size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def encoded(mask: NDArray) -> dict:
    """Return a mask in COCO's run-length encoding, with ``counts`` as bytes."""
    return coco.encode(np.asfortranarray(mask, np.uint8))


def coco_masks(masks: Mapping[str, NDArray]) -> dict:
    """Convert a dict (image file name -> mask) to a dict in COCO format, with one annotation per image."""
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
    """Draw the predicted mask (filled) and the outline of the true mask over an image (H, W, 3)."""
    picture = image.copy()
    picture[mask] = (0.5 * image[mask] + 0.5 * np.array(FOUND_COLOUR)).astype(np.uint8)
    picture[cv2.dilate(boundary(truth).astype(np.uint8), disk_of(1)).astype(bool)] = TRUE_COLOUR
    return picture
