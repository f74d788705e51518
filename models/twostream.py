"""What networks that eat an image and its optical flow have in common: their inputs, stages and gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.stages import Stage, Tap, VideoNetwork

INPUTS = ("Image", "Flow")
STREAMS = ("app_stream", "mot_stream")  # that of the image, that of the flow
FUSED = "sensor_fusion"
LAYERS = ("layer1", "layer2", "layer3", "layer4")


def declare(places: Mapping[str, tuple[int, Tap]]) -> dict[str, Stage]:
    """Stages by name, ``layer2,app_stream``, of their units and tap."""
    return {name: Stage(units, (tap,), name.partition(",")[2]) for name, (units, tap) in places.items()}


class TwoStreamNetwork(VideoNetwork):
    """A network that segments the moving object in ``{"Image": (B, 3, H, W), "Flow": (B, 3, H, W)}``.

    ``prepare`` leaves such a dict as it is.
    """

    channels = dict.fromkeys(INPUTS, 3)
    clip: tuple[int, ...] = ()  # axes between the batch and the channels of an input

    @property
    def flow_directions(self) -> int:
        """1: the flow to the next frame; 2: also the flow to the frame before."""
        return self.channels["Flow"] // self.channels["Image"]

    def example_input(
        self, make: Callable[..., Tensor], batch: int = 1, size: tuple[int, int] | None = None
    ) -> dict[str, Tensor]:
        """Inputs of the input spec's size that `make` fills; see `VideoNetwork`."""
        size = size or self.input_spec.shape
        return {name: make((batch, *self.clip, width, *size)) for name, width in self.channels.items()}

    def foreground(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Probability of the object at every pixel of the image, (rows, H, W)."""
        maps = self.object_map(self(inputs))  # (rows, 1, h, w)
        size = inputs["Image"].shape[-2:]
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)[:, 0]

    def object_map(self, output: Tensor) -> Tensor:
        """The object's probability, (rows, 1, h, w), in what ``forward`` returns."""
        return output


class Gate(nn.Module):
    """One number a place for each of `maps` maps, seen together, by which it is strengthened."""

    def __init__(self, width: int, maps: int):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(maps * width, maps, 1), nn.Sigmoid())

    def forward(self, *maps: Tensor) -> list[Tensor]:  # each (B, C, H, W)
        gates = self.conv(torch.cat(maps, dim=1)).split(1, dim=1)  # each (B, 1, H, W)
        return [x * (1 + gate) for x, gate in zip(maps, gates, strict=True)]


class Squeeze(nn.Module):
    """From the means of maps, seen together, to `outputs` numbers in (0, 1): (B, outputs, 1, 1)."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.fc1 = nn.Conv2d(inputs, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, outputs, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        means = torch.cat([x.mean(dim=(2, 3), keepdim=True) for x in maps], dim=1)
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class Shares(nn.Module):
    """How much of each place is the image's; the rest is the flow's: (B, 1, H, W).

    Seen are mean and maximum over the channels of both; with `joint_maximum`, only the maximum over all.
    """

    def __init__(self, joint_maximum: bool = False):
        super().__init__()
        self.joint_maximum = joint_maximum
        # the two layouts differ in their keys too
        named = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 7, padding=3, bias=False)})
        self.conv1 = named if joint_maximum else nn.Conv2d(4, 1, 7, padding=3, bias=False)

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        if self.joint_maximum:
            largest = torch.cat([image, flow], dim=1).amax(dim=1, keepdim=True)
            return torch.sigmoid(self.conv1["conv"](largest))
        seen = [f(x, dim=1, keepdim=True) for x in (image, flow) for f in (torch.mean, torch.amax)]
        return torch.sigmoid(self.conv1(torch.cat(seen, dim=1)))


class ConvexGates(nn.Module):
    """Share channels, then places, out between image and flow, so that their weights sum to one."""

    def __init__(self, width: int, hidden: int, joint_maximum: bool = False):
        super().__init__()
        self.channel = Squeeze(2 * width, hidden, width)
        self.spatial = Shares(joint_maximum)

    def forward(self, image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        share = self.channel(image, flow)  # (B, C, 1, 1)
        image, flow = image * share, flow * (1 - share)
        share = self.spatial(image, flow)  # (B, 1, H, W)
        return image * share, flow * (1 - share)
