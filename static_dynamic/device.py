"""The device that computes."""

from __future__ import annotations

import os

import torch

from static_dynamic.errors import UserError


def choose_device(device: str | int | None) -> torch.device:
    """The device that ``--device`` means: a number is a GPU, -1 the CPU, null a GPU where there is one (under
    torchrun each process's own). TF32 is off from here on."""
    without_tf32()
    if device is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        rank = int(os.environ["LOCAL_RANK"]) if launched() else 0
        return torch.device("cuda", rank % torch.cuda.device_count())
    name = {"-1": "cpu"}.get(str(device), f"cuda:{device}" if str(device).isdigit() else str(device))
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={device} is not a device: give cpu, cuda, or the number of a GPU") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={device}: torch sees {torch.cuda.device_count()} GPUs here; give device=cpu")
    return chosen


def launched() -> bool:
    """Whether torchrun started this process."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def without_tf32() -> None:
    """Let fp32 mean fp32 on a GPU, as it does elsewhere: TF32, which convolutions take there of themselves,
    keeps three digits."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
