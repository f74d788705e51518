"""3D ResNet and ResNeXt (Hara et al., CVPR 2018), which the code of Class Feature Pyramids uses.

Key names are those of the authors' release (``layer1.0.conv1.weight``).
"""

from collections.abc import Callable, Sequence
from itertools import chain

from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

# Numbers of output channels of layers 1 to 4.
OUTPUTS = (256, 512, 1024, 2048)
# Strides of the first blocks of layers 1 to 4, in time and space.
STRIDES = (1, 2, 2, 2)


class ZeroPadded(nn.Module):
    """Shortcut without parameters ("type A"): takes every `stride`-th position and adds channels of zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T/s, H/s, W/s); s is the stride."""
        s = self.stride
        return F.pad(x[:, :, ::s, ::s, ::s], (0, 0, 0, 0, 0, 0, 0, self.missing))


def projection(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Build a shortcut of a 1x1x1 convolution and batch norm ("type B")."""
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))


SHORTCUTS: dict[str, Callable[[int, int, int], nn.Module]] = {"A": ZeroPadded, "B": projection}


class Bottleneck(nn.Module):
    """Residual block: 1x1x1, 3x3x3 and 1x1x1 convolutions with `inner` channels between them."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, groups: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(inner)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv3d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        changes = stride != 1 or inputs != outputs
        self.downsample = SHORTCUTS[shortcut](inputs, outputs, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T/s, H/s, W/s); s is the stride."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


@register("resnet3d")
class ResNet3D(VideoNetwork):
    """3D ResNet for clips (B, 3, T, H, W).

    The head pools over the whole feature map; the authors' pooling window fits one input size only.

    Parameters
    ----------
    blocks
        Number of blocks of layers 1 to 4.
    inner
        Channels inside the blocks of layer 1; they double from layer to layer.
    groups
        Groups of the 3x3x3 convolutions ("cardinality").
    shortcut
        Key of `SHORTCUTS`.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: Sequence[int],
        inner: int = 64,
        groups: int = 1,
        shortcut: str = "B",
    ):
        super().__init__()
        self.blocks = tuple(blocks)
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool3d(3, 2, 1)
        width = 64
        for i, (depth, outputs, stride) in enumerate(zip(blocks, OUTPUTS, STRIDES, strict=True)):
            layer = nn.Sequential()
            for b in range(depth):
                step = 1 if b else stride
                layer.append(Bottleneck(width, inner * 2**i, outputs, step, groups, shortcut))
                width = outputs
            self.add_module(f"layer{i + 1}", layer)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(width, num_classes)
        self.stages = {"stage1": Stage(64, (Tap("maxpool"),))} | {
            f"stage{i}": Stage(units, (Tap(f"layer{i - 1}"),)) for i, units in enumerate(OUTPUTS, start=2)
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes)."""
        # child modules run in the order of their construction
        *layers, classify = self.children()
        for module in layers:
            x = module(x)
        return classify(x.flatten(1))

    def original_lists(self) -> tuple[list[tuple], list[tuple]]:
        """Return lists of the modules whose kernels and whose outputs Stergiou et al.'s code reads.

        Each entry is a tuple with one module path.
        """
        blocks = [f"layer{i}.{b}" for i, depth in enumerate(self.blocks, start=1) for b in range(depth)]
        return self._lists(blocks, stem="conv1", head=("avgpool",))

    def _lists(self, blocks: Sequence[str], stem: str, head: Sequence[str]) -> tuple[list, list]:
        convolutions = chain.from_iterable((f"{b}.conv1", f"{b}.conv2", f"{b}.conv3") for b in blocks)
        outputs = chain.from_iterable((f"{b}.relu1", f"{b}.relu2", b) for b in blocks)
        return [(k,) for k in ("conv1", *convolutions, "fc")], [(a,) for a in (stem, *outputs, *head)]


@register("resnext3d")
class ResNeXt3D(ResNet3D):
    """3D ResNeXt: a `ResNet3D` with wider blocks, in which the 3x3x3 convolutions are grouped."""

    def __init__(self, num_classes: int, *, inner: int = 128, groups: int = 32, **options):
        super().__init__(num_classes, inner=inner, groups=groups, **options)

    def original_lists(self) -> tuple[list[tuple], list[tuple]]:
        """Like `ResNet3D.original_lists`, but list only the last block of each layer and no pooling layer.

        Without pooling, Stergiou et al.'s code pairs each kernel with the activation of another layer; see
        ``analysis/explain/pyramid_rules.py``.
        """
        blocks = [f"layer{i}.{depth - 1}" for i, depth in enumerate(self.blocks, start=1)]
        return self._lists(blocks, stem="relu", head=())
