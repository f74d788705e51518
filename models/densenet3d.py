"""3D DenseNet (Hara et al., CVPR 2018, after Huang et al., "Densely Connected Convolutional Networks",
CVPR 2017).

Key names are torchvision's (``features.denseblock1.denselayer1.norm1.weight``); keys of the authors' release
(``norm.1``) are converted.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

STEM = 64
# Ratio of the channels between the two convolutions of a dense layer to the channels that the layer appends.
BOTTLENECK = 4


class DenseLayer(nn.Sequential):
    """Dense layer: a 1x1x1 and a 3x3x3 convolution, whose output channels are appended to the input."""

    def __init__(self, inputs: int, growth: int):
        inner = BOTTLENECK * growth
        super().__init__(
            OrderedDict(
                norm1=nn.BatchNorm3d(inputs),
                relu1=nn.ReLU(inplace=True),
                conv1=nn.Conv3d(inputs, inner, 1, bias=False),
                norm2=nn.BatchNorm3d(inner),
                relu2=nn.ReLU(inplace=True),
                conv2=nn.Conv3d(inner, growth, 3, padding=1, bias=False),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_in + growth, T, H, W)."""
        return torch.cat([x, super().forward(x)], dim=1)


def transition(inputs: int) -> nn.Sequential:
    """Build a transition between two dense blocks: it halves the channels, frames, height and width."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm3d(inputs),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv3d(inputs, inputs // 2, 1, bias=False),
            pool=nn.AvgPool3d(2, 2),
        )
    )


@register("densenet3d")
class DenseNet3D(VideoNetwork):
    """3D DenseNet for clips (B, 3, T, H, W).

    Parameters
    ----------
    blocks
        Number of layers of each dense block.
    growth
        Number of output channels of each layer.
    """

    def __init__(self, num_classes: int, *, blocks: Sequence[int], growth: int = 32):
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv0=nn.Conv3d(3, STEM, 7, (1, 2, 2), 3, bias=False),
            norm0=nn.BatchNorm3d(STEM),
            relu0=nn.ReLU(inplace=True),
            pool0=nn.MaxPool3d(3, 2, 1),
        )
        self.stages = {"stage1": Stage(STEM, (Tap("features.pool0"),))}
        width = STEM
        for number, depth in enumerate(blocks, start=1):
            dense: list[nn.Module] = [DenseLayer(width + i * growth, growth) for i in range(depth)]
            block = OrderedDict((f"denselayer{i}", layer) for i, layer in enumerate(dense, start=1))
            layers[f"denseblock{number}"] = nn.Sequential(block)
            width += depth * growth
            self.stages[f"stage{number + 1}"] = Stage(width, (Tap(f"features.denseblock{number}"),))
            if number < len(blocks):
                layers[f"transition{number}"] = transition(width)
                width //= 2
        layers["norm5"] = nn.BatchNorm3d(width)
        layers["relu5"] = nn.ReLU(inplace=True)
        self.features = nn.Sequential(layers)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        return self.classifier(self.avgpool(self.features(x)).flatten(1))

    def convert(self, state: Mapping) -> Mapping:
        """Translate keys of Hara et al.'s release (``denselayer1.norm.1.weight``) to this network's keys."""
        if not all(isinstance(key, str) for key in state):
            return state
        return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", k): v for k, v in state.items()}
