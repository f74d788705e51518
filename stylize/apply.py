"""Apply a style, which is a trained generator or a built-in image filter, to batches of frames."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from static_dynamic.configs import CONFIG_DIR
from static_dynamic.errors import UserError
from static_dynamic.files import sha256
from static_dynamic.stylize.checkpoints import load_generator
from static_dynamic.stylize.exemplars import RENDERING_VERSION, render
from static_dynamic.stylize.networks import stylize_any_size

Frames = NDArray[np.uint8]  # (B, H, W, C)
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Style(Protocol):
    """Interface of a style: a callable that stylizes a batch of frames."""

    # `guides`: number of guide images; an input frame has 3 + 3 * `guides` channels
    guides: int
    # styles with equal `identity` strings produce equal frames
    identity: str

    def __call__(self, frames: Frames) -> Callable[[], Frames]:
        """Start to stylize a batch; return a function that waits for and returns the frames (B, H, W, 3)."""


def make_style(row: Mapping, device: torch.device, precision: str | None = None) -> Style:
    """Make a style from an entry of ``configs/style``, which names a ``checkpoint`` or an image filter.

    A relative path that does not exist is looked up in this project's folder. `precision` is fp32, fp16 or
    bf16; None means fp16 on a GPU and fp32 on the CPU.
    """
    if "checkpoint" not in row:
        return RenderedStyle(row)
    path = Path(row["checkpoint"]).expanduser()
    shipped = CONFIG_DIR.parent / path
    precision = precision or ("fp16" if device.type == "cuda" else "fp32")
    return TrainedStyle(shipped if shipped.is_file() and not path.is_file() else path, device, precision)


class TrainedStyle:
    """Style that is computed by a trained generator.

    On a GPU the call returns before the result is computed, so that the next batch is transferred while this
    batch is encoded.
    """

    def __init__(self, path: Path, device: torch.device, precision: str):
        if precision not in PRECISIONS:
            raise UserError(f"precision={precision} is not supported: give one of {', '.join(PRECISIONS)}")
        net = load_generator(path)
        self.device, self.dtype = device, PRECISIONS[precision]
        self.net = net.to(device, self.dtype)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's type stubs lack memory_format
        self.guides = net.config["input_channels"] // 3 - 1
        self.identity = f"{sha256(path)} {str(self.dtype).removeprefix('torch.')}"

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Callable[[], Frames]:
        """Start to stylize a batch; return a function that waits for and returns the frames (B, H, W, 3)."""
        source = torch.from_numpy(frames)
        if self.device.type == "cuda":
            source = source.pin_memory().to(self.device, non_blocking=True)
        # The permuted tensor (B, C, H, W) is in channels-last memory format, so no copy is needed.
        x = (source.permute(0, 3, 1, 2).float() / 127.5 - 1).to(self.dtype)
        y = stylize_any_size(self.net, x).float()
        # Pixel values are truncated to integers, not rounded, as in Texler et al.'s code.
        y = ((y.clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).contiguous()
        if self.device.type != "cuda":
            return y.numpy
        host = torch.empty(y.shape, dtype=y.dtype, pin_memory=True)
        host.copy_(y, non_blocking=True)
        done = torch.cuda.Event()
        # Record the event on the stream of this style's GPU: torch's current device may be another GPU.
        done.record(torch.cuda.current_stream(self.device))

        def wait() -> Frames:
            done.synchronize()
            return host.numpy()

        return wait


class RenderedStyle:
    """Style that is computed by a built-in image filter of ``stylize.exemplars``."""

    guides = 0

    def __init__(self, row: Mapping):
        self.row = dict(row)
        self.identity = json.dumps([self.row, RENDERING_VERSION], sort_keys=True, default=list)

    def __call__(self, frames: Frames) -> Callable[[], Frames]:
        """Filter the frames immediately; return a function that returns the filtered frames (B, H, W, 3)."""
        images = np.stack([render(frame, self.row) for frame in frames])
        return lambda: images
