"""Decode the frames of views and make network inputs from the frames.

Worker processes decode frames; the device (CPU or GPU) scales, crops and orders the frames.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, get_worker_info

from static_dynamic.areas import resample
from static_dynamic.errors import UserError

from .backgrounds import paste
from .clips import ClipList, style_folder
from .frames import BadFrames
from .orders import SWAPPED
from .shared_memory import SharedFrames, release

# Only every fourth pixel row is hashed, because hashing all rows takes 3 to 26 % of the decoding time.
# A quarter of the rows suffices, because another video, frame size or encoding changes all rows.
HASHED_ROWS = 4
Key = tuple[str, str, int]  # clip, video, style


@dataclass(frozen=True)
class Decoded:
    """The decoded frames of one clip in one style, and the views that show them."""

    clip: str
    style: int
    # Row numbers of the views in the table of views.
    rows: NDArray
    # `positions[view][pathway]` holds indices into `frames`, in the order in which the network sees them.
    # Positions are NumPy arrays, because each tensor that a worker sends opens a shared-memory file.
    positions: list[list[NDArray]]
    # Decoded frames (n, H, W, 3) uint8; None if the video is unreadable.
    frames: Tensor | None
    # Why the video is unreadable; empty if it was read.
    error: str = ""
    # CRC-32 of the frames of each row in `rows`, see `view_digests`.
    digests: NDArray | None = None
    # Region number of each pixel of the frames (n, H, W) uint8; None if the clips have no masks.
    masks: NDArray | None = None


class ViewBatches(Dataset):
    """Batches of decoded views, in the order of `rows`; a batch lists one `Decoded` per clip and style."""

    def __init__(self, clips: ClipList, views: pd.DataFrame, rows: NDArray, batch_size: int):
        self.clips = clips
        # Columns are kept as lists and arrays, because a DataFrame is much slower to index.
        chosen = views.iloc[rows]
        self.keys = list(zip(chosen["clip"], chosen["video"], chosen["style"], strict=True))
        self.rows = np.asarray(rows)
        self.frames = [chosen[c].tolist() for c in views.columns if c.startswith("frames_")]
        swapped = clips.backgrounds is not None
        self.swapped = chosen["order"].isin(SWAPPED).to_numpy() if swapped else np.zeros(len(rows), bool)
        self.batch_size = batch_size
        # Maps each clip that is skipped, because it crashed workers, to the reason for error messages.
        self.given_up: dict[Key, str] = {}
        # Shared memory in which workers return frames.
        self.shared: SharedFrames | None = None

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, i: int) -> list[Decoded]:
        return [self.decode(members) for members in self.groups(i)]

    def groups(self, i: int) -> list[Sequence[int]]:
        """Group the views of batch `i` by clip and style; the views of a group show the same frames."""
        span = range(i * self.batch_size, min((i + 1) * self.batch_size, len(self.rows)))
        groups: dict[Key, list[int]] = {}
        for k in span:
            groups.setdefault(self.keys[k], []).append(k)
        return list(groups.values())

    def path_of(self, key: Key) -> Path:
        """Return the path of a view's video, without the file suffix."""
        _, video, style = key
        return style_folder(self.clips.root, style, self.clips.normal_root) / video

    def decode(self, members: Sequence[int]) -> Decoded:
        """Decode the frames of a group of views; the result has an ``error`` if the video is unreadable."""
        clip, video, style = key = self.keys[members[0]]
        # For each pathway, `frames` holds an array (views, T) of frame numbers.
        frames = [np.stack([pathway[k] for k in members]) for pathway in self.frames]
        wanted, where = np.unique(np.concatenate([f.ravel() for f in frames]), return_inverse=True)
        ends = np.cumsum([f.size for f in frames])[:-1]
        by_pathway = [p.reshape(len(members), -1) for p in np.split(where, ends)]
        positions = [[p[k] for p in by_pathway] for k in range(len(members))]
        rows = self.rows[members]
        if key in self.given_up:
            return Decoded(clip, style, rows, positions, None, self.given_up[key])
        pixels = []
        positions, pasted = paste_later(positions, self.swapped[members], len(wanted))

        def allocate(shape, dtype) -> NDArray:
            pixels.append(self.allocate((shape[0] + len(pasted), *shape[1:])))
            return pixels[0][: shape[0]].numpy()

        try:
            self.clips.frames_of(video, style).read(wanted.tolist(), allocate)
            masks = read_masks(self.clips, video, wanted.tolist(), pixels[0])
            if len(pasted) and self.clips.backgrounds and masks is not None:
                frames_of_clip = pixels[0].numpy()
                height, width = frames_of_clip.shape[1:3]
                background = self.clips.backgrounds.of_clip(self.clips, clip, style, height, width)
                frames_of_clip[len(wanted) :] = paste(frames_of_clip[pasted], masks[pasted], background)
                masks = np.concatenate([masks, masks[pasted]])
        except BadFrames as error:
            # The error is returned, because an exception in a worker would stop the run with a traceback.
            return Decoded(clip, style, rows, positions, None, str(error))
        digests = view_digests(pixels[0], positions)
        return Decoded(clip, style, rows, positions, pixels[0], digests=digests, masks=masks)

    def allocate(self, shape: tuple[int, ...]) -> Tensor:
        """Allocate a uint8 tensor for frames; worker processes use shared memory if possible."""
        worker = get_worker_info()
        if worker is None or self.shared is None:
            return torch.empty(shape, dtype=torch.uint8)
        return self.shared.allocate(shape, worker.id)


