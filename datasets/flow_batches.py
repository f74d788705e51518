"""Make network inputs from frames and flow: workers decode, resize and jitter, the device normalises."""

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
from static_dynamic.datasets.shared_memory import release
from static_dynamic.datasets.views import DIRECTIONS

IMAGE_CHANNELS = 3


class FlowBatches(ViewBatches):
    """Batches of views with flow, in row order; each image of a batch is decoded once.

    Items are one `Decoded` per view: ``frames`` (T, H, W, C) uint8 at the input size of the network, with 3
    image channels and 3 channels per flow direction; ``rows`` has one row per frame; ``positions`` is empty.
    """

    clips: DavisClips

    def __init__(
        self, clips: DavisClips, views: pd.DataFrame, rows: NDArray, batch_size: int, shape: tuple[int, int]
    ):
        super().__init__(clips, views, rows, batch_size)
        self.shape = shape  # height and width
        chosen = views.iloc[rows]
        self.positions, self.jitter = chosen["frames_Image"].tolist(), chosen["jitter"].tolist()
        self.cache: dict[Path, Image.Image] = {}  # decoded images of the current batch

    def groups(self, i: int) -> list[Sequence[int]]:
        """Group the rows of batch `i` by view."""
        self.cache = {}
        step = self.clips.rows_per_view
        last = min((i + 1) * self.batch_size, len(self.rows))
        return [range(k, k + step) for k in range(i * self.batch_size, last, step)]

    def path_of(self, key: tuple[str, str, int]) -> Path:
        """Return the folder of an item's video."""
        _, video, style = key
        return self.clips.image_folder(video, style)

    def decode(self, members: Sequence[int]) -> Decoded:
        """Decode the images and flow of one view, and jitter the flow if the view asks for it."""
        clip, video, style = key = self.keys[members[0]]
        positions, rows = self.positions[members[0]], self.rows[members]
        jitter = np.reshape(self.jitter[members[0]], (-1, DIRECTIONS, len(Jitter._fields)))
        if key in self.given_up:
            return Decoded(clip, style, rows, [], None, self.given_up[key])
        try:
            images = [self._image(video, style, t) for t in positions]
            flows = [[self._flow(video, t, flow) for flow in self.clips.flows] for t in positions]
        except BadFrames as error:
            # Returned, not raised: an exception in a worker would stop the run with a traceback.
            return Decoded(clip, style, rows, [], None, str(error))
        if len(jitter):
            # Jitter is drawn for both flow directions; zip drops the second if the network sees only one.
            flows = [
                [apply_jitter(p, Jitter(*j)) for p, j in zip(pictures, of_frame, strict=False)]
                for pictures, of_frame in zip(flows, jitter, strict=True)
            ]
        stacked = [[image, *pictures] for image, pictures in zip(images, flows, strict=True)]
        pixels = self.allocate((len(stacked), *self.shape, IMAGE_CHANNELS * len(stacked[0])))
        for t, pictures in enumerate(stacked):
            np.concatenate([np.asarray(p) for p in pictures], axis=-1, out=pixels[t].numpy())
        return Decoded(clip, style, rows, [], pixels)

    def _image(self, video: str, style: int, position: int) -> Image.Image:
        file = self.clips.image_file(video, style, position)
        if file not in self.cache:
            picture, size = Image.fromarray(read_image(file)), self.clips.sizes[video]
            if picture.size != size:
                sizes = f"{size_text(picture.size)} pixels, the first frame of its video {size_text(size)}"
                raise BadFrames(f"{file} has {sizes}")
            self.cache[file] = self._resized(picture)
        return self.cache[file]

    def _flow(self, video: str, position: int, flow: str) -> Image.Image:
        file = self.clips.flow_file(video, flow, position)
        if file not in self.cache:
            picture, size = Image.fromarray(read_image(file)), self.clips.sizes[video]
            require_shape(file, picture.size, size)
            if picture.size != size:  # first to the size of the frame, as in the paper's code
                picture = picture.resize(size, Image.Resampling.BICUBIC)
            self.cache[file] = self._resized(picture)
        return self.cache[file]

    def _resized(self, picture: Image.Image) -> Image.Image:
        # Pillow widens its bilinear filter when it scales down, which avoids aliasing.
        return picture.resize(self.shape[::-1], Image.Resampling.BILINEAR)


def flow_inputs(batch: Sequence[Decoded], spec, device: torch.device) -> dict[str, Tensor]:
    """Make network inputs from the decoded images and flow of a batch, and release their memory.

    Parameters
    ----------
    batch
        Views that could be read: none with ``frames=None``.
    spec
        Input spec of the network: ``mean`` and ``std``, used for images and flow alike.

    Returns
    -------
    dict
        ``Image`` and ``Flow``: (B, C, H, W) float32, or (B, T, C, H, W) for networks that see T > 1 frames.
    """
    mean, std = (torch.tensor(v, device=device).view(3, 1, 1) for v in (spec.mean, spec.std))
    frames = [decoded.frames for decoded in batch if decoded.frames is not None]
    x = torch.stack([frame.to(device) for frame in frames])  # (B, T, H, W, C)
    for frame in frames:
        release(frame)
    x = x.permute(0, 1, 4, 2, 3).unflatten(2, (-1, 3)).float() / 255  # (B, T, C / 3, 3, H, W)
    x = ((x - mean) / std).flatten(2, 3)
    x = x.squeeze(1) if x.shape[1] == 1 else x
    image, flow = x.tensor_split([IMAGE_CHANNELS], dim=-3)
    return {"Image": image.contiguous(), "Flow": flow.contiguous()}
