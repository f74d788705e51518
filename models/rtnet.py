"""RTNet (Ren et al., "Reciprocal Transformations for Unsupervised Video Object Segmentation", CVPR 2021).

RTNet takes two frames with their forward and backward flows. At every scale, attention transforms the maps of
each frame and each stream by the maps of the other. Key names and arithmetic are the original's. They
include attention that is normalised over the wrong axis, which trained weights depend on. Rows are frames:
frames 1 and 2 of the first item, then of the second, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce

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
    resized,
)

HEADS = (1, 2, 4, 8)  # attention heads after layers 1 to 4
DILATIONS = (1, 2, 4, 8)  # dilations of the parallel convolutions after layer 4
DILATED = 512  # channels of each dilated convolution
BRIDGED = (64, 128, 256)  # channels of layers 1 to 3 in the decoder
DECODED = (64, 64, 128, 256)  # output channels of decoders 1 to 4
CHUNK = 1024  # query positions per step of the attention, which bounds its memory


upsampled = partial(resized, align_corners=True)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Dot-product attention, all tensors (B, heads, C, N)."""
    q, k, v = (x.transpose(2, 3) for x in (query, key, value))  # (B, heads, N, C)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3)


def scattering_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention that sums over the query positions, all tensors (B, heads, C, N).

    The weights of query i are a softmax over the key positions j, as usual. Output j is the sum of the values
    i with weights (i, j), so that the weights of one output do not sum to one. Query positions are processed
    in chunks, so that the N x N weights are never in memory at once.
    """
    query = query.transpose(2, 3) * query.shape[2] ** -0.5  # (B, heads, N, C)
    output = torch.zeros_like(value)
    for queries, values in zip(query.split(CHUNK, dim=2), value.split(CHUNK, dim=3), strict=True):
        output = output + values @ (queries @ key).softmax(dim=-1)
    return output


class Transformation(nn.Module):
    """Attention of one map to another of the same size, with 1x1 convolutions as projections.

    With `thinned`, maps are pooled before the attention and the result is upsampled. `scattering` selects
    `scattering_attention`.
    """

    def __init__(self, width: int, heads: int, *, thinned: bool, scattering: bool):
        super().__init__()
        self.heads, self.thinned = heads, thinned
        self.attend = scattering_attention if scattering else attention
        # in the original, the projections of ordinary attention have no biases
        self.query = nn.Conv2d(width, width, 1, bias=scattering)
        self.key = nn.Conv2d(width, width, 1, bias=scattering)
        self.value = nn.Conv2d(width, width, 1, bias=scattering)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Map two maps (B, C, H, W) to (B, C, H, W); queries come from `target`."""
        size = target.shape[2:]
        if self.thinned:
            target, source = (F.max_pool2d(x, 3, 2, 1) for x in (target, source))
        projected = (self.query(target), self.key(source), self.value(source))
        q, k, v = (x.flatten(2).unflatten(1, (self.heads, -1)) for x in projected)
        x = self.attend(q, k, v).flatten(1, 2).unflatten(2, target.shape[2:])
        return upsampled(x, size) if self.thinned else x


class Scaling(Squeeze):
    """Scale the channels of each of `maps` maps by 1 + a weight from the means of all of them."""

    def __init__(self, width: int, maps: int, hidden: int):
        super().__init__(maps * width, hidden, maps * width)

    def forward(self, *maps: Tensor) -> list[Tensor]:  # type: ignore[override]  # Squeeze returns weights
        """Scale each map (B, C, H, W)."""
        scales = super().forward(*maps).chunk(len(maps), dim=1)
        return [x * (1 + scale) for x, scale in zip(maps, scales, strict=True)]


class Pair(nn.Module):
    """Transform two maps by each other: the first by the second, then the second by the new first.

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
        """Map two maps to two new ones, each (B, C, H, W)."""
        x, y = self.scaling(x, y)
        x = self.transformation1(x, y)
        y = (self.transformation1 if self.alike else self.transformation2)(y, x)
        return self.gating(x, y)


class Alone(nn.Module):
    """Transform one map by itself."""

    def __init__(self, width: int, heads: int, **kind: bool):
        super().__init__()
        self.scaling = Scaling(width, 1, width // heads)
        self.transformation = Transformation(width, heads, **kind)
        self.gating = Gate(width, maps=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        (x,) = self.scaling(x)
        (x,) = self.gating(self.transformation(x, x))
        return x


class Sum(nn.Module):
    """Add the branches of each stream; a module, so that a hook can read the sums."""

    def forward(self, *branches: Sequence[Tensor]) -> list[Tensor]:
        """Map pairs (image, flow) of maps (B, C, H, W) to the pair of their sums."""
        return [reduce(torch.add, maps) for maps in zip(*branches, strict=True)]


class ConvexSum(ConvexGates):
    """Weighted sum of image and flow, with weights that sum to one."""

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Map two maps (B, C, H, W) to (B, C, H, W)."""
        return torch.add(*self.weighted(image, flow))


