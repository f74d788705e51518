"""Read key frames (video frames with a stylized version), and sample training patches from key frames.

Rules ``corrected``: a patch lies fully inside its image, every row and column can be part of a patch, every
pixel in the mask can be a midpoint, and the mask weights the loss. Rules ``original`` (Texler et al.'s code):
the mask is eroded by a 7x7 square, the last row and column are never part of a patch, a patch that crosses
the border lies at the top left of a mid-grey square, and the mask only selects midpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from static_dynamic.datasets.frames import FrameFolder, read_image
from static_dynamic.errors import UserError, quoted
from static_dynamic.stylize.pictures import to_tensor

# MASK_ON: brightness above which a mask pixel is on
MASK_ON = 128
# EROSION: side in pixels of the square that erodes masks under the rules ``original``
EROSION = 7
# EPOCH: number of times that each patch midpoint is used per epoch
EPOCH = 5

Point = tuple[int, int]  # y, x


@dataclass(frozen=True)
class KeyFrame:
    """Key frame: a video frame with guide images, stylized version and mask."""

    name: str
    # `pre`: frame and guide images in [-1, 1], shape (3 + 3 per guide, H, W)
    pre: Tensor
    # `post`: stylized frame in [-1, 1], shape (3, H, W)
    post: Tensor
    # `mask`: 1 in the area to train on, else 0; shape (1, H, W)
    mask: Tensor


@dataclass(frozen=True)
class Rules:
    """Rules for masks and image borders in patch sampling (corrected, or as in Texler et al.'s code)."""

    # `valid` maps a mask (H, W) to the mask (H, W) of pixels that may be midpoints of patches
    valid: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]
    # `cut` maps (image, midpoint, size) to a patch (C, size, size)
    cut: Callable[[Tensor, Point, int], Tensor]
    # `mask_weights`: whether the loss is weighted by the mask
    mask_weights: bool


def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask (H, W) eroded by a 7x7 square; pixels outside the image count as off."""
    square = np.ones((EROSION, EROSION), np.uint8)
    return cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def cut_original(image: Tensor, midpoint: Point, size: int) -> Tensor:
    """Cut a patch (C, size, size) as in Texler et al.'s code: pixels beyond the image border are mid-grey."""
    (y, x), half = midpoint, size // 2
    height, width = image.shape[-2:]
    bottom, right = min(y + half, height - 1), min(x + half, width - 1)
    part = image[..., max(0, y - half) : bottom, max(0, x - half) : right]
    patch = image.new_zeros((*image.shape[:-2], size, size))
    patch[..., : part.shape[-2], : part.shape[-1]] = part
    return patch


