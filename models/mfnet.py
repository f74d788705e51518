"""MFNet-3D (Chen et al., "Multi-Fiber Networks for Video Recognition", ECCV 2018).

Key names are those of the authors' release (``conv2.B01.conv_i1.bn.weight``).
"""

from collections import OrderedDict

from torch import Tensor, nn

from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

Triple = tuple[int, int, int]  # time, height, width
STEM = 16
# Number of groups ("fibers") of the grouped convolutions.
FIBERS = 16
# For conv2 to conv5: blocks (DEPTHS), output channels (WIDTHS) and stride of the first block (STRIDES).
DEPTHS = (3, 4, 6, 3)
WIDTHS = (96, 192, 384, 768)
STRIDES = ((2, 1, 1), (1, 2, 2), (1, 2, 2), (1, 2, 2))


def pre_activated(
    inputs: int, outputs: int, kernel: Triple = (1, 1, 1), stride: Triple = (1, 1, 1), groups: int = 1
) -> nn.Sequential:
    """Build batch norm, ReLU and a convolution, padded so that only the stride reduces T, H and W."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm3d(inputs), relu=nn.ReLU(inplace=True), conv=conv))


class Unit(nn.Module):
    """Residual block: 1x1x1 convolutions mix all channels; then each channel group ("fiber") is convolved."""

    conv_w1: nn.Module

    def __init__(self, inputs: int, outputs: int, stride: Triple, *, first: bool):
        super().__init__()
        self.conv_i1 = pre_activated(inputs, outputs // 4)
        self.conv_i2 = pre_activated(outputs // 4, inputs)
        self.conv_m1 = pre_activated(inputs, outputs, (3, 3, 3), stride, FIBERS)
        if first:
            self.conv_m2 = pre_activated(outputs, outputs)
            self.conv_w1 = pre_activated(inputs, outputs, stride=stride)
        else:
            self.conv_m2 = pre_activated(outputs, outputs, (1, 3, 3), groups=FIBERS)
            self.conv_w1 = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T/s, H/s, W/s); s is the stride of each axis."""
        y = x + self.conv_i2(self.conv_i1(x))
        return self.conv_m2(self.conv_m1(y)) + self.conv_w1(x)


@register("mfnet")
class MFNet(VideoNetwork):
    """MFNet-3D for clips (B, 3, T, H, W).

    The head pools over the whole feature map; the authors' pooling window fits 16 x 224 x 224 clips only.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Sequential(
            OrderedDict(
                conv=nn.Conv3d(3, STEM, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False),
                bn=nn.BatchNorm3d(STEM),
                relu=nn.ReLU(inplace=True),
            )
        )
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        width = STEM
        for number, (depth, outputs, stride) in enumerate(zip(DEPTHS, WIDTHS, STRIDES, strict=True), start=2):
            units: OrderedDict[str, nn.Module] = OrderedDict()
            for u in range(1, depth + 1):
                first = u == 1
                units[f"B{u:02}"] = Unit(width, outputs, stride if first else (1, 1, 1), first=first)
                width = outputs
            self.add_module(f"conv{number}", nn.Sequential(units))
        self.tail = nn.Sequential(OrderedDict(bn=nn.BatchNorm3d(width), relu=nn.ReLU(inplace=True)))
        self.globalpool = nn.AdaptiveAvgPool3d(1)
        self.classifier = nn.Linear(width, num_classes)
        self.stages = {
            f"stage{i}": Stage(channels, (Tap("maxpool" if i == 1 else f"conv{i}"),))
            for i, channels in enumerate((STEM, *WIDTHS), start=1)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        # child modules run in the order of their construction
        *layers, classify = self.children()
        for module in layers:
            x = module(x)
        return classify(x.flatten(1))

    def original_lists(self) -> tuple[list[tuple], list[tuple]]:
        """Return (modules whose kernels are read, modules whose outputs are read) in Stergiou et al.'s code.

        Each entry is a tuple with one module path. Outputs are those of convolutions, before the next norm.
        """
        units = [f"conv{i}.B{u:02}" for i, depth in enumerate(DEPTHS, start=2) for u in range(1, depth + 1)]
        layers = ("conv_i1", "conv_i2", "conv_m1", "conv_m2")
        kernels = ["conv1.conv", *(f"{u}.{c}.conv" for u in units for c in layers), "classifier"]
        outputs = [f"{u}.{c}" if c != "conv_m2" else u for u in units for c in layers]
        # Stergiou et al.'s code reads the final batch norm and ReLU (tail) instead of the last residual block
        return [(k,) for k in kernels], [(a,) for a in ("conv1", *outputs[:-1], "tail", "globalpool")]
