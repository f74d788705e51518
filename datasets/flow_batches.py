"""Make network inputs from frames and optical flow.

Worker processes decode, resize and jitter the images; the device (CPU or GPU) normalises the images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from static_dynamic.areas import resample

from .davis import FLOW_FOLDERS, DavisClips, require_shape, size_text
from .frames import BadFrames, read_image
from .jitter import Jitter, apply_jitter
from .loader import Decoded, Key, ViewBatches, crc32
from .orders import DIRECTIONS, FROZEN, REVERSED
from .shared_memory import release

IMAGE_CHANNELS = 3
# RGB colour of flow images where nothing moves.
NO_MOTION = (255, 255, 255)


class FlowBatches(ViewBatches):
    """Batches of views with optical flow, in the order of the views; each image of a batch is decoded once.

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
        self.orders = chosen["order"].tolist()
        # Decoded and resized images of the current batch.
        self.cache: dict[Path, Image.Image] = {}

    def groups(self, i: int) -> list[Sequence[int]]:
        """Group the rows of batch `i` by view; each view has one row per frame."""
        self.cache = {}
        step = self.clips.rows_per_view
        last = min((i + 1) * self.batch_size, len(self.rows))
        return [range(k, k + step) for k in range(i * self.batch_size, last, step)]

    def path_of(self, key: Key) -> Path:
        """Return the folder with the frames of a view's video."""
        _, video, style = key
        return self.clips.image_folder(video, style)

    def decode(self, members: Sequence[int]) -> Decoded:
        """Decode the frames and flow of one view; jitter flow colours if the view has jitter values.

        In the order ``reversed`` the directions of the flow are swapped: the next frame of the reversed video
        is the previous frame. In the order ``frozen`` there is no flow.
        """
        clip, video, style = key = self.keys[members[0]]
        positions, rows = self.positions[members[0]], self.rows[members]
        jitter = np.reshape(self.jitter[members[0]], (-1, DIRECTIONS, len(Jitter._fields)))
        if key in self.given_up:
            return Decoded(clip, style, rows, [], None, self.given_up[key])
        clips, size, order = self.clips, self.clips.sizes[video], self.orders[members[0]]
        folders = FLOW_FOLDERS[::-1][: len(clips.flows)] if order == REVERSED else clips.flows
        try:
            images = [self._picture(clips.image_file(video, style, t), size, False) for t in positions]
            if order == FROZEN:
                still = Image.new("RGB", self.shape[::-1], NO_MOTION)
                flows = [[still] * len(folders) for _ in positions]
            else:
                flows = [
                    [self._picture(clips.flow_file(video, flow, t), size, True) for flow in folders]
                    for t in positions
                ]
            masks = clips.masks.read(video, positions, size[::-1]) if clips.masks else None
        except BadFrames as error:
            # Errors are returned, because an exception in a worker would stop the run with a traceback.
            return Decoded(clip, style, rows, [], None, str(error))
        if len(jitter):
            # If the network sees only one flow direction, zip drops the jitter of the second direction.
            flows = [
                [apply_jitter(p, Jitter(*j)) for p, j in zip(pictures, of_frame, strict=False)]
                for pictures, of_frame in zip(flows, jitter, strict=True)
            ]
        stacked = [[image, *pictures] for image, pictures in zip(images, flows, strict=True)]
        pixels = self.allocate((len(stacked), *self.shape, IMAGE_CHANNELS * len(stacked[0])))
        for t, pictures in enumerate(stacked):
            np.concatenate([np.asarray(p) for p in pictures], axis=-1, out=pixels[t].numpy())
        digests = np.array([crc32(frame) for frame in pixels], np.uint32)
        return Decoded(clip, style, rows, [], pixels, digests=digests, masks=masks)

    def _picture(self, file: Path, size: tuple[int, int], is_flow: bool) -> Image.Image:
        """Read a frame or flow image, resize it to the input size; `size` is the video's (width, height)."""
        if file not in self.cache:
            picture = Image.fromarray(read_image(file))
            if is_flow:
                require_shape(file, picture.size, size)
            if picture.size != size and not is_flow:
                raise BadFrames(
                    f"{file} has {size_text(picture.size)} pixels, "
                    f"but the video's first frame has {size_text(size)}"
                )
            # the paper's code resizes flow images to the frame's size first
            if picture.size != size:
                picture = picture.resize(size, Image.Resampling.BICUBIC)
            # When Pillow scales down, it widens the bilinear filter, which avoids aliasing.
            self.cache[file] = picture.resize(self.shape[::-1], Image.Resampling.BILINEAR)
        return self.cache[file]


def flow_masks(batch: Sequence[Decoded], spec, device: torch.device, regions: int) -> dict[str, Tensor]:
    """Make masks (B, regions, T, H, W) float32 from a decoded batch, at the input size of the network."""
    masks = np.stack([decoded.masks for decoded in batch if decoded.masks is not None])
    numbers = torch.from_numpy(masks).to(device)  # (B, T, H, W)
    fractions = torch.stack([numbers == region for region in range(regions)], dim=1).float()
    return dict.fromkeys(spec.pathways, resample(fractions, spec.shape))


def flow_inputs(batch: Sequence[Decoded], spec, device: torch.device) -> dict[str, Tensor]:
    """Make network inputs from the decoded frames and flow images of a batch; free the images' memory.

    Returns a dict ``Image``, ``Flow``: (B, C, H, W) float32, or (B, T, C, H, W) for networks that see T > 1
    frames. Views that could not be read are left out. ``mean`` and ``std`` of the network's input spec `spec`
    normalise ``Image`` and ``Flow``.
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
