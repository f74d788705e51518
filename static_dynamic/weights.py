"""Hashes of tensors, and checks of the numbers in a checkpoint."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from static_dynamic.errors import UserError, quoted


def hash_lines(state: Mapping[str, Tensor]) -> str:
    """Return one line per tensor: SHA-256 of the bytes, data type, shape and key."""
    lines = []
    for key, tensor in state.items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha256 = hashlib.sha256(data.numpy()).hexdigest()  # type: ignore[arg-type]
        lines.append(f"{sha256} {tensor.dtype} {tuple(tensor.shape)} {key}\n")
    return "".join(lines)


def digest(state: Mapping[str, Tensor]) -> str:
    """Return one SHA-256 of all tensors, in hex; the order of the keys has no effect."""
    return hashlib.sha256(hash_lines(dict(sorted(state.items()))).encode()).hexdigest()


def check_numbers(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Path) -> None:
    """Raise UserError if a checkpoint holds NaN, infinity, or numbers of another type than the network.

    `own` is the network's state dict; `state` has the same keys and shapes. Integers are allowed where the
    network counts (num_batches_tracked), infinite values where the network's own values are the same.
    """
    for key, expected in own.items():
        found = state[key]
        if _kind(found) != _kind(expected):
            raise UserError(
                f"checkpoint {source}: {key} holds {_kind(found)} numbers ({found.dtype}), but the network "
                f"needs {_kind(expected)} numbers: save the network's own weights, not converted ones"
            )
        finite = torch.isfinite(found.to(expected.dtype))
        if not finite.all() and not torch.equal(found[~finite], expected[~finite].to(found.dtype)):
            bad = int((~finite).sum())
            raise UserError(
                f"checkpoint {source}: {bad} of {found.numel()} values of {key} are NaN or infinite: "
                "take a checkpoint from before the training diverged, or download the file again"
            )


def check_no_nan(state: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError if weights that another package has loaded contain a NaN."""
    for key, value in state.items():
        if value.is_floating_point() and value.isnan().any():
            raise UserError(f"{source}: the weights {quoted(key)} contain NaN: give other weights")


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    if tensor.is_floating_point():
        return "floating-point"
    return "boolean" if tensor.dtype == torch.bool else "integer"
