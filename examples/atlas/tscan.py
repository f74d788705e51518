"""TS-CAN: two streams with connections from appearance to motion (Liu et al., NeurIPS 2020).

The motion stream sees normalised differences of frames, with temporal shifts. The appearance stream sees the
mean frame of the clip. After two convolutions of both streams, an attention map of the appearance stream
multiplies the maps of the motion stream; this happens twice. Shapes, order and normalisation of the layers
are those of the package open-rppg 0.1.1. The network was trained on clips of 160 frames of 36 x 36 pixels at
30 frames per second.
"""

import torch
from torch import Tensor, nn

from examples.atlas.keras_weights import filled
from examples.atlas.layers import TemporalShift, WaveformHead, frame_conv, gate, halve_frames, standardise

# Number of frames per segment of the temporal shift.
SEGMENT = 20
# Path of each torch layer -> path of the layer in the weights file.
LAYERS = {
    **{f"motion{k}.1": f"inner/d{k}/layers/conv2d" for k in (1, 2)},
    **{f"motion{k}.4": f"inner/d{k}/layers/conv2d_1" for k in (1, 2)},
    **{f"appearance{k}.0": f"inner/g{k}/layers/conv2d" for k in (1, 2)},
    **{f"appearance{k}.2": f"inner/g{k}/layers/conv2d_1" for k in (1, 2)},
    **{f"fused{k}.attention": f"inner/attn{k}/layers/conv2d" for k in (1, 2)},
    "head.hidden": "inner/d/layers/dense",
    "head.last": "inner/d/layers/dense_1",
}


class Connection(nn.Module):
    """Connection between the streams: an attention map of the appearance multiplies the motion maps."""

    def __init__(self, width: int):
        super().__init__()
        self.attention = frame_conv(width, 1, 1)

    def forward(self, motion: Tensor, appearance: Tensor) -> Tensor:
        """Return motion maps (B, C, T, H, W), scaled by the attention map of the mean frame."""
        return motion * gate(torch.sigmoid(self.attention(appearance)))


def motion_block(inputs: int, width: int) -> nn.Sequential:
    """Return two convolutions of single frames with tanh, each after a temporal shift."""
    first, second = frame_conv(inputs, width, 3, same=True), frame_conv(width, width, 3)
    shift = TemporalShift(SEGMENT)
    return nn.Sequential(shift, first, nn.Tanh(), TemporalShift(SEGMENT), second, nn.Tanh())


def appearance_block(inputs: int, width: int) -> nn.Sequential:
    """Return two convolutions of single frames with tanh."""
    first, second = frame_conv(inputs, width, 3, same=True), frame_conv(width, width, 3)
    return nn.Sequential(first, nn.Tanh(), second, nn.Tanh())


class TSCAN(nn.Module):
    """TS-CAN; the input (B, 3, T, 36, 36) has values in [0, 1], and T is a multiple of 20."""

    # The output is a waveform and has no classes.
    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        self.motion1, self.motion2 = motion_block(3, 32), motion_block(32, 64)
        self.appearance1, self.appearance2 = appearance_block(3, 32), appearance_block(32, 64)
        self.fused1, self.fused2 = Connection(32), Connection(64)
        self.head = WaveformHead(7 * 7 * 64)

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip to the slope of a waveform, one number per frame (B, T)."""
        difference = standardise(x[:, :, 1:] - x[:, :, :-1], (3, 4))
        difference = torch.cat([difference, difference[:, :, -1:]], dim=2)
        appearance = self.appearance1(x.mean(2, keepdim=True))
        fused = halve_frames(self.fused1(self.motion1(difference), appearance))
        appearance = self.appearance2(halve_frames(appearance))
        fused = halve_frames(self.fused2(self.motion2(fused), appearance))
        return self.head(fused)


def build(weights: str | None = None) -> nn.Module:
    """Return TS-CAN, trained (``rlap`` or ``pure``, named after the data) or untrained."""
    return filled(TSCAN(), "tscan", weights, LAYERS)
