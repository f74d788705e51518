"""Layers that several networks of the atlas share; all of them take and return maps (B, C, T, H, W)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def standardise(x: Tensor, dims: tuple[int, ...], epsilon: float = 1e-6) -> Tensor:
    """Subtract the mean over the axes `dims` and divide by the standard deviation over these axes."""
    deviation = x.std(dims, correction=0, keepdim=True)
    return (x - x.mean(dims, keepdim=True)) / (deviation + epsilon)


def frame_conv(inputs: int, outputs: int, kernel: int, *, same: bool = False) -> nn.Conv3d:
    """Return a convolution of single frames; `same` pads with zeros, so that the frame keeps its size."""
    padding = (0, kernel // 2, kernel // 2) if same else 0
    return nn.Conv3d(inputs, outputs, (1, kernel, kernel), padding=padding)


def halve_frames(x: Tensor) -> Tensor:
    """Average every 2 x 2 pixels of each frame."""
    return F.avg_pool3d(x, (1, 2, 2))


def gate(x: Tensor) -> Tensor:
    """Scale attention maps so that their mean over each frame is 0.5."""
    return 0.5 * x / x.mean((3, 4), keepdim=True)


class TemporalShift(nn.Module):
    """Temporal shift module (Lin et al., ICCV 2019) inside consecutive segments of `length` frames.

    The first third of the channels shows the next frame, the second third shows the previous frame. At the
    ends of a segment, these channels repeat their own frame.
    """

    def __init__(self, length: int):
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> Tensor:
        """Shift maps (B, C, T, H, W); T is a multiple of the length of a segment."""
        fold = x.shape[1] // 3
        segments = x.unflatten(2, (-1, self.length))
        later, earlier, still = segments.split([fold, fold, x.shape[1] - 2 * fold], dim=1)
        later = torch.cat([later[:, :, :, 1:], later[:, :, :, -1:]], dim=3)
        earlier = torch.cat([earlier[:, :, :, :1], earlier[:, :, :, :-1]], dim=3)
        return torch.cat([later, earlier, still], dim=1).flatten(2, 3)


class WaveformHead(nn.Module):
    """Two linear layers that map the pixels of each frame to one number: (B, C, T, H, W) to (B, T)."""

    def __init__(self, inputs: int):
        super().__init__()
        self.hidden, self.last = nn.Linear(inputs, 128), nn.Linear(128, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return one number per frame; the pixels are flattened in the order (H, W, C), as in Keras."""
        pixels = x.permute(0, 2, 3, 4, 1).flatten(2)
        return self.last(torch.tanh(self.hidden(pixels))).squeeze(2)
