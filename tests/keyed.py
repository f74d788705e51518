"""Reproducible weights and inputs: each tensor comes from a numpy RandomState seeded by its name.

The stored golden outputs were made with these tensors; numpy keeps the legacy RandomState bit-stable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor

TOKENS = {
    "cls_token",
    "pos_embed",
    "time_embed",
    "pos_embed_spatial",
    "pos_embed_temporal",
    "pos_embed_class",
}


def generator(name: str) -> np.random.RandomState:
    return np.random.RandomState(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big"))


def keyed_tensor(model: str, key: str, shape: tuple[int, ...]) -> Tensor:
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    draw, count = generator(f"{model}|{key}"), prod(shape)
    if leaf == "running_var":
        values = 0.5 + draw.random_sample(count)
    elif leaf == "weight" and len(shape) == 1:
        values = 0.5 + 0.5 * draw.random_sample(count)
    else:
        values = draw.standard_normal(count)
        if leaf == "running_mean":
            values *= 0.1
        elif leaf in TOKENS:
            values *= 0.2
        elif len(shape) < 2:
            values *= 0.05
        else:
            values /= float(np.prod(shape[1:])) ** 0.5
            if ".value." in key:
                values *= 0.3
            elif model == "rtnet34" and (".query." in key or ".key." in key):
                values *= 0.5
    return torch.from_numpy(values.astype(np.float32).reshape(shape))


def keyed_state_dict(model: str, template: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: keyed_tensor(model, key, tuple(value.shape)) for key, value in template.items()}


def keyed_video(name: str, shape) -> Tensor:  # (B, C, T, H, W)
    return _blocks(name, tuple(shape), {2: 2, 3: 16, 4: 16})


def keyed_image(name: str, shape) -> Tensor:  # (..., C, H, W)
    return _blocks(name, tuple(shape), {len(shape) - 2: 16, len(shape) - 1: 16})


def probabilities(net, inputs) -> Tensor:
    """Class probabilities of the original's test mode, (B, classes): the mean of a softmax per position."""
    scores = net.logit_map(inputs).softmax(dim=-1)
    return scores.mean(dim=tuple(range(1, scores.dim() - 1))) if scores.dim() > 2 else scores


def _blocks(name: str, shape: tuple[int, ...], cell: dict[int, int]) -> Tensor:
    draw = generator(name)
    coarse = draw.standard_normal([-(-n // cell.get(d, 1)) for d, n in enumerate(shape)]) * 1.2
    for d, size in cell.items():
        coarse = np.repeat(coarse, size, axis=d).take(range(shape[d]), axis=d)
    return torch.from_numpy((coarse + 0.3 * draw.standard_normal(shape)).astype(np.float32))