def paste_later(
    positions: list[list[NDArray]], swapped: NDArray, frames: int
) -> tuple[list[list[NDArray]], NDArray[np.int64]]:
    """Let views on a new background show frames that follow the `frames` decoded frames.

    Returns the new positions, and for each new frame the position of the frame whose foreground it shows.
    """
    shown = [np.concatenate(p) for p, new in zip(positions, swapped, strict=True) if new]
    pasted = np.unique(np.concatenate(shown)) if shown else np.zeros(0, np.int64)
    changed = [
        [frames + np.searchsorted(pasted, p) for p in of_view] if new else of_view
        for of_view, new in zip(positions, swapped, strict=True)
    ]
    return changed, pasted


def read_masks(clips: ClipList, video: str, positions: list[int], frames: Tensor) -> NDArray | None:
    """Return the regions (n, H, W) of the frames (n, H, W, C) at `positions`; None if there are no masks."""
    if clips.masks is None:
        return None
    height, width = frames.shape[1:3]
    return clips.masks.read(video, positions, (height, width))


def crc32(frame: Tensor) -> int:
    """Return a CRC-32 of every fourth pixel row of a frame (H, W, C); never 0, which means no digest."""
    return zlib.crc32(np.ascontiguousarray(frame[::HASHED_ROWS].numpy()).data) or 1


def view_digests(frames: Tensor, positions: list[list[NDArray]]) -> NDArray:
    """Return one CRC-32 per view, computed over the frames that the view shows, in temporal order."""
    sums = np.array([crc32(frame) for frame in frames], np.uint32)
    shown = [sums[np.unique(np.concatenate(pathways))] for pathways in positions]
    return np.array([zlib.crc32(own) or 1 for own in shown], np.uint32)


def to_inputs(batch: list[Decoded], spec, device: torch.device) -> list[Tensor]:
    """Make the inputs of the network's pathways from a batch of decoded frames; free their memory.

    Returns a list of one tensor (B, 3, T, height, width) float32 per pathway, on `device`, with the views in
    the order of the batch. Every clip of the batch must have frames. `spec` is the network's input spec.
    """
    views = []
    for decoded in batch:
        assert decoded.frames is not None
        frames = preprocess(decoded.frames.to(device), spec)  # (3, n, height, width)
        release(decoded.frames)
        for pathways in decoded.positions:
            # Copies are non-blocking, so that the CPU does not wait for GPU kernels that still run.
            indices = [torch.from_numpy(p).to(device, non_blocking=True) for p in pathways]
            views.append([frames[:, index] for index in indices])
    return [torch.stack(pathway) for pathway in zip(*views, strict=True)]


def to_masks(batch: list[Decoded], spec, device: torch.device, regions: int) -> dict[str, Tensor]:
    """Make masks from a decoded batch, scaled and cropped by area as `preprocess` scales and crops frames.

    Returns pathway -> (B, regions, T, height, width) float32, with the views in the order of the batch.
    """
    views = []
    for decoded in batch:
        assert decoded.masks is not None
        numbers = torch.from_numpy(decoded.masks).to(device)
        fractions = torch.stack([numbers == region for region in range(regions)]).float()  # (R, n, H, W)
        fractions = crop(resample(fractions, scaled_shape(numbers.shape[1:], spec.size)), spec)
        views += [[fractions[:, torch.from_numpy(p)] for p in pathways] for pathways in decoded.positions]
    stacked = (torch.stack(pathway) for pathway in zip(*views, strict=True))
    return dict(zip(spec.pathways, stacked, strict=True))


def preprocess(frames: Tensor, spec) -> Tensor:
    """Normalise, scale and centre-crop uint8 frames (n, H, W, 3); return float32 (3, n, height, width)."""
    x = frames.permute(0, 3, 1, 2).float() / 255  # (n, 3, H, W)
    values = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    mean, std = (v.to(x.device, non_blocking=True) for v in values)
    return crop(scale((x - mean) / std, spec.size), spec).transpose(0, 1).contiguous()


def crop(x: Tensor, spec) -> Tensor:
    """Crop the centre of images (..., H, W) to the size of the network's input, given by `spec`."""
    height, width = (spec.crop, spec.crop) if isinstance(spec.crop, int) else spec.crop
    top, left = round((x.shape[-2] - height) / 2), round((x.shape[-1] - width) / 2)
    if top < 0 or left < 0:
        raise UserError(
            f"frames of {x.shape[-2]}x{x.shape[-1]} (height, width) are smaller than model.input.crop="
            f"{height}x{width}: give a larger model.input.size"
        )
    return x[..., top : top + height, left : left + width]


def scale(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Scale images (n, C, H, W) bilinearly, without antialiasing, to `size` (height, width).

    If `size` is one number, the short side has `size` pixels and the long side keeps the aspect ratio; its
    length is rounded down.
    """
    return F.interpolate(x, size=scaled_shape(x.shape[2:], size), mode="bilinear", align_corners=False)


def scaled_shape(shape: Sequence[int], size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width of images of `shape` (height, width) after scaling, see `scale`."""
    height, width = shape
    if not isinstance(size, int):
        return size[0], size[1]
    return (int(height / width * size), size) if width < height else (size, int(width / height * size))
