"""One style as a function of a batch of frames: a trained generator, or a built-in rendering."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from static_dynamic.configs import CONFIG_DIR
from static_dynamic.errors import UserError
from static_dynamic.files import sha256
from static_dynamic.stylize import exemplars
from static_dynamic.stylize.checkpoints import load_generator
from static_dynamic.stylize.exemplars import render
from static_dynamic.stylize.networks import stylize_any_size

log = logging.getLogger(__name__)

Frames = NDArray[np.uint8]
PRECISIONS = {"float32": torch.float32, "float16": torch.float16}


class Style(Protocol):
    """A batch (B, H, W, 3 + 3 per guide) -> a function that waits for the result, (B, H, W, 3)."""

    guides: int
    identity: str  # two styles of one identity give the same frames

    def __call__(self, frames: Frames) -> Callable[[], Frames]: ...


def make_style(row: Mapping, device: torch.device, precision: str | None = None) -> Style:
    """A style from a row of ``configs/style``: ``checkpoint`` (a file; a relative path that is not found
    starts at this project's root), or ``rendering`` with its parameters.

    Parameters
    ----------
    precision
        float32 or float16; None takes float16 on a GPU.
    """
    if "checkpoint" not in row:
        return RenderedStyle(row)
    path = Path(row["checkpoint"]).expanduser()
    shipped = CONFIG_DIR.parent / path
    precision = precision or ("float16" if device.type == "cuda" else "float32")
    return TrainedStyle(shipped if shipped.is_file() and not path.is_file() else path, device, precision)


class TrainedStyle:
    """A generator. On a GPU the call returns before the result is there, so that the next batch is on its
    way while this one is encoded."""

    def __init__(self, path: Path, device: torch.device, precision: str):
        if precision not in PRECISIONS:
            raise UserError(f"precision={precision}: one of {', '.join(PRECISIONS)} is expected")
        net = load_generator(path)
        self.device, self.dtype = device, PRECISIONS[precision]
        self.net = net.to(device, self.dtype, memory_format=torch.channels_last)
        self.guides = net.config["input_channels"] // 3 - 1
        self.identity = f"{sha256(path)} {precision}"

    @torch.inference_mode()
    def __call__(self, frames: Frames) -> Callable[[], Frames]:
        source = torch.from_numpy(frames)
        if self.device.type == "cuda":
            source = source.pin_memory().to(self.device, non_blocking=True)
        # (B, H, W, C) seen as (B, C, H, W) is channels-last already
        x = (source.permute(0, 3, 1, 2).float() / 127.5 - 1).to(self.dtype)
        y = stylize_any_size(self.net, x).float()
        # cut off to 8 bits, as in the original
        y = ((y.clamp(-1, 1) + 1) * 127.5).byte().permute(0, 2, 3, 1).contiguous()
        if self.device.type != "cuda":
            return y.numpy
        host = torch.empty(y.shape, dtype=y.dtype, pin_memory=True)
        host.copy_(y, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))  # not the current device's

        def wait() -> Frames:
            done.synchronize()
            return host.numpy()

        return wait


class RenderedStyle:
    """A rendering of ``stylize.exemplars``."""

    guides = 0

    def __init__(self, row: Mapping):
        self.row = dict(row)
        code = hashlib.sha256(Path(exemplars.__file__).read_bytes()).hexdigest()
        self.identity = json.dumps([self.row, code], sort_keys=True, default=list)

    def __call__(self, frames: Frames) -> Callable[[], Frames]:
        images = np.stack([render(frame, self.row) for frame in frames])
        return lambda: images
