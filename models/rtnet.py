"""RTNet (Ren et al., "Reciprocal Transformations for Unsupervised Video Object Segmentation", CVPR 2021):
two frames and their forward and backward flows, each transformed by the others at every scale.

Key names and arithmetic are the original's, the attention that is normalised over the wrong axis included:
trained weights expect it. Rows are frames: frames 1 and 2 of the first item, of the second, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.errors import UserError
from static_dynamic.models.registry import register
from static_dynamic.models.resnet2d import ARCHITECTURES, WIDTH, conv_norm_relu, resnet_layers, stem
from static_dynamic.models.stages import Tap
from static_dynamic.models.twostream import (
    FUSED,
    INPUTS,
    LAYERS,
    STREAMS,
    ConvexGates,
    Gate,
    Squeeze,
    TwoStreamNetwork,
    declare,
)

HEADS = (1, 2, 4, 8)  # of the attention behind layers 1 to 4
DILATIONS = (1, 2, 4, 8)
DILATED = 512  # channels of each dilated convolution
BRIDGED = (64, 128, 256)  # channels of layers 1 to 3 in the decoder
DECODED = (64, 64, 128, 256)  # channels that decoders 1 to 4 put out
CHUNK = 1024  # places whose attention is held at once


def upsampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps, corner on corner."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=True)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What each place of the query gathers: (B, heads, C, N) each."""
    turned = (x.transpose(2, 3) for x in (query, key, value))  # (B, heads, N, C)
    return F.scaled_dot_product_attention(*turned).transpose(2, 3)


