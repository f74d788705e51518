"""Key frames and the patches cut from them: which pixels may be a midpoint, what is cut around one.

``mended`` rules: a patch always lies within its image, so that every row and column can be cut and none
is short; a midpoint is any pixel within the mask, and the mask weighs the loss. ``original`` rules: the
mask is eroded by a 7x7 square, the last row and column are never cut, a short patch lies top left in a
mid-grey one, and the mask does no more than choose midpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from static_dynamic.datasets.frames import FrameFolder
from static_dynamic.errors import UserError

MASK_ON = 128  # brighter than this is on
EROSION = 7
EPOCH = 5


@dataclass(frozen=True)
class KeyFrame:
    """One stylized frame: ``pre`` (3 + 3 per guide, H, W) and ``post`` (3, H, W) in [-1, 1]; ``mask``
    (1, H, W) of 0 and 1."""

    name: str
    pre: Tensor
    post: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Rules:
    """How masks and borders are treated."""

    valid: Callable[[NDArray[np.bool_]], NDArray[np.bool_]]
    cut: Callable[[Tensor, tuple[int, int], int], Tensor]
    mask_weighs: bool


def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where the whole 7x7 square around a pixel is on; beyond the image nothing is."""
    square = np.ones((EROSION, EROSION), np.uint8)
    return cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


def cut_original(image: Tensor, midpoint: tuple[int, int], size: int) -> Tensor:
    """Cut a patch (C, size, size) by the original rules."""
    (y, x), half = midpoint, size // 2
    height, width = image.shape[-2:]
    part = image[
        ..., max(0, y - half) : min(y + half, height - 1), max(0, x - half) : min(x + half, width - 1)
    ]
    patch = image.new_zeros((*image.shape[:-2], size, size))
    patch[..., : part.shape[-2], : part.shape[-1]] = part
    return patch