def between_frames(pair: nn.Module, rows: Tensor) -> Tensor:
    """Transform frames 1 and 2 of each item, two consecutive rows of (2B, C, H, W), by each other."""
    return torch.stack(pair(rows[0::2], rows[1::2]), dim=1).flatten(0, 1)


class Decoder(nn.Module):
    """Three convolutions with norm and ReLU."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        widths = (inputs, hidden, hidden, outputs)
        layers = [conv_norm_relu(a, b, 3) for a, b in zip(widths, widths[1:], strict=False)]
        self.layer = nn.Sequential(*sum(layers, []))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        return self.layer(x)


class Output(nn.Module):
    """Head for the object's logits at a given size."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv1 = nn.Sequential(*conv_norm_relu(inputs, 64, 3))
        self.conv2 = nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (B, C, h, w) to logits (B, 1, *size)."""
        return self.conv2(upsampled(self.conv1(x), size))


class Stream(nn.Module):
    """Modules of one stream: ResNet, bridges, dilated convolutions and decoders.

    In the flow stream, no output depends on the dilated convolutions and the decoders: they are in
    checkpoints only.
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
        """Return layer `k` (B, C, H, W) with the decoder's number of channels."""
        return self.get_submodule(f"bridge{k}")(x) if self.bridged else x

    def dilated(self, x: Tensor) -> Tensor:
        """Return the dilated convolutions of layer 4, concatenated with layer 4, (B, 2560, H, W)."""
        first = self.get_submodule("dilation0")(x) if self.bridged else x
        rest = [self.get_submodule(f"dilation{k}")(x) for k in range(1, len(DILATIONS) + 1)]
        return torch.cat([first, *rest], dim=1)


# Transformations that are added after each layer. S is the image stream, T the flow stream.
TRANSFORMERS: dict[str, Callable[..., nn.Module]] = {
    "SS": partial(Pair, alike=True),  # two frames of the image stream
    "TT": partial(Pair, alike=True),  # two frames of the flow stream
    "ST": partial(Pair, alike=False),  # both streams of one frame
    "Sself": Alone,
    "Tself": Alone,
}


@register("rtnet")
class RTNet(TwoStreamNetwork):
    """RTNet; ``forward`` returns the object's probability of four decoders, the finest first, (2B, 4, H, W).

    The input is ``{"Image": (B, 2, 3, H, W), "Flow": (B, 2, 6, H, W)}``: two frames, and the forward and
    backward flow of each frame, concatenated over channels.

    Parameters
    ----------
    trunk
        ``resnext50`` or ``resnet34``. With ``resnet34``, attention is normalised over the right axis, except
        after layer 1.
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

        taps = {}
        for i, (stream, net) in enumerate(zip(STREAMS, ("spatial_net", "temporal_net"), strict=True)):
            # as in the original: the raw convolution with resnext50, the whole stem with resnet34
            taps[f"conv1,{stream}"] = (WIDTH, Tap(f"{net}.inconv.0" if bridged else f"{net}.inconv"))
            for k, (layer, units) in enumerate(zip(LAYERS, widths, strict=True)):
                taps[f"{layer},{stream}"] = (units, Tap(f"sums.{k}", select=i))
        for k, (layer, units) in enumerate(zip(LAYERS, BRIDGED, strict=False), start=1):
            taps[f"{layer},{FUSED}"] = (units, Tap(f"Transformerstafm{k}"))
        taps[f"{LAYERS[3]},{FUSED}"] = (DECODED[3], Tap("spatial_net.decoder4"))
        self.stages = declare(taps)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map {"Image": (B, 2, 3, H, W), "Flow": (B, 2, 6, H, W)} to probabilities (2B, 4, H, W)."""
        return self.decode(self.encode(inputs))

    def encode(self, inputs: Mapping[str, Tensor]) -> list[list[Tensor]]:
        """Return layers 1 to 4 of both streams, each [image, flow] of (2B, C, h, w)."""
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
        """Return the probabilities of all decoders, the finest first, at four times the size of layer 1."""
        net, streams = self.spatial_net, (self.spatial_net, self.temporal_net)
        height, width = layers[0][0].shape[2:]
        decoded = net.get_submodule("decoder4")(net.dilated(layers[3][0]))
        outputs = [net.get_submodule("out4")(decoded, (4 * height, 4 * width))]
        for k in (3, 2, 1):
            bridged = (stream.bridge(k, x) for stream, x in zip(streams, layers[k - 1], strict=True))
            fused = self.get_submodule(f"Transformerstafm{k}")(*bridged)
            decoded = torch.cat([upsampled(decoded, fused.shape[2:]), fused], dim=1)
            decoded = net.get_submodule(f"decoder{k}")(decoded)
            outputs.append(net.get_submodule(f"out{k}")(decoded, (4 * height, 4 * width)))
        return torch.sigmoid(torch.cat(outputs[::-1], dim=1))

    def object_map(self, output: Tensor) -> Tensor:
        """Return the probability of the finest decoder, (2B, 1, H, W)."""
        return output[:, :1]
