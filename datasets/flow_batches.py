"""From views of frames and flow to tensors: workers decode, resize and jitter, the device normalises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from static_dynamic.datasets.davis import DavisClips, require_shape, size_text
from static_dynamic.datasets.frames import BadFrames, read_image
from static_dynamic.datasets.jitter import Jitter, apply_jitter
from static_dynamic.datasets.loader import Decoded, ViewBatches
from static_dynamic.datasets.shared_memory import give_back
from static_dynamic.datasets.views import DIRECTIONS

IMAGE_CHANNELS = 3


class FlowBatches(ViewBatches):
    """Batches of views of frames with flow, in row order; each picture of a batch is decoded once.

    Items are `Decoded` of one look at a clip: ``frames`` (T, h, w, 3 + 3 per direction of flow) uint8 at the
    size of the network, ``rows`` one a frame, no ``positions``.
    """

    clips: DavisClips

    def __init__(
        self, clips: DavisClips, views: pd.DataFrame, rows: NDArray, batch_size: int, shape: tuple[int, int]
    ):
        super().__init__(clips, views, rows, batch_size)
        self.shape = shape  # height and width
        chosen = views.iloc[rows]
        self.positions, self.jitter = chosen["frames_Image"].tolist(), chosen["jitter"].tolist()
        self.seen: dict[Path, Image.Image] = {}  # pictures of the batch at hand

    def groups(self, i: int) -> list[Sequence[int]]:
        """Items of a batch: the rows of each look at a clip together."""
        self.seen = {}
        step = self.clips.rows_per_view
        last = min((i + 1) * self.batch_size, len(self.rows))
        return [range(k, k + step) for k in range(i * self.batch_size, last, step)]

    def path_of(self, key: tuple[str, str, int]) -> Path:
        """Where the video of an item lies."""
        _, video, style = key
        return self.clips.image_folder(video, style)

    def decode(self, members: Sequence[int]) -> Decoded:
        """Read the pictures of one look at a clip, its flow jittered where that is what it shows."""
        clip, video, style = key = self.keys[members[0]]
        positions, rows = self.positions[members[0]], self.rows[members]
        jitter = np.reshape(self.jitter[members[0]], (-1, DIRECTIONS, len(Jitter._fields)))
        if key in self.given_up:
            return Decoded(clip, style, rows, [], None, self.given_up[key])
        try:
            images = [self._image(video, style, t) for t in positions]
            flows = [[self._flow(video, t, flow) for flow in self.clips.flows] for t in positions]
        except BadFrames as error:
            # as a value: a worker's exception would come back as its traceback
            return Decoded(clip, style, rows, [], None, str(error))
        if len(jitter):
            # changes are drawn for both directions, whatever the network sees
            flows = [
                [apply_jitter(p, Jitter(*c)) for p, c in zip(pictures, changes, strict=False)]
                for pictures, changes in zip(flows, jitter, strict=True)
            ]
        shown = [[image, *pictures] for image, pictures in zip(images, flows, strict=True)]
        pixels = self.room((len(shown), *self.shape, IMAGE_CHANNELS * len(shown[0])))
        for t, pictures in enumerate(shown):
            np.concatenate([np.asarray(p) for p in pictures], axis=-1, out=pixels[t].numpy())
        return Decoded(clip, style, rows, [], pixels)

    def _image(self, video: str, style: int, position: int) -> Image.Image:
        file = self.clips.image_file(video, style, position)
        if file not in self.seen:
            picture, size = Image.fromarray(read_image(file)), self.clips.sizes[video]
            if picture.size != size:
                said = f"{size_text(picture.size)} pixels, the first frame of its video {size_text(size)}"
                raise BadFrames(f"{file} has {said}")
            self.seen[file] = self._resized(picture)
        return self.seen[file]

    def _flow(self, video: str, position: int, flow: str) -> Image.Image:
        file = self.clips.flow_file(video, flow, position)
        if file not in self.seen:
            picture, size = Image.fromarray(read_image(file)), self.clips.sizes[video]
            require_shape(file, picture.size, size)
            if picture.size != size:  # through the size of the image, as in the original
                picture = picture.resize(size, Image.Resampling.BICUBIC)
            self.seen[file] = self._resized(picture)
        return self.seen[file]

    def _resized(self, picture: Image.Image) -> Image.Image:
        # Pillow's bilinear filter widens where it scales down: there is no aliasing
        return picture.resize(self.shape[::-1], Image.Resampling.BILINEAR)


def flow_inputs(batch: Sequence[Decoded], spec, device: torch.device) -> dict[str, Tensor]:
    """Make the pictures of a batch into what a network sees; their memory is given back.

    Parameters
    ----------
    spec
        The network's input: ``mean`` and ``std``, which hold for images and flow.

    Returns
    -------
    dict
        ``Image`` and ``Flow``, (B, C, H, W) float32, or (B, T, C, H, W) where T frames are seen at once.
    """
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (spec.mean, spec.std))
    x = torch.stack([decoded.frames.to(device) for decoded in batch])  # (B, T, H, W, C)
    for decoded in batch:
        give_back(decoded.frames)
    x = x.permute(0, 1, 4, 2, 3).unflatten(2, (-1, 3)).float() / 255  # (B, T, C / 3, 3, H, W)
    x = ((x - mean) / std).flatten(2, 3)
    x = x.squeeze(1) if x.shape[1] == 1 else x
    image, flow = x.tensor_split([IMAGE_CHANNELS], dim=-3)
    return {"Image": image.contiguous(), "Flow": flow.contiguous()}