def cut_within(image: Tensor, midpoint: Point, size: int) -> Tensor:
    """Cut a patch (C, size, size) that lies within the image; near a border the patch is moved inwards."""
    sides = zip(midpoint, image.shape[-2:], strict=True)
    top, left = (min(max(0, middle - size // 2), side - size) for middle, side in sides)
    return image[..., top : top + size, left : left + size]


RULES = {
    "corrected": Rules(valid=lambda mask: mask, cut=cut_within, mask_weights=True),
    "original": Rules(valid=eroded, cut=cut_original, mask_weights=False),
}


class PatchSampler:
    """Sampler of training patches from key frames.

    Item `i` depends only on the seed and on `i`, so that a resumed training sees the same patches as one
    without interruption. Items cycle through the key frames. The midpoints of a frame are drawn without
    replacement, and in a new order once all have been used. The discriminator's stylized example is from
    the same frame, at a midpoint that is drawn independently.
    """

    def __init__(self, frames: list[KeyFrame], size: int, rules: Rules, seed: int):
        self.frames, self.size, self.rules, self.seed = frames, size, rules, seed
        self.valid = [np.argwhere(rules.valid(frame.mask[0].numpy() > 0)) for frame in frames]  # (n, 2): y, x
        for frame, valid in zip(frames, self.valid, strict=True):
            if not len(valid):
                raise UserError(
                    f"mask of key frame {quoted(frame.name)}: no pixel can be the midpoint of a patch; "
                    "enlarge the white area of the mask"
                )
            if min(frame.mask.shape[1:]) < size:
                raise UserError(
                    f"key frame {quoted(frame.name)} is smaller than patch_size={size}: "
                    "give a smaller patch_size"
                )
        self._order = lru_cache(maxsize=2 * len(frames))(self._shuffled)

    @property
    def items(self) -> int:
        """Number of patches per epoch; an epoch uses every patch midpoint five times."""
        return EPOCH * sum(map(len, self.valid))

    def _shuffled(self, frame: int, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, 1, frame, turn)).permutation(len(self.valid[frame]))

    def midpoints(self, item: int) -> tuple[int, Point, Point]:
        """Return the key frame index, the patch midpoint, and the midpoint of the discriminator's example."""
        number, frame = divmod(item, len(self.frames))
        valid = self.valid[frame]
        turn, position = divmod(number, len(valid))
        other = np.random.default_rng((self.seed, 2, item)).integers(len(valid))
        (y, x), (other_y, other_x) = valid[self._order(frame, turn)[position]], valid[other]
        return frame, (int(y), int(x)), (int(other_y), int(other_x))

    def item(self, item: int) -> dict[str, Tensor]:
        """Return training item `item` as a dict: input, target, mask, real example for the discriminator."""
        index, here, there = self.midpoints(item)
        frame, cut = self.frames[index], self.rules.cut
        return {
            "pre": cut(frame.pre, here, self.size),
            "post": cut(frame.post, here, self.size),
            "already": cut(frame.post, there, self.size),
            "mask": cut(frame.mask, here, self.size),
        }

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """Return the batch of one training step: the tensors of `size` items, stacked to (size, C, h, w)."""
        items = [self.item(i) for i in range(step * size, (step + 1) * size)]
        return {part: torch.stack([item[part] for item in items]) for part in items[0]}


class FrameSampler(PatchSampler):
    """Sampler of whole key frames; the discriminator's real example is a random stylized key frame."""

    def __init__(self, frames: list[KeyFrame], size: int, rules: Rules, seed: int):
        self.frames, self.rules, self.seed = frames, rules, seed

    @property
    def items(self) -> int:
        """Number of key frames per epoch; an epoch uses every key frame once."""
        return len(self.frames)

    def item(self, item: int) -> dict[str, Tensor]:
        """Return training item `item` as a dict: input, target, mask, real example for the discriminator."""
        frame = self.frames[item % len(self.frames)]
        other = np.random.default_rng((self.seed, 2, item)).integers(len(self.frames))
        already = self.frames[other].post
        return {"pre": frame.pre, "post": frame.post, "already": already, "mask": frame.mask}


def load_key_frames(
    pre: Path, post: Path, mask: Path | None, guides: list[Path], *, multiple: int = 1
) -> list[KeyFrame]:
    """Read key frames: each image in `post`, with the images of the same name in `pre`, `mask` and `guides`.

    If the folder `mask` is None, the whole of every frame is used. Height and width are cropped to a multiple
    of `multiple`. Raises UserError if a folder does not exist, a frame has no counterpart, or the images of a
    key frame differ in size.
    """
    folders = {"input": _by_stem(pre), "style": _by_stem(post)}
    folders |= {f"guide {i}": _by_stem(guide) for i, guide in enumerate(guides, start=1)}
    if mask is not None:
        folders["mask"] = _by_stem(mask)
    if not folders["style"]:
        raise UserError(f"{post} holds no images: put the stylized key frames there")
    frames = []
    for stem, path in folders["style"].items():
        images = {}
        for part, files in folders.items():
            if stem not in files:
                raise UserError(f"key frame {path} has no {part} image: add an image named {stem}")
            images[part] = read_image(files[stem])
        sizes = {part: image.shape[1::-1] for part, image in images.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(
                f"the images of key frame {quoted(stem)} differ in size ({sizes}): scale them to one size"
            )
        height, width = (side - side % multiple for side in images["style"].shape[:2])
        images = {part: image[:height, :width] for part, image in images.items()}
        on = images["mask"][..., 0] > MASK_ON if mask is not None else np.ones((height, width), bool)
        inputs = [to_tensor(image) for part, image in images.items() if part not in ("style", "mask")]
        weights = torch.from_numpy(on)[None].float()
        frames.append(KeyFrame(stem, torch.cat(inputs), to_tensor(images["style"]), weights))
    return frames


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    return {Path(name).stem: folder / name for name in FrameFolder(folder).names}
