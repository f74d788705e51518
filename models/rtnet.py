"""RTNet (Ren et al., "Reciprocal Transformations for Unsupervised Video Object Segmentation", CVPR 2021).

RTNet takes two frames with their forward and backward flows. At every scale, attention transforms the maps of
one frame (or stream) by those of the other. Key names and arithmetic are those of the authors' code, which
normalises some attention over the wrong axis: trained weights depend on that. The batch axis 2B counts
frames: frames 1 and 2 of the first clip, then of the second, and so on.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.errors import UserError

from .registry import register
from .resnet2d import ARCHITECTURES, WIDTH, conv_norm_relu, resnet_layers, stem
from .stages import Tap
from .twostream import FUSED, LAYERS, STREAMS, ConvexGates, Gate, Squeeze, TwoStreamNetwork, declare, resized

# Numbers of attention heads in the modules that follow layers 1 to 4.
HEADS = (1, 2, 4, 8)
# Dilations of the parallel 3x3 convolutions that follow layer 4.
DILATIONS = (1, 2, 4, 8)
# Number of output channels of each dilated convolution.
DILATED = 512
# Numbers of output channels of the 1x1 convolutions ("bridges") that follow layers 1 to 3.
BRIDGED = (64, 128, 256)
# Numbers of output channels of decoders 1 to 4; decoder k has the resolution of layer k.
DECODED = (64, 64, 128, 256)
# To save memory, scattering attention computes at most this many query positions at a time.
CHUNK = 1024

upsampled = partial(resized, align_corners=True)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return dot-product attention; all tensors are (B, heads, C, N) for N positions."""
    q, k, v = (x.transpose(2, 3) for x in (query, key, value))  # (B, heads, N, C)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3)


def scattering_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the output of an attention that sums over query positions instead of key positions.

    All tensors are (B, heads, C, N).

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
    """Attention from one feature map to another; 1x1 convolutions compute queries, keys and values.

    With `thinned`, maps are pooled before the attention and the result is upsampled. `scattering` selects
    `scattering_attention`.
    """

    def __init__(self, width: int, heads: int, *, thinned: bool, scattering: bool):
        super().__init__()
        self.heads, self.thinned = heads, thinned
        self.attend = scattering_attention if scattering else attention
        # as in Ren et al.'s code, the projections have biases only with scattering attention
        self.query = nn.Conv2d(width, width, 1, bias=scattering)
        self.key = nn.Conv2d(width, width, 1, bias=scattering)
        self.value = nn.Conv2d(width, width, 1, bias=scattering)

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """Attend from the map `target` to the map `source`; both maps and the result are (B, C, H, W)."""
        size = target.shape[2:]
        if self.thinned:
            target, source = (F.max_pool2d(x, 3, 2, 1) for x in (target, source))
        projected = (self.query(target), self.key(source), self.value(source))
        q, k, v = (x.flatten(2).unflatten(1, (self.heads, -1)) for x in projected)
        x = self.attend(q, k, v).flatten(1, 2).unflatten(2, target.shape[2:])
        return upsampled(x, size) if self.thinned else x


class Scaling(Squeeze):
    """Squeeze-and-excitation of several feature maps: multiplies each channel by 1 + its weight."""

    def __init__(self, width: int, maps: int, hidden: int):
        super().__init__(maps * width, hidden, maps * width)

    # mypy reports an error, because Squeeze.forward returns one tensor instead of a list
    def forward(self, *maps: Tensor) -> list[Tensor]:  # type: ignore[override]
        """Return the scaled maps, each (B, C, H, W)."""
        scales = super().forward(*maps).chunk(len(maps), dim=1)
        return [x * (1 + scale) for x, scale in zip(maps, scales, strict=True)]


class Pair(nn.Module):
    """Transform two feature maps: x attends to y, then y attends to the transformed x.

    With `alike` (maps of two frames, not of two streams), both maps share one transformation.
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
        """Return the two transformed maps, each (B, C, H, W)."""
        x, y = self.scaling(x, y)
        x = self.transformation1(x, y)
        y = (self.transformation1 if self.alike else self.transformation2)(y, x)
        return self.gating(x, y)


class Alone(nn.Module):
    """Transform one feature map by self-attention."""

    def __init__(self, width: int, heads: int, **kind: bool):
        super().__init__()
        self.scaling = Scaling(width, 1, width // heads)
        self.transformation = Transformation(width, heads, **kind)
        self.gating = Gate(width, maps=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the transformed feature map, of the same shape (B, C, H, W)."""
        (x,) = self.scaling(x)
        (x,) = self.gating(self.transformation(x, x))
        return x


class Sum(nn.Module):
    """Module that sums the branches of each stream, so that a forward hook can read the two sums."""

    def forward(self, *branches: Sequence[Tensor]) -> list[Tensor]:
        """Map branches, each [image map, flow map], to [image sum, flow sum]; every map is (B, C, H, W)."""
        return [reduce(torch.add, maps) for maps in zip(*branches, strict=True)]