def cut_within(image: Tensor, midpoint: tuple[int, int], size: int) -> Tensor:
    """Cut a patch (C, size, size) that lies within the image: one near a border moves inwards."""
    (top, left) = (
        min(max(0, middle - size // 2), side - size)
        for middle, side in zip(midpoint, image.shape[-2:], strict=True)
    )
    return image[..., top : top + size, left : left + size]


RULES = {
    "mended": Rules(valid=lambda mask: mask, cut=cut_within, mask_weighs=True),
    "original": Rules(valid=eroded, cut=cut_original, mask_weighs=False),
}


class PatchSampler:
    """Patches of key frames; what item `i` is depends on the seed and on `i` alone, so that a training that
    goes on draws what one that never stopped would have drawn.

    Items take the key frames in turn. A frame's midpoints are drawn without replacement, and again in
    another order once all were used. The discriminator's example of the true style comes from the same
    frame at a midpoint drawn independently.
    """

    def __init__(self, frames: list[KeyFrame], size: int, rules: Rules, seed: int):
        self.frames, self.size, self.rules, self.seed = frames, size, rules, seed
        self.valid = [np.argwhere(rules.valid(frame.mask[0].numpy() > 0)) for frame in frames]  # (n, 2): y, x
        for frame, valid in zip(frames, self.valid, strict=True):
            if not len(valid):
                raise UserError(f"key frame {frame.name!r}: no pixel of its mask can be a patch's midpoint")
            if min(frame.mask.shape[1:]) < size:
                raise UserError(
                    f"key frame {frame.name!r} is {frame.mask.shape[2]}x{frame.mask.shape[1]}, smaller than "
                    f"patch_size={size}: give a smaller patch_size"
                )
        self._order = lru_cache(maxsize=2 * len(frames))(self._shuffled)

    @property
    def items(self) -> int:
        """Items of an epoch: every midpoint five times."""
        return EPOCH * sum(map(len, self.valid))

    def _shuffled(self, frame: int, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, 1, frame, turn)).permutation(len(self.valid[frame]))

    def midpoints(self, item: int) -> tuple[int, tuple[int, int], tuple[int, int]]:
        """Key frame of an item, its midpoint, and the midpoint of its example of the true style."""
        draw, frame = divmod(item, len(self.frames))
        valid = self.valid[frame]
        turn, position = divmod(draw, len(valid))
        other = np.random.default_rng((self.seed, 2, item)).integers(len(valid))
        y, x = valid[self._order(frame, turn)[position]]
        return frame, (int(y), int(x)), tuple(map(int, valid[other]))

    def item(self, item: int) -> dict[str, Tensor]:
        """``pre``, ``post``, ``already`` (the example of the true style) and ``mask`` of one item."""
        index, here, there = self.midpoints(item)
        frame, cut = self.frames[index], self.rules.cut
        return {
            "pre": cut(frame.pre, here, self.size),
            "post": cut(frame.post, here, self.size),
            "already": cut(frame.post, there, self.size),
            "mask": cut(frame.mask, here, self.size),
        }

    def batch(self, step: int, size: int) -> dict[str, Tensor]:
        """The batch of one step: each part (size, C, h, w)."""
        items = [self.item(i) for i in range(step * size, (step + 1) * size)]
        return {part: torch.stack([item[part] for item in items]) for part in items[0]}


class FrameSampler(PatchSampler):
    """Whole key frames in place of patches; the example of the true style is any key frame's."""

    def __init__(self, frames: list[KeyFrame], size: int, rules: Rules, seed: int):
        self.frames, self.rules, self.seed = frames, rules, seed

    @property
    def items(self) -> int:
        """Items of an epoch."""
        return len(self.frames)

    def item(self, item: int) -> dict[str, Tensor]:
        frame = self.frames[item % len(self.frames)]
        other = np.random.default_rng((self.seed, 2, item)).integers(len(self.frames))
        return {
            "pre": frame.pre,
            "post": frame.post,
            "already": self.frames[other].post,
            "mask": frame.mask,
        }


def load_key_frames(
    pre: Path, post: Path, mask: Path | None, guides: list[Path], *, multiple: int = 1
) -> list[KeyFrame]:
    """Read key frames: every image of `post` with the images of the same stem in the other folders.

    Parameters
    ----------
    mask
        None: all of every frame counts.
    multiple
        Sides are cut to a multiple of this.

    Raises
    ------
    UserError
        A folder that is not there, a frame without its counterpart, sizes that differ.
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
                raise UserError(f"key frame {path} has no {part} image of the name {stem}")
            images[part] = read_image(files[stem])
        sizes = {part: image.shape[1::-1] for part, image in images.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(f"key frame {stem!r}: its images differ in size: {sizes}")
        height, width = (side - side % multiple for side in images["style"].shape[:2])
        images = {part: image[:height, :width] for part, image in images.items()}
        on = images["mask"][..., 0] > MASK_ON if mask is not None else np.ones((height, width), bool)
        inputs = [images["input"], *(images[f"guide {i + 1}"] for i in range(len(guides)))]
        frames.append(
            KeyFrame(
                name=stem,
                pre=torch.cat([to_tensor(image) for image in inputs]),
                post=to_tensor(images["style"]),
                mask=torch.from_numpy(on)[None].float(),
            )
        )
    return frames


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read one image, (H, W, 3) RGB."""
    folder = FrameFolder(path.parent)
    return folder.read([folder.names.index(path.name)])[0]


def to_tensor(image: NDArray[np.uint8]) -> Tensor:  # (H, W, 3) -> (3, H, W)
    """An image in [-1, 1]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 127.5 - 1


def to_image(image: Tensor) -> NDArray[np.uint8]:  # (3, H, W) -> (H, W, 3)
    """An image from [-1, 1]: clamped, scaled and cut off to 8 bits as in the original."""
    return ((image.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist or is not a folder")
    return {Path(name).stem: folder / name for name in FrameFolder(folder).names}
