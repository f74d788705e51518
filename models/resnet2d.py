"""Building blocks of 2D ResNets (He et al., CVPR 2016) and ResNeXts (Xie et al., CVPR 2017).

Key names within a block and a layer are torchvision's (``layer3.0.bn2.weight``, ``layer3.0.downsample.0``).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Number of output channels of the stem, and number of inner channels of the blocks of layer 1.
WIDTH = 64


def conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Build a convolution without bias, padded so that only the stride reduces height and width."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)


def conv_norm_relu(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> list[nn.Module]:
    """Return the list [convolution, batch norm, ReLU], for ``nn.Sequential``."""
    return [conv(inputs, outputs, kernel, dilation=dilation), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def basic(inputs: int, width: int, stride: int, dilation: int) -> list[nn.Conv2d]:
    """Build the two convolutions of a basic residual block (ResNet-18 and ResNet-34)."""
    return [conv(inputs, width, 3, stride, dilation), conv(width, width, 3)]


def bottleneck(
    inputs: int, width: int, stride: int, dilation: int, groups: int = 1, group_width: int = WIDTH
) -> list[nn.Conv2d]:
    """Build the three convolutions of a bottleneck block; `stride` applies to the 3x3 convolution."""
    inner = groups * width * group_width // WIDTH
    return [
        conv(inputs, inner, 1),
        conv(inner, inner, 3, stride, dilation, groups),
        conv(inner, 4 * width, 1),
    ]


# Name -> (function that builds a block's convolutions, blocks of each layer, output channels of each layer).
ARCHITECTURES: dict[str, tuple[Callable[..., list[nn.Conv2d]], tuple[int, ...], tuple[int, ...]]] = {
    "resnet34": (basic, (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet101": (bottleneck, (3, 4, 23, 3), (256, 512, 1024, 2048)),
    "resnext50": (partial(bottleneck, groups=32, group_width=4), (3, 4, 6, 3), (256, 512, 1024, 2048)),
}


class Block(nn.Module):
    """Residual block: convolutions with norm and ReLU, added to the input or to a projection of the input."""

    def __init__(self, convs: Sequence[nn.Conv2d], stride: int):
        super().__init__()
        inputs, outputs = convs[0].in_channels, convs[-1].out_channels
        for i, layer in enumerate(convs, start=1):
            self.add_module(f"conv{i}", layer)
            self.add_module(f"bn{i}", nn.BatchNorm2d(layer.out_channels))
        self.depth = len(convs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H/s, W/s); s is the stride."""
        skip = x if self.downsample is None else self.downsample(x)
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            x = F.relu(x if i < self.depth else x + skip, inplace=True)
        return x


def resnet_layers(name: str, output_stride: int = 32) -> list[nn.Sequential]:
    """Build layers 1 to 4 of the ResNet `name`, a key of `ARCHITECTURES`.

    Layers are dilated instead of strided where the total stride would exceed `output_stride`. The first
    block of such a layer still has the dilation of the layer before it.
    """
    make_convs, depths, outputs = ARCHITECTURES[name]
    layers: list[nn.Sequential] = []
    inputs, shrunk, dilation = WIDTH, 4, 1
    for i, depth in enumerate(depths):
        stride, first_dilation = min(i + 1, 2), dilation
        if shrunk * stride > output_stride:
            stride, dilation = 1, dilation * stride
        shrunk *= stride
        first = Block(make_convs(inputs, WIDTH * 2**i, stride, first_dilation), stride)
        rest = [Block(make_convs(outputs[i], WIDTH * 2**i, 1, dilation), 1) for _ in range(depth - 1)]
        layers.append(nn.Sequential(first, *rest))
        inputs = outputs[i]
    return layers


def stem(channels: int = 3) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Build the first convolution and batch norm; call `pooled` on the output for ReLU and max pooling."""
    return conv(channels, WIDTH, 7, stride=2), nn.BatchNorm2d(WIDTH)


def pooled(x: Tensor) -> Tensor:
    """Apply the stem's ReLU and max pooling: (B, C, H, W) -> (B, C, H/2, W/2)."""
    return F.max_pool2d(torch.relu(x), 3, 2, 1)