class ConvexSum(ConvexGates):
    """Weighted sum of image and flow maps, with weights that sum to one."""

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Map image and flow maps, each (B, C, H, W), to (B, C, H, W)."""
        return torch.add(*self.weighted(image, flow))


def between_frames(pair: nn.Module, rows: Tensor) -> Tensor:
    """Apply `pair` to the maps of frame 1 and of frame 2 of each clip in `rows` (2B frames, C, H, W)."""
    return torch.stack(pair(rows[0::2], rows[1::2]), dim=1).flatten(0, 1)


class Decoder(nn.Module):
    """Decoder of one scale: three convolutions, each followed by batch norm and ReLU."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        widths = (inputs, hidden, hidden, outputs)
        layers = [conv_norm_relu(a, b, 3) for a, b in zip(widths, widths[1:], strict=False)]
        self.layer = nn.Sequential(*sum(layers, []))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H, W)."""
        return self.layer(x)


class Output(nn.Module):
    """Predict the object's logits at a given height and width."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv1 = nn.Sequential(*conv_norm_relu(inputs, 64, 3))
        self.conv2 = nn.Conv2d(64, 1, 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (B, C, h, w) to logits (B, 1, height, width), where `size` is (height, width)."""
        return self.conv2(upsampled(self.conv1(x), size))


class Stream(nn.Module):
    """Modules of one stream: ResNet, projections ("bridges"), dilated convolutions and decoders.

    The flow stream has dilated convolutions and decoders only because checkpoints hold their weights.
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
        """Project the output (B, C, H, W) of layer `k` for the decoder; resnet34 needs no projection."""
        return self.get_submodule(f"bridge{k}")(x) if self.bridged else x

    def dilated(self, x: Tensor) -> Tensor:
        """Concatenate `x` (layer 4), or its projection, with dilated convolutions of `x`: (B, 2560, H, W)."""
        first = self.get_submodule("dilation0")(x) if self.bridged else x
        rest = [self.get_submodule(f"dilation{k}")(x) for k in range(1, len(DILATIONS) + 1)]
        return torch.cat([first, *rest], dim=1)


# Name -> attention module; S means the image (spatial) stream, and T means the flow (temporal) stream.
TRANSFORMERS: dict[str, Callable[..., nn.Module]] = {
    # attention between the two frames of the image stream
    "SS": partial(Pair, alike=True),
    # attention between the two frames of the flow stream
    "TT": partial(Pair, alike=True),
    # attention between the two streams of one frame
    "ST": partial(Pair, alike=False),
    "Sself": Alone,
    "Tself": Alone,
}


@register("rtnet")
class RTNet(TwoStreamNetwork):
    """RTNet; ``forward`` returns object probabilities (2B frames, 4 decoders, H, W), finest decoder first.

    The input is ``{"Image": (B, 2, 3, H, W), "Flow": (B, 2, 6, H, W)}``: two frames, and the forward and
    backward flow of each frame, concatenated over channels.

    Parameters
    ----------
    trunk
        ``resnext50`` or ``resnet34``. With ``resnet34``, only the attention after layer 1 is normalised over
        the wrong axis.
    """

    channels = {"Image": 3, "Flow": 6}
    clip = (2,)

    def __init__(self, num_classes: int, trunk: str):
        super().__init__()
        if num_classes != 1:
            raise UserError(f"num_classes={num_classes}: RTNet needs num_classes=1 (the object)")
        if trunk not in ("resnext50", "resnet34"):
            raise UserError(f"trunk={trunk}: RTNet takes resnext50 or resnet34")
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
            # as in Kowal et al.'s code, conv1 is the whole stem for resnet34, one convolution for resnext50
            taps[f"conv1,{stream}"] = (WIDTH, Tap(f"{net}.inconv.0" if bridged else f"{net}.inconv"))
            for k, (layer, units) in enumerate(zip(LAYERS, widths, strict=True)):
                taps[f"{layer},{stream}"] = (units, Tap(f"sums.{k}", select=i))
        for k, (layer, units) in enumerate(zip(LAYERS, BRIDGED, strict=False), start=1):
            taps[f"{layer},{FUSED}"] = (units, Tap(f"Transformerstafm{k}"))
        taps[f"{LAYERS[3]},{FUSED}"] = (DECODED[3], Tap("spatial_net.decoder4"))
        self.stages = declare(taps)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map images (B, 2, 3, H, W) and flows (B, 2, 6, H, W) to probabilities (frames, decoders, H, W)."""
        return self.decode(self.encode(inputs))

    def encode(self, inputs: Mapping[str, Tensor]) -> list[list[Tensor]]:
        """Return [image maps, flow maps] for each of layers 1 to 4; all maps are (2B frames, C, h, w)."""
        streams = (self.spatial_net, self.temporal_net)
        maps = [
            # flatten merges the batch axis and the axis of the two frames
            net.inconv(inputs[name].flatten(0, 1))
            for net, name in zip(streams, self.channels, strict=True)
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
        """Return object probabilities (2B frames, 4 decoders, H, W), the finest decoder first."""
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
        """Return the object probability (2B frames, 1, H, W) that the finest decoder predicts."""
        return output[:, :1]
