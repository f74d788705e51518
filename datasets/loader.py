"""From views to tensors: workers decode each frame once, the device scales, crops and puts them in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset, get_worker_info

from static_dynamic.datasets.clips import ClipList, style_folder
from static_dynamic.datasets.frames import BadFrames
from static_dynamic.datasets.shared_memory import SharedFrames, give_back


@dataclass(frozen=True)
class Decoded:
    """The frames of one clip in one style, and the views made of them.

    ``frames`` (n, H, W, 3) uint8, or None with ``error`` where they could not be read; ``rows`` row numbers
    of the views; ``positions`` per view and pathway, the positions within ``frames`` in the order to be
    seen.
    """

    clip: str
    style: int
    rows: NDArray
    positions: list[list[NDArray]]  # no tensors: each would be a shared file of its own
    frames: Tensor | None
    error: str = ""


class ViewBatches(Dataset):
    """Batches of views, in row order: item i is a list of `Decoded`, each frame decoded once."""

    def __init__(self, clips: ClipList, views: pd.DataFrame, rows: NDArray, batch_size: int):
        self.clips = clips
        # plain lists and arrays: workers that fork share them, and a batch costs little beside its frames
        chosen = views.iloc[rows]
        self.keys = list(zip(chosen["clip"], chosen["video"], chosen["style"], strict=True))
        self.rows = np.asarray(rows)
        self.frames = [chosen[c].tolist() for c in views.columns if c.startswith("frames_")]
        self.batch_size = batch_size
        self.given_up: dict[tuple[str, str, int], str] = {}  # key -> why nobody is to try to read it again
        self.shared: SharedFrames | None = None  # where workers put frames

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, i: int) -> list[Decoded]:
        return [self.decode(members) for members in self.groups(i)]

    def groups(self, i: int) -> list[list[int]]:
        """Items of a batch, those that show the same frames together."""
        span = range(i * self.batch_size, min((i + 1) * self.batch_size, len(self.rows)))
        groups: dict[tuple[str, str, int], list[int]] = {}
        for k in span:
            groups.setdefault(self.keys[k], []).append(k)
        return list(groups.values())

    def path_of(self, key: tuple[str, str, int]) -> Path:
        """Where the video of an item lies, but for its ending."""
        _, video, style = key
        return style_folder(self.clips.root, style, self.clips.normal_root) / video

    def decode(self, members: list[int]) -> Decoded:
        """Read the frames of items of one clip in one style."""
        clip, video, style = key = self.keys[members[0]]
        frames = [np.stack([pathway[k] for k in members]) for pathway in self.frames]  # (views, T) a pathway
        wanted, where = np.unique(np.concatenate([f.ravel() for f in frames]), return_inverse=True)
        ends = np.cumsum([f.size for f in frames])[:-1]
        by_pathway = [p.reshape(len(members), -1) for p in np.split(where, ends)]
        positions = [[p[k] for p in by_pathway] for k in range(len(members))]
        rows = self.rows[members]
        if key in self.given_up:
            return Decoded(clip, style, rows, positions, None, self.given_up[key])
        pixels = []

        def room(shape, dtype) -> NDArray:
            pixels.append(self.room(shape))
            return pixels[0].numpy()

        try:
            self.clips.frames_of(video, style).read(wanted.tolist(), room)
        except BadFrames as error:
            # as a value: a worker's exception would come back as its traceback
            return Decoded(clip, style, rows, positions, None, str(error))
        return Decoded(clip, style, rows, positions, pixels[0])

    def room(self, shape: tuple[int, ...]) -> Tensor:
        """An array for uint8 frames; in a worker, shared memory where there is some."""
        worker = get_worker_info()
        if worker is None or self.shared is None:
            return torch.empty(shape, dtype=torch.uint8)
        return self.shared.take(shape, worker.id)


def to_inputs(batch: list[Decoded], spec, device: torch.device) -> list[Tensor]:
    """Make the decoded frames of a batch into what the network's pathways see; their memory is given back.

    Parameters
    ----------
    spec
        The network's input: ``size``, ``crop``, ``mean``, ``std``.

    Returns
    -------
    list
        For each pathway (B, 3, T, crop, crop) float32 on `device`, views in the order of the batch.
    """
    views = []
    for decoded in batch:
        frames = preprocess(decoded.frames.to(device), spec)  # (3, n, crop, crop)
        give_back(decoded.frames)
        for pathways in decoded.positions:
            # not waited for: what was computed before goes on meanwhile
            places = [torch.from_numpy(p).to(device, non_blocking=True) for p in pathways]
            views.append([frames[:, place] for place in places])
    return [torch.stack(pathway) for pathway in zip(*views, strict=True)]


def preprocess(frames: Tensor, spec) -> Tensor:
    """Normalise, scale the short side, crop the centre: (n, H, W, 3) uint8 -> (3, n, crop, crop) float32."""
    x = frames.permute(0, 3, 1, 2).float() / 255  # (n, 3, H, W)
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1).to(x.device, non_blocking=True) for v in (spec.mean, spec.std)
    )
    x = scale_short_side((x - mean) / std, spec.size)
    top, left = (round((side - spec.crop) / 2) for side in x.shape[2:])
    return x[:, :, top : top + spec.crop, left : left + spec.crop].transpose(0, 1).contiguous()


def scale_short_side(x: Tensor, size: int) -> Tensor:
    """Scale (n, C, H, W) so that its short side is `size`; bilinear, no antialiasing, the long side
    rounded down."""
    height, width = x.shape[2:]
    if width < height:
        shape = (int(height / width * size), size)
    else:
        shape = (size, int(width / height * size))
    return F.interpolate(x, size=shape, mode="bilinear", align_corners=False)
