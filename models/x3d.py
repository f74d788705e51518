"""X3D (Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", CVPR 2020).

Key names are those of PySlowFast (``s2.pathway0_res0.branch2.a.weight``, ``head.lin_5.weight``).
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.mmaction2_names import from_mmaction2
from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

# Ratio of inner channels to output channels in a residual block.
BOTTLENECK = 2.25
# Number of input channels of the classifier.
HEAD_WIDTH = 2048


def squeezed(width: int) -> int:
    """Return the number of hidden squeeze-and-excitation channels: `width` / 16, rounded to a multiple of 8.

    The nearest multiple is taken, or the next one if the nearest is below 0.9 * `width` / 16.
    """
    rounded = max(8, int(width / 16 + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * width / 16 else rounded


class Stem(nn.Module):
    """First layers: a spatial convolution, then a depthwise temporal convolution."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.conv_xy = nn.Conv3d(inputs, width, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False)
        self.conv = nn.Conv3d(width, width, (5, 1, 1), padding=(2, 0, 0), groups=width, bias=False)
        self.bn = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to (B, C_out, T, H/2, W/2)."""
        return F.relu(self.bn(self.conv(self.conv_xy(x))), inplace=True)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: scale each channel by a weight computed from the means of all channels."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Conv3d(width, squeezed(width), 1)
        self.fc2 = nn.Conv3d(squeezed(width), width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled feature maps, of the same shape (B, C, T, H, W)."""
        means = x.mean(dim=(2, 3, 4), keepdim=True)  # (B, C, 1, 1, 1)
        return x * self.fc2(F.relu(self.fc1(means))).sigmoid()


class Block(nn.Module):
    """Residual inverted bottleneck around a depthwise 3x3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, excite: bool):
        super().__init__()
        inner, strides = int(BOTTLENECK * outputs), (1, stride, stride)
        self.projected = stride > 1 or inputs != outputs
        if self.projected:
            self.branch1 = nn.Conv3d(inputs, outputs, 1, strides, bias=False)
            self.branch1_bn = nn.BatchNorm3d(outputs)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            a=nn.Conv3d(inputs, inner, 1, bias=False),
            a_bn=nn.BatchNorm3d(inner),
            a_relu=nn.ReLU(inplace=True),
            b=nn.Conv3d(inner, inner, 3, strides, 1, groups=inner, bias=False),
            b_bn=nn.BatchNorm3d(inner),
        )
        if excite:
            layers["se"] = SqueezeExcite(inner)
        layers["b_swish"] = nn.SiLU(inplace=True)
        layers["c"] = nn.Conv3d(inner, outputs, 1, bias=False)
        layers["c_bn"] = nn.BatchNorm3d(outputs)
        self.branch2 = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T, H/s, W/s); s is the stride."""
        shortcut = self.branch1_bn(self.branch1(x)) if self.projected else x
        return F.relu(shortcut + self.branch2(x), inplace=True)


class Head(nn.Module):
    """Average over a sliding window of `pool` (t, h, w) positions, then classify every window."""

    def __init__(self, width: int, num_classes: int, pool: Sequence[int]):
        super().__init__()
        inner = int(BOTTLENECK * width)
        self.pool = tuple(pool)
        self.conv_5 = nn.Conv3d(width, inner, 1, bias=False)
        self.conv_5_bn = nn.BatchNorm3d(inner)
        self.lin_5 = nn.Conv3d(inner, HEAD_WIDTH, 1, bias=False)
        self.projection = nn.Linear(HEAD_WIDTH, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to logits (B, t, h, w, classes)."""
        x = F.relu(self.conv_5_bn(self.conv_5(x)), inplace=True)
        # limit the pooling window to the size of the map
        kernel = [min(k, n) for k, n in zip(self.pool, x.shape[2:], strict=True)]
        x = F.relu(self.lin_5(F.avg_pool3d(x, kernel, stride=1)), inplace=True)
        # move the channels to the last axis
        return self.projection(x.permute(0, 2, 3, 4, 1))


@register("x3d")
class X3D(VideoNetwork):
    """X3D for clips (B, 3, T, H, W).

    Parameters
    ----------
    depths
        Numbers of blocks of stages 2 to 5.
    pool
        Pooling window of the head, (t, h, w).
    width
        Number of channels of stages 1 and 2; it doubles from stage to stage after that.
    """

    def __init__(self, num_classes: int, depths: Sequence[int], pool: Sequence[int], width: int = 24):
        super().__init__()
        widths = [width, *(width * 2**i for i in range(len(depths)))]
        self.s1 = nn.Sequential(OrderedDict(pathway0_stem=Stem(3, width)))
        for s, depth in enumerate(depths):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            inputs, outputs = widths[s], widths[s + 1]
            for i in range(depth):
                block = Block(outputs if i else inputs, outputs, stride=1 if i else 2, excite=i % 2 == 0)
                blocks[f"pathway0_res{i}"] = block
            self.add_module(f"s{s + 2}", nn.Sequential(blocks))
        self.head = Head(widths[-1], num_classes, pool)
        self.stages = {f"stage{s + 1}": Stage(w, (Tap(f"s{s + 1}"),)) for s, w in enumerate(widths)}

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes), averaged over the head's sliding window."""
        return self.logit_map(x).mean(dim=(1, 2, 3))

    def logit_map(self, inputs: Tensor) -> Tensor:
        """Return logits (B, t, h, w, classes) at every position of the head's sliding window."""
        for module in self.children():  # s1 .. s5, head
            inputs = module(inputs)
        return inputs

    def convert(self, state: Mapping) -> Mapping:
        """Translate the keys of mmaction2's X3D, whose first classifier layer is linear instead of 1x1x1."""
        state = dict(from_mmaction2(state, "x3d"))
        weight = state.get("head.lin_5.weight")
        if isinstance(weight, Tensor) and weight.dim() == 2:
            state["head.lin_5.weight"] = weight[..., None, None, None]
        return state
