"""Common parts of networks that take an image and its optical flow: inputs, stages and gates."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.stages import Stage, Tap, VideoNetwork

INPUTS = ("Image", "Flow")
# Names of the image stream and the flow stream.
STREAMS = ("app_stream", "mot_stream")
# Name of the stream of fused feature maps.
FUSED = "sensor_fusion"
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def declare(taps: Mapping[str, tuple[int, Tap]]) -> dict[str, Stage]:
    """Build stages from `taps`: stage name (``layer2,app_stream``) -> (number of units, module to read)."""
    return {name: Stage(units, (tap,), name.partition(",")[2]) for name, (units, tap) in taps.items()}


class TwoStreamNetwork(VideoNetwork):
    """Base class of networks that segment the moving object from an image and the optical flow.

    The input is ``{"Image": (B, 3, H, W), "Flow": (B, 3, H, W)}``; ``prepare`` returns such a dict unchanged.
    """

    channels = dict.fromkeys(INPUTS, 3)
    # sizes of the axes between batch axis and channel axis; RTNet has one such axis, for two frames
    clip: tuple[int, ...] = ()

    @property
    def flow_directions(self) -> int:
        """Number of flow fields per image: 1 (to the next frame) or 2 (also to the previous frame)."""
        return self.channels["Flow"] // self.channels["Image"]

    def example_input(
        self, make: Callable[..., Tensor], batch: int = 1, size: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """Return a dict of an image input and a flow input; `make` creates a tensor of a given shape."""
        size = size or self.input_spec.shape
        return {name: make((batch, *self.clip, width, *size)) for name, width in self.channels.items()}

    def foreground(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the object's probability (images, H, W) at every pixel."""
        maps = self.object_map(self(inputs))  # (images, 1, h, w)
        size = inputs["Image"].shape[-2:]
        return resized(maps, size)[:, 0]

    def object_map(self, output: Tensor) -> Tensor:
        """Return the object's probability map (images, 1, h, w) from the output of ``forward``."""
        return output


def resized(x: Tensor, size: Sequence[int], align_corners: bool = False) -> Tensor:
    """Resize feature maps (B, C, h, w) to `size` (height, width) by bilinear interpolation."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=align_corners)


class Gate(nn.Module):
    """Spatial gate: a 1x1 convolution over concatenated maps gives one sigmoid gate per map and position.

    Each map is scaled by 1 + gate.
    """

    def __init__(self, width: int, maps: int):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(maps * width, maps, 1), nn.Sigmoid())

    def forward(self, *maps: Tensor) -> list[Tensor]:
        """Return the list of maps (B, C, H, W), each scaled by 1 + gate."""
        gates = self.conv(torch.cat(maps, dim=1)).split(1, dim=1)  # each (B, 1, H, W)
        return [x * (1 + gate) for x, gate in zip(maps, gates, strict=True)]


class Squeeze(nn.Module):
    """Squeeze-and-excitation weights: two 1x1 convolutions of the channel means, then a sigmoid."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.fc1 = nn.Conv2d(inputs, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, outputs, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        """Map feature maps (B, C, H, W) to weights (B, output channels, 1, 1)."""
        means = torch.cat([x.mean(dim=(2, 3), keepdim=True) for x in maps], dim=1)
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class SpatialWeights(nn.Module):
    """Compute the weight w of the image maps at each position; the flow maps have the weight 1 - w.

    A 7x7 convolution reads the mean and the maximum over the channels of each map. With `joint_maximum`, it
    reads only the maximum over the channels of both maps.
    """

    def __init__(self, joint_maximum: bool = False):
        super().__init__()
        self.joint_maximum = joint_maximum
        # the checkpoint key is conv1.conv.weight if joint_maximum is true, otherwise conv1.weight
        named = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 7, padding=3, bias=False)})
        self.conv1 = named if joint_maximum else nn.Conv2d(4, 1, 7, padding=3, bias=False)

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Map image maps and flow maps, both (B, C, H, W), to weights (B, 1, H, W) of the image maps."""
        if self.joint_maximum:
            largest = torch.cat([image, flow], dim=1).amax(dim=1, keepdim=True)
            return torch.sigmoid(self.get_submodule("conv1.conv")(largest))
        pooled = [f(x, dim=1, keepdim=True) for x in (image, flow) for f in (torch.mean, torch.amax)]
        return torch.sigmoid(self.conv1(torch.cat(pooled, dim=1)))


class ConvexGates(nn.Module):
    """Multiply image maps by w and flow maps by 1 - w, first with w per channel, then with w per position."""

    def __init__(self, width: int, hidden: int, joint_maximum: bool = False):
        super().__init__()
        self.channel = Squeeze(2 * width, hidden, width)
        self.spatial = SpatialWeights(joint_maximum)

    def weighted(self, image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted image and flow maps, each (B, C, H, W)."""
        weight = self.channel(image, flow)  # (B, C, 1, 1)
        image, flow = image * weight, flow * (1 - weight)
        weight = self.spatial(image, flow)  # (B, 1, H, W)
        return image * weight, flow * (1 - weight)
