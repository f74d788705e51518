"""Choice of the device (CPU or GPU) that networks run on."""

import os

import torch

from static_dynamic.errors import UserError

DEVICES = "cpu (or -1), cuda, cuda:N, or the number N of a GPU"
"""Allowed values of ``--device``, as messages and help texts show them."""


def choose_device(device: str | int | None) -> torch.device:
    """Return the device that the value of ``--device`` names, and switch off TF32 (reduced precision).

    Values are ``cpu`` or -1; ``cuda``, ``cuda:N`` or N for a GPU; None for a GPU if torch sees one, else the
    CPU. Under torchrun, None gives each process its own GPU. Raises UserError if the value names no device,
    or a GPU that torch does not see.
    """
    # Switch off TF32, torch's default for convolutions on a GPU, which keeps only three decimal digits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if device is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        rank = int(os.environ["LOCAL_RANK"]) if launched() else 0
        return torch.device("cuda", rank % torch.cuda.device_count())
    name = {"-1": "cpu"}.get(str(device), f"cuda:{device}" if str(device).isdigit() else str(device))
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={device} is not a device: give {DEVICES}") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UserError(f"device={device}: torch finds {count} GPUs on this machine; give cpu or another GPU")
    return chosen


def launched() -> bool:
    """Return whether torchrun started this process."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()