def scattering_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What each place is sent by all others: (B, heads, C, N) each.

    Place i shares its value out over all places j by a softmax over j of query i with key j. What a place
    gets is not normalised. Places send in turn, a few at once, so that no N x N weights are held.
    """
    query = query.transpose(2, 3) * query.shape[2] ** -0.5  # (B, heads, N, C)
    received = torch.zeros_like(value)
    for sender, sent in zip(query.split(CHUNK, dim=2), value.split(CHUNK, dim=3), strict=True):
        received = received + sent @ (sender @ key).softmax(dim=-1)
    return received


class Transformation(nn.Module):
    """Attention of one map to another of the same size, with 1x1 convolutions as projections.

    `thinned`, maps are pooled before and the result is upsampled.
    """

    def __init__(self, width: int, heads: int, *, thinned: bool, scattering: bool):
        super().__init__()
        self.heads, self.thinned = heads, thinned
        self.attend = scattering_attention if scattering else attention
        for name in ("query", "key", "value"):
            # the variant with the right axis has no biases
            self.add_module(name, nn.Conv2d(width, width, 1, bias=scattering))

    def forward(self, seeker: Tensor, source: Tensor) -> Tensor:  # (B, C, H, W), (B, C, H, W) -> (B, C, H, W)
        size = seeker.shape[2:]
        if self.thinned:
            seeker, source = (F.max_pool2d(x, 3, 2, 1) for x in (seeker, source))
        projected = (self.query(seeker), self.key(source), self.value(source))
        per_head = (x.flatten(2).unflatten(1, (self.heads, -1)) for x in projected)
        x = self.attend(*per_head).flatten(1, 2).unflatten(2, seeker.shape[2:])
        return upsampled(x, size) if self.thinned else x


class Scaling(Squeeze):
    """Strengthen the channels of `maps` maps, seen together."""

    def __init__(self, width: int, maps: int, hidden: int):
        super().__init__(maps * width, hidden, maps * width)

    def forward(self, *maps: Tensor) -> list[Tensor]:
        scales = super().forward(*maps).chunk(len(maps), dim=1)
        return [x * (1 + scale) for x, scale in zip(maps, scales, strict=True)]


class Pair(nn.Module):
    """Two maps transformed by each other; the second sees the first as it has become.

    `alike` maps, those of two frames, share one transformation.
    """

    def __init__(self, width: int, heads: int, *, alike: bool, **kind: bool):
        super().__init__()
        self.scaling = Scaling(width, 2, width // heads)
        self.transformation1 = Transformation(width, heads, **kind)
        if not alike:
            self.transformation2 = Transformation(width, heads, **kind)
        self.alike = alike
        self.gating = Gate(width, maps=2)

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        x, y = self.scaling(x, y)
        x = self.transformation1(x, y)
        y = (self.transformation1 if self.alike else self.transformation2)(y, x)
        return self.gating(x, y)


class Alone(nn.Module):
    """One map transformed by itself."""

    def __init__(self, width: int, heads: int, **kind: bool):
        super().__init__()
        self.scaling = Scaling(width, 1, width // heads)
        self.transformation = Transformation(width, heads, **kind)
        self.gating = Gate(width, maps=1)

    def forward(self, x: Tensor) -> Tensor:
        (x,) = self.scaling(x)
        (x,) = self.gating(self.transformation(x, x))
        return x


class Sum(nn.Module):
    """Maps of both streams, each with what its branches found; a module, so that the sums can be read."""

    def forward(self, *branches: Sequence[Tensor]) -> list[Tensor]:  # each (image, flow)
        return [sum(found) for found in zip(*branches, strict=True)]


class ConvexSum(ConvexGates):
    """One map of image and flow, whose weights sum to one."""

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        return sum(super().forward(image, flow))


def between_frames(pair: Pair, rows: Tensor) -> Tensor:
    """Transform frames 1 and 2 of each item by each other: (2B, C, H, W), frames in turn."""
    return torch.stack(pair(rows[0::2], rows[1::2]), dim=1).flatten(0, 1)


class Decoder(nn.Module):
    """Three convolutions."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        widths = (inputs, hidden, hidden, outputs)
        layers = [conv_norm_relu(a, b, 3) for a, b in zip(widths, widths[1:], strict=False)]
        self.layer = nn.Sequential(*sum(layers, []))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Output(nn.Module):
    """Logits of the object at the size asked for: (B, C, h, w) -> (B, 1, H, W)."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv1 = nn.Sequential(*conv_norm_relu(inputs, 64, 3))
        self.conv2 = nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return self.conv2(upsampled(self.conv1(x), size))


class Stream(nn.Module):
    """Weights of one stream: trunk, dilated convolutions, decoder.

    Both streams have all of them in checkpoints; of the flow's, those behind the bridges make no output.
    """

    def __init__(self, channels: int, trunk: str, bridged: bool):
        super().__init__()
        widths = ARCHITECTURES[trunk][2]
        self.inconv = nn.Sequential(*stem(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        for k, layer in enumerate(resnet_layers(trunk), start=1):
            self.add_module(f"encoder{k}", layer)
        self.bridged = bridged
        if bridged:
            for k, (width, outputs) in enumerate(zip(widths, BRIDGED, strict=False), start=1):
                self.add_module(f"bridge{k}", nn.Sequential(*conv_norm_relu(width, outputs, 1)))
            self.dilation0 = nn.Sequential(*conv_norm_relu(widths[3], DILATED, 1))
        for k, dilation in enumerate(DILATIONS, start=1):
            self.add_module(f"dilation{k}", nn.Sequential(*conv_norm_relu(widths[3], DILATED, 3, dilation)))
        inputs = ((1 + len(DILATIONS)) * DILATED, *(2 * width for width in reversed(BRIDGED)))
        for k, width in zip((4, 3, 2, 1), inputs, strict=True):
            hidden = DILATED if k == 4 else BRIDGED[k - 1]
            self.add_module(f"decoder{k}", Decoder(width, hidden, DECODED[k - 1]))
            self.add_module(f"out{k}", Output(DECODED[k - 1]))

    def bridge(self, k: int, x: Tensor) -> Tensor:
        """Layer `k` with the decoder's number of channels."""
        return self.get_submodule(f"bridge{k}")(x) if self.bridged else x

    def dilated(self, x: Tensor) -> Tensor:
        """Layer 4 and what dilated convolutions make of it, side by side."""
        first = self.dilation0(x) if self.bridged else x
        rest = [self.get_submodule(f"dilation{k}")(x) for k in range(1, len(DILATIONS) + 1)]
        return torch.cat([first, *rest], dim=1)


# what goes into the sum behind each layer: two frames of one stream, both streams of a frame, each by itself
TRANSFORMERS = {
    "SS": partial(Pair, alike=True),
    "TT": partial(Pair, alike=True),
    "ST": partial(Pair, alike=False),
    "Sself": Alone,
    "Tself": Alone,
}


