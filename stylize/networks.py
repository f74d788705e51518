"""The two networks of few-shot patch-based stylization (Texler et al., SIGGRAPH 2020), under the keys of
the original's checkpoints."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional

REFERENCE_FILTERS = (32, 64, 128, 128, 128, 64)
MULTIPLE = 4  # two halvings: sides that are no multiple of this do not come back to their size


def build_generator(
    filters: Sequence[int] = REFERENCE_FILTERS,
    resnet_blocks: int = 7,
    input_channels: int = 3,
    *,
    use_bias: bool = True,
    tanh: bool = True,
    append_smoothers: bool = True,
) -> Generator:
    """Build a generator: (B, input_channels, H, W) in [-1, 1] -> (B, 3, H, W) in [-1, 1].

    Parameters
    ----------
    filters
        Widths of conv0, conv1, conv2, the residual blocks (as conv2), both up-convolutions, conv_11.
    input_channels
        3, and 3 more for each guide image.
    """
    return Generator(filters, resnet_blocks, input_channels, use_bias, tanh, append_smoothers)


def stylize_any_size(net: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Run a generator on images of any size: sides are padded by reflection, the output cropped back."""
    height, width = images.shape[-2:]
    below, right = -height % MULTIPLE, -width % MULTIPLE
    # an image of a pixel or two has nothing to reflect
    mode = "reflect" if below < height and right < width else "replicate"
    return net(functional.pad(images, (0, right, 0, below), mode=mode))[..., :height, :width]


class Generator(nn.Module):
    """Encoder, residual blocks, nearest-neighbour decoder with skips; see `build_generator`."""

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
            raise ValueError(f"filters={tuple(filters)}: the third and the fourth width must be equal")
        self.config = {
            "filters": tuple(filters),
            "resnet_blocks": resnet_blocks,
            "input_channels": input_channels,
            "use_bias": use_bias,
            "tanh": tanh,
            "append_smoothers": append_smoothers,
        }
        self.conv0 = _down(input_channels, f0, 7, 1, use_bias)
        self.conv1 = _down(f0, f1, 3, 2, use_bias)
        self.conv2 = _down(f1, f2, 3, 2, use_bias)
        self.resnets = nn.ModuleList(ResidualBlock(f2, use_bias) for _ in range(resnet_blocks))
        self.upconv2 = _up(f2 + f2, f4)
        self.upconv1 = _up(f4 + f1, f4)
        self.conv_11 = nn.Sequential(
            nn.Conv2d(f4 + f0 + input_channels, f5, 7, padding=3, bias=use_bias), nn.ReLU()
        )
        if append_smoothers:
            self.conv_11_a = nn.Sequential(
                nn.Conv2d(f5, f5, 3, padding=1, bias=use_bias),
                nn.ReLU(),
                nn.BatchNorm2d(f5),
                nn.Conv2d(f5, f5, 3, padding=1, bias=use_bias),
                nn.ReLU(),
            )
        else:
            self.conv_11_a = nn.Identity()
        self.conv_12 = nn.Sequential(nn.Conv2d(f5, 3, 1), *([nn.Tanh()] if tanh else []))

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W), H and W multiples of 4
        full = self.conv0(x)  # (B, f0, H, W)
        half = self.conv1(full)  # (B, f1, H/2, W/2)
        raw = self.conv2.conv(half)  # (B, f2, H/4, W/4)
        quarter = self.conv2.relu(self.conv2.normalization(raw))
        if self.training:
            # the original evaluates conv2 twice: the same numbers, but its running statistics move again
            with torch.no_grad():
                self.conv2.normalization(raw)
        deep = quarter
        for block in self.resnets:
            deep = block(deep)
        up = self.upconv2(torch.cat((deep, quarter), 1))  # (B, f4, H/2, W/2)
        up = self.upconv1(torch.cat((up, half), 1))  # (B, f4, H, W)
        return self.conv_12(self.conv_11_a(self.conv_11(torch.cat((up, full, x), 1))))


class ResidualBlock(nn.Module):
    """ReLU, convolution, normalization, ReLU, convolution; added to the input."""

    def __init__(self, width: int, use_bias: bool):
        super().__init__()
        self.conv_0 = nn.Conv2d(width, width, 3, padding=1, bias=use_bias)
        self.normalization = nn.BatchNorm2d(width)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1, bias=use_bias)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.normalization(self.conv_0(functional.relu(x)))
        return x + self.conv_1(functional.relu(inner))


class Discriminator(nn.Module):
    """A score for each patch of an image, (B, 3, H, W) -> (B, 1, h, w)."""

    def __init__(self, num_filters: int = 12, n_layers: int = 2):
        super().__init__()
        widths = [3, *(num_filters * min(2**n, 8) for n in range(n_layers + 1))]
        strides = [2] * n_layers + [1]
        groups = OrderedDict()
        for n, width, wider, stride in zip(count(), widths, widths[1:], strides, strict=False):
            layers = OrderedDict(conv=nn.Conv2d(width, wider, 4, stride, padding=1))
            if n:
                layers["normalization"] = nn.InstanceNorm2d(wider)
            layers["relu"] = nn.LeakyReLU(0.2)
            groups[f"conv_{n}" if n else "conv0"] = nn.Sequential(layers)
        last = OrderedDict(conv=nn.Conv2d(widths[-1], 1, 4, padding=1))
        groups["conv_out"] = nn.Sequential(last)
        self.net = nn.Sequential(groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _down(width: int, wider: int, size: int, stride: int, use_bias: bool) -> nn.Sequential:
    layers = OrderedDict(
        conv=nn.Conv2d(width, wider, size, stride, padding=size // 2, bias=use_bias),
        normalization=nn.BatchNorm2d(wider),
        relu=nn.LeakyReLU(0.2),
    )
    return nn.Sequential(layers)


def _up(width: int, narrower: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(width, narrower, 3, padding=1, bias=False),
        nn.BatchNorm2d(narrower),
        nn.ReLU(),
    )
