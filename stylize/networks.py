"""Generator and discriminator of few-shot patch-based stylization (Texler et al., SIGGRAPH 2020).

Modules are named so that ``state_dict`` has the keys of Texler et al.'s checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

REFERENCE_FILTERS = (32, 64, 128, 128, 128, 64)
# The encoder halves height and width twice, so the decoder restores only sizes that are multiples of 4.
MULTIPLE = 4


def build_generator(
    filters: Sequence[int] = REFERENCE_FILTERS,
    resnet_blocks: int = 7,
    input_channels: int = 3,
    *,
    use_bias: bool = True,
    tanh: bool = True,
    append_smoothers: bool = True,
) -> Generator:
    """Build a generator, which maps images (B, input_channels, H, W) to images (B, 3, H, W), all in [-1, 1].

    Parameters
    ----------
    filters
        Output channels of conv0, conv1, conv2, the residual blocks (as conv2), both up-convolutions, conv_11.
    input_channels
        3, plus 3 per guide image.
    """
    return Generator(filters, resnet_blocks, input_channels, use_bias, tanh, append_smoothers)


def stylize_any_size(net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Run a generator on images of any size: pad the images by reflection, and crop the output."""
    height, width = images.shape[-2:]
    below, right = -height % MULTIPLE, -width % MULTIPLE
    # Reflection padding needs an image larger than the padding, so tiny images get replicated borders.
    mode = "reflect" if below < height and right < width else "replicate"
    return net(functional.pad(images, (0, right, 0, below), mode=mode))[..., :height, :width]


class Generator(nn.Module):
    """Generator: encoder, residual blocks, and decoder with upsampling and skip connections."""

    def __init__(
        self,
        filters: Sequence[int],
        resnet_blocks: int,
        input_channels: int,
        use_bias: bool,
        tanh: bool,
        append_smoothers: bool,
    ):
        super().__init__()
        f0, f1, f2, f3, f4, f5 = filters
        if f2 != f3:
            raise ValueError(f"filters={tuple(filters)}: the third and the fourth number must be equal")
        sizes = {"filters": tuple(filters), "resnet_blocks": resnet_blocks, "input_channels": input_channels}
        options = {"use_bias": use_bias, "tanh": tanh, "append_smoothers": append_smoothers}
        # `config`: the arguments of `build_generator`
        self.config: dict[str, Any] = {**sizes, **options}
        self.conv0 = _down(input_channels, f0, 7, 1, use_bias)
        self.conv1 = _down(f0, f1, 3, 2, use_bias)
        self.conv2 = _down(f1, f2, 3, 2, use_bias)
        self.resnets = nn.ModuleList(ResidualBlock(f2, use_bias) for _ in range(resnet_blocks))
        self.upconv2 = _up(f2 + f2, f4)
        self.upconv1 = _up(f4 + f1, f4)
        merge = nn.Conv2d(f4 + f0 + input_channels, f5, 7, padding=3, bias=use_bias)
        self.conv_11 = nn.Sequential(merge, nn.ReLU())
        self.conv_11_a = nn.Sequential()
        if append_smoothers:
            self.conv_11_a = nn.Sequential(
                nn.Conv2d(f5, f5, 3, padding=1, bias=use_bias),
                nn.ReLU(),
                nn.BatchNorm2d(f5),
                nn.Conv2d(f5, f5, 3, padding=1, bias=use_bias),
                nn.ReLU(),
            )
        self.conv_12 = nn.Sequential(nn.Conv2d(f5, 3, 1), *([nn.Tanh()] if tanh else []))

    def forward(self, x: Tensor) -> Tensor:
        """Stylize images: (B, input_channels, H, W) -> (B, 3, H, W); H and W are multiples of 4."""
        full = self.conv0(x)  # (B, f0, H, W)
        half = self.conv1(full)  # (B, f1, H/2, W/2)
        convolution, normalization, relu = self.conv2
        raw = convolution(half)  # (B, f2, H/4, W/4)
        quarter = relu(normalization(raw))
        if self.training:
            # Update the batch norm's running statistics twice, because Texler et al.'s code runs conv2 twice.
            with torch.no_grad():
                normalization(raw)
        deep = quarter
        for block in self.resnets:
            deep = block(deep)
        up = self.upconv2(torch.cat((deep, quarter), 1))  # (B, f4, H/2, W/2)
        up = self.upconv1(torch.cat((up, half), 1))  # (B, f4, H, W)
        return self.conv_12(self.conv_11_a(self.conv_11(torch.cat((up, full, x), 1))))


class ResidualBlock(nn.Module):
    """Residual block: input + output of (ReLU, convolution, batch norm, ReLU, convolution)."""

    def __init__(self, channels: int, use_bias: bool):
        super().__init__()
        self.conv_0 = nn.Conv2d(channels, channels, 3, padding=1, bias=use_bias)
        self.normalization = nn.BatchNorm2d(channels)
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1, bias=use_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the residual block to feature maps (B, C, H, W); the output has the same shape."""
        inner = self.normalization(self.conv_0(functional.relu(x)))
        return x + self.conv_1(functional.relu(inner))


class Discriminator(nn.Module):
    """Patch discriminator: one score per patch of an image."""

    def __init__(self, num_filters: int = 12, n_layers: int = 2):
        super().__init__()
        channels = [3, *(num_filters * min(2**n, 8) for n in range(n_layers + 1))]
        strides = [2] * n_layers + [1]
        groups = {}
        for n, (inputs, outputs) in enumerate(pairwise(channels)):
            layers: dict[str, nn.Module] = {"conv": nn.Conv2d(inputs, outputs, 4, strides[n], padding=1)}
            if n:
                layers["normalization"] = nn.InstanceNorm2d(outputs)
            groups[f"conv_{n}" if n else "conv0"] = _named(**layers, relu=nn.LeakyReLU(0.2))
        groups["conv_out"] = _named(conv=nn.Conv2d(channels[-1], 1, 4, padding=1))
        self.net = _named(**groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return one real-or-fake score per patch of the images: (B, 3, H, W) -> (B, 1, h, w)."""
        return self.net(x)


def _down(inputs: int, outputs: int, size: int, stride: int, use_bias: bool) -> nn.Sequential:
    """Make a convolution with the given stride, followed by batch norm and leaky ReLU."""
    convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=use_bias)
    return _named(conv=convolution, normalization=nn.BatchNorm2d(outputs), relu=nn.LeakyReLU(0.2))


def _named(**layers: nn.Module) -> nn.Sequential:
    """Make a sequential module of named layers; the names become prefixes of state dict keys."""
    return nn.Sequential(OrderedDict(layers))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    """Make an upsampling block: nearest-neighbour upsampling by 2, convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
