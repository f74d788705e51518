"""Inception-I3D with the modules of Hasson's PyTorch port, which the Class Feature Pyramids code uses.

Key names are those of the port (``mixed_3b.branch_1.0.conv3d.weight``). Its padding depends only on kernel
and stride; for inputs with even sides it equals TensorFlow's "same" padding.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.inception_i3d import MIXED, STAGES, same_padding
from static_dynamic.models.registry import register
from static_dynamic.models.stages import Stage, Tap, VideoNetwork


def fixed_padding(kernel: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Return padding of kernel - stride zeros per axis: "same" if the stride divides the input size."""
    return same_padding(stride, kernel, stride)


class PaddedPool(nn.MaxPool3d):
    """Max pooling with fixed zero padding, which changes no maximum because the inputs are ReLU outputs."""

    kernel_size: tuple[int, int, int]
    stride: tuple[int, int, int]

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__(kernel, stride, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C, T/s, H/s, W/s), rounded up; s is the stride of each axis."""
        return super().forward(F.pad(x, fixed_padding(self.kernel_size, self.stride)))


class Unit3D(nn.Module):
    """Convolution with the padding of `fixed_padding`, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel=(1, 1, 1), stride=(1, 1, 1)):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.batch3d = nn.BatchNorm3d(outputs)
        self.padding = fixed_padding(kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T/s, H/s, W/s), rounded up; s is the stride of each axis."""
        return F.relu(self.batch3d(self.conv3d(F.pad(x, self.padding))), inplace=True)


class Mixed(nn.Module):
    """Concatenate four branches: 1x1; 1x1, then 3x3; 1x1, then 3x3; max pooling, then 1x1."""

    def __init__(self, inputs: int, widths: Sequence[int], *, drop_pool: bool):
        super().__init__()
        w0, w1a, w1b, w2a, w2b, w3 = widths
        self.branch_0 = Unit3D(inputs, w0)
        self.branch_1 = nn.Sequential(Unit3D(inputs, w1a), Unit3D(w1a, w1b, (3, 3, 3)))
        self.branch_2 = nn.Sequential(Unit3D(inputs, w2a), Unit3D(w2a, w2b, (3, 3, 3)))
        pool = nn.Identity() if drop_pool else PaddedPool((3, 3, 3), (1, 1, 1))
        self.branch_3 = nn.Sequential(pool, Unit3D(inputs, w3))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T, H, W)."""
        return torch.cat([branch(x) for branch in self.children()], dim=1)


@register("inception_i3d_hassony")
class HassonyI3D(VideoNetwork):
    """Inception-I3D; the input (B, 3, T, H, W) has at least 9 frames.

    Parameters
    ----------
    drop_branch_pool
        Leave out the pooling of each fourth branch, as the Class Feature Pyramids code does by mistake. Use
        it only for weights trained with that code: the published I3D weights were trained with the pooling.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, *, drop_branch_pool: bool = False):
        super().__init__()
        self.conv3d_1a_7x7 = Unit3D(in_channels, 64, (7, 7, 7), (2, 2, 2))
        self.maxPool3d_2a_3x3 = PaddedPool((1, 3, 3), (1, 2, 2))
        self.conv3d_2b_1x1 = Unit3D(64, 64)
        self.conv3d_2c_3x3 = Unit3D(64, 192, (3, 3, 3))
        self.maxPool3d_3a_3x3 = PaddedPool((1, 3, 3), (1, 2, 2))
        width = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.maxPool3d_4a_3x3 = PaddedPool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.maxPool3d_5a_2x2 = PaddedPool((2, 2, 2), (2, 2, 2))
            self.add_module(name.lower(), Mixed(width, widths, drop_pool=drop_branch_pool))
            width = widths[0] + widths[2] + widths[4] + widths[5]
        self.avg_pool = nn.AvgPool3d((2, 4, 4), stride=1)
        self.conv3d_0c_1x1 = nn.Sequential(OrderedDict(conv3d=nn.Conv3d(width, num_classes, 1)))
        self.stages = {
            stage: Stage(units, (Tap(module.lower()),)) for stage, (module, units) in STAGES.items()
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, classes), averaged over the head's sliding window."""
        return self.logit_map(x).mean(dim=(1, 2))

    def logit_map(self, inputs: Tensor) -> Tensor:
        """Return logits (B, h, w, classes) at each spatial position of the head, averaged over time."""
        # child modules run in the order of their construction
        for module in self.children():
            inputs = module(inputs)
        return inputs.mean(dim=2).permute(0, 2, 3, 1)  # b c t h w -> b h w c

    @property
    def original_skips(self) -> list[str]:
        """Paths of the pooling modules that Stergiou et al.'s code skips: input passes through unchanged."""
        return [f"{name.lower()}.branch_3.0" for name in MIXED]

    def original_lists(self) -> tuple[list[tuple], list[tuple]]:
        """Return (modules whose kernels are read, modules whose outputs are read) in Stergiou et al.'s code.

        Each entry is a tuple of module paths; the kernels (or outputs) of its modules are concatenated. A
        number n stands for an n x n kernel of ones, which Stergiou et al.'s code has in place of a missing
        second convolution of a branch.
        """
        stems = ("conv3d_1a_7x7", "conv3d_2b_1x1", "conv3d_2c_3x3")
        kernels: list[tuple] = [(f"{stem}.conv3d",) for stem in stems]
        activations: list[tuple] = [(stem,) for stem in stems]
        for block, widths in ((name.lower(), widths) for name, widths in MIXED.items()):
            first = [f"{block}.{branch}" for branch in ("branch_0", "branch_1.0", "branch_2.0", "branch_3.1")]
            second = (f"{block}.branch_1.1.conv3d", f"{block}.branch_2.1.conv3d")
            kernels += [tuple(f"{unit}.conv3d" for unit in first), (widths[0], *second, widths[-1])]
            activations += [tuple(first), (block,)]
        return [*kernels, ("conv3d_0c_1x1.conv3d",)], [*activations, ("conv3d_0c_1x1",)]