@register("rtnet")
class RTNet(TwoStreamNetwork):
    """RTNet; ``forward`` returns the object's probability of four decoders, the finest first, (2B, 4, H, W).

    ``{"Image": (B, 2, 3, H, W), "Flow": (B, 2, 6, H, W)}``: two frames; the forward flow of each, then the
    backward flow.

    Parameters
    ----------
    trunk
        ``resnext50``, or ``resnet34``, whose variant has attention over the right axis but behind layer 1.
    """

    channels = {"Image": 3, "Flow": 6}
    clip = (2,)

    def __init__(self, num_classes: int, trunk: str):
        super().__init__()
        if num_classes != 1:
            raise UserError(f"num_classes={num_classes}: RTNet has 1, the object's probability")
        if trunk not in ("resnext50", "resnet34"):
            raise UserError(f"trunk={trunk}: RTNet has resnext50 or resnet34")
        widths, bridged = ARCHITECTURES[trunk][2], trunk == "resnext50"
        self.spatial_net = Stream(self.channels["Image"], trunk, bridged)
        self.temporal_net = Stream(self.channels["Flow"], trunk, bridged)
        for k, (width, heads) in enumerate(zip(widths, HEADS, strict=True), start=1):
            kind = {"thinned": k == 1, "scattering": bridged or k == 1}
            for name, family in TRANSFORMERS.items():
                self.add_module(f"{name}Transformer{k}", family(width, heads, **kind))
        for k, width in enumerate(BRIDGED, start=1):
            self.add_module(f"Transformerstafm{k}", ConvexSum(width, hidden=64))
        self.sums = nn.ModuleList(Sum() for _ in LAYERS)

        places = {}
        for i, (stream, net) in enumerate(zip(STREAMS, ("spatial_net", "temporal_net"), strict=True)):
            # the original reads the raw convolution of one variant, the whole stem of the other
            places[f"conv1,{stream}"] = (WIDTH, Tap(f"{net}.inconv.0" if bridged else f"{net}.inconv"))
            for k, (place, units) in enumerate(zip(LAYERS, widths, strict=True)):
                places[f"{place},{stream}"] = (units, Tap(f"sums.{k}", select=i))
        for k, (place, units) in enumerate(zip(LAYERS, BRIDGED, strict=False), start=1):
            places[f"{place},{FUSED}"] = (units, Tap(f"Transformerstafm{k}"))
        places[f"{LAYERS[3]},{FUSED}"] = (DECODED[3], Tap("spatial_net.decoder4"))
        self.stages = declare(places)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map two frames and their flows to probabilities (2B, 4, H, W)."""
        return self.decode(self.encode(inputs))

    def encode(self, inputs: Mapping[str, Tensor]) -> list[list[Tensor]]:
        """Layers 1 to 4 of both streams, each (2B, C, h, w)."""
        streams = (self.spatial_net, self.temporal_net)
        maps = [
            net.inconv(inputs[name].flatten(0, 1))  # b f c h w -> (b f) c h w
            for net, name in zip(streams, INPUTS, strict=True)
        ]
        layers = []
        for k, add in enumerate(self.sums, start=1):
            image, flow = (net.get_submodule(f"encoder{k}")(x) for net, x in zip(streams, maps, strict=True))
            ss, tt, st, s, t = (self.get_submodule(f"{name}Transformer{k}") for name in TRANSFORMERS)
            maps = add(
                (image, flow),
                (between_frames(ss, image), between_frames(tt, flow)),
                (s(image), t(flow)),
                st(image, flow),
            )
            layers.append(maps)
        return layers

    def decode(self, layers: Sequence[Sequence[Tensor]]) -> Tensor:
        """Probabilities of all decoders, the finest first, at four times the size of layer 1."""
        net, streams = self.spatial_net, (self.spatial_net, self.temporal_net)
        height, width = layers[0][0].shape[2:]
        decoded = net.decoder4(net.dilated(layers[3][0]))
        outputs = [net.out4(decoded, (4 * height, 4 * width))]
        for k in (3, 2, 1):
            bridged = (stream.bridge(k, x) for stream, x in zip(streams, layers[k - 1], strict=True))
            fused = self.get_submodule(f"Transformerstafm{k}")(*bridged)
            decoded = torch.cat([upsampled(decoded, fused.shape[2:]), fused], dim=1)
            decoded = net.get_submodule(f"decoder{k}")(decoded)
            outputs.append(net.get_submodule(f"out{k}")(decoded, (4 * height, 4 * width)))
        return torch.sigmoid(torch.cat(outputs[::-1], dim=1))

    def object_map(self, output: Tensor) -> Tensor:
        """The finest decoder's."""
        return output[:, :1]
