"""EfficientPhys: one stream of frame differences with its own attention (Liu et al., WACV 2023).

Shapes, order and normalisation of the layers are those of the package open-rppg 0.1.1. The network was
trained on clips of 160 frames of 72 x 72 pixels at 30 frames per second. It has the convolutions of TS-CAN's
motion stream; its attention maps come from the stream itself, because there is no appearance stream.
"""

import torch
from torch import Tensor, nn

from examples.atlas.keras_weights import filled
from examples.atlas.layers import TemporalShift, WaveformHead, frame_conv, gate, halve_frames

# Number of frames per segment of the temporal shift, and side of the frames in pixels.
SEGMENT, SIDE = 8, 72
# Path of each torch layer -> path of the layer in the weights file.
LAYERS = {
    "normalise": "bn",
    "motion1.1": "layers/conv2d",
    "motion1.4": "layers/conv2d_1",
    "motion2.1": "layers/conv2d_2",
    "motion2.4": "layers/conv2d_3",
    "gated1.attention": "attc1",
    "gated2.attention": "attc2",
    "head.hidden": "dense1",
    "head.last": "dense2",
}


class SelfGate(nn.Module):
    """Multiply maps by attention maps that a 1 x 1 convolution computes from the same maps."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = frame_conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return gated maps (B, C, T, H, W)."""
        return x * gate(torch.sigmoid(self.attention(x)))


def motion_block(inputs: int, width: int) -> nn.Sequential:
    """Return two convolutions of single frames with tanh, each after a temporal shift."""
    first, second = frame_conv(inputs, width, 3, same=True), frame_conv(width, width, 3)
    shift = TemporalShift(SEGMENT)
    return nn.Sequential(shift, first, nn.Tanh(), TemporalShift(SEGMENT), second, nn.Tanh())


class EfficientPhys(nn.Module):
    """EfficientPhys; the input (B, 3, T, 72, 72) has values in [0, 1], and T is a multiple of 8."""

    # The output is a waveform and has no classes.
    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        # one mean and one scale per pixel, common to the three colours
        self.normalise = nn.BatchNorm1d(SIDE * SIDE, eps=1e-3)
        self.motion1, self.motion2 = motion_block(3, 32), motion_block(32, 64)
        self.gated1, self.gated2 = SelfGate(32), SelfGate(64)
        self.head = WaveformHead(16 * 16 * 64)

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip to the slope of a waveform, one number per frame (B, T)."""
        difference = torch.cat([x[:, :, 1:] - x[:, :, :-1], torch.zeros_like(x[:, :, :1])], dim=2)
        pixels = difference.permute(0, 2, 3, 4, 1).flatten(2, 3)
        pixels = self.normalise(pixels.flatten(0, 1)).view(pixels.shape)
        x = pixels.unflatten(2, (SIDE, SIDE)).permute(0, 4, 1, 2, 3)
        x = halve_frames(self.gated1(self.motion1(x)))
        x = halve_frames(self.gated2(self.motion2(x)))
        return self.head(x)


def build(weights: str | None = None) -> nn.Module:
    """Return EfficientPhys, trained (``rlap`` or ``pure``, named after the data) or untrained."""
    return filled(EfficientPhys(), "efficientphys", weights, LAYERS)
