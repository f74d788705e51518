"""MATNet (Zhou et al., "Motion-Attentive Transition for Zero-Shot Video Object Segmentation", AAAI 2020):
two ResNet-101, the flow's attending to the image's, fused at every scale.

Key names, arithmetic and the variants of cross connections and fusions are those of Kowal et al. (CVPR 2022).
Some weights are in checkpoints though no output depends on them; they are marked below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.errors import UserError, nearest
from static_dynamic.models.checkpoints import read_checkpoint, state_dict_of
from static_dynamic.models.registry import register
from static_dynamic.models.resnet2d import ARCHITECTURES, WIDTH, conv, pooled, resnet_layers, stem
from static_dynamic.models.stages import NO_OPTIONS, Tap
from static_dynamic.models.twostream import (
    FUSED,
    INPUTS,
    LAYERS,
    STREAMS,
    ConvexGates,
    Gate,
    TwoStreamNetwork,
    declare,
)

WIDTHS = ARCHITECTURES["resnet101"][2]
LEVELS = (2, 3, 4, 5)  # the original's numbers of layers 1 to 4
REDUCTION = 16
CASCADES = 5
DECODED = 256  # channels of the decoder
OUTPUT_SIZE = (473, 473)  # whatever the size of the image


class CrossConnection(NamedTuple):
    """What the streams hand each other beside co-attention."""

    mutual: bool = False  # the flow gets something of the image too
    gated: bool = False  # streams strengthened by a gate are added
    flow_added: bool = False  # the image gets the flow's own maps


CC_TYPES = {
    "coatt": CrossConnection(),
    "coatt_add": CrossConnection(flow_added=True),
    "coatt_gated": CrossConnection(gated=True),
    "coatt_recip": CrossConnection(mutual=True),
    "coatt_gated_recip": CrossConnection(mutual=True, gated=True),
}
# affinities (B, flow's places, image's places) -> the same weighed over the image's places, and the flow's
NORMS = {
    "tanh": lambda affinity: (torch.tanh(affinity),) * 2,
    "softmax": lambda affinity: (affinity.softmax(dim=2), affinity.softmax(dim=1)),
}
FUSIONS = ("gated", "convex_gated")


class CoAttention(nn.Module):
    """Cascades in which each stream attends to its salient places, then to the other's: (image, flow) maps
    to the same, updated."""

    def __init__(self, width: int, kind: CrossConnection, norm_fn: str):
        super().__init__()
        self.kind, self.weigh = kind, NORMS[norm_fn]
        self.proja = nn.Conv2d(width, width // REDUCTION, 1)
        self.projb = nn.Conv2d(width, width // REDUCTION, 1)
        self.proj1 = nn.Conv2d(width, 1, 1)
        self.proj2 = nn.Conv2d(width, 1, 1)
        self.rgating = Gate(width, maps=2) if kind.gated else None
        # in checkpoints only; the first name is the original's
        self.bottolneck1 = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.bottolneck2 = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.bna = nn.BatchNorm2d(width)
        self.bnb = nn.BatchNorm2d(width)

    def forward(self, image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:  # each (B, C, H, W)
        a, b = image, flow
        for _ in range(CASCADES - 1):
            to_image, to_flow = self.cascade(a, b)
            a, b = torch.relu(a + to_image), torch.relu(b + to_flow)
        to_image, to_flow = self.cascade(a, b)
        if self.kind.flow_added:
            to_image = to_image + flow
        return torch.relu(image + to_image), torch.relu(flow + to_flow)

    def cascade(self, image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """What is to be added to the image's maps, and to the flow's."""
        image, flow = salient(image, self.proj1(image)), salient(flow, self.proj2(flow))
        places = self.projb(flow).flatten(2).transpose(1, 2), self.proja(image).flatten(2)
        over_image, over_flow = self.weigh(places[0] @ places[1])  # each (B, flow's places, image's places)
        # not crosswise: each stream gets its own maps back, gathered by the affinity to the other's places
        to_image = gathered(image, over_flow.transpose(1, 2))
        to_flow = gathered(flow, over_image) if self.kind.mutual else flow
        if self.rgating is not None:
            gated_image, gated_flow = self.rgating(image, flow)
            to_image = to_image + gated_image
            to_flow = to_flow + gated_flow if self.kind.mutual else to_flow
        return to_image, to_flow


def gathered(x: Tensor, weights: Tensor) -> Tensor:
    """Sum the places of (B, C, H, W) by weights (B, places, new places), each sum made a unit vector."""
    return F.normalize(x.flatten(2) @ weights, dim=1).view_as(x)


def salient(x: Tensor, scores: Tensor) -> Tensor:
    """Weigh places of (B, C, H, W) by a softmax of their scores (B, 1, H, W)."""
    return x * scores.flatten(2).softmax(dim=2).view_as(scores)


class PlaceAttention(nn.Module):
    """Weights of places, not bounded, from each place's maximum over the channels."""

    def __init__(self):
        super().__init__()
        self.conv = conv(1, 1, 7)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, H, W)
        return self.bn(self.conv(x.amax(dim=1, keepdim=True)))


class GatedFusion(nn.Module):
    """Channels, then places, then (`use_global`) the whole map are weighed; the result is added to the maps
    of both streams, side by side."""

    def __init__(self, width: int, use_global: bool):
        super().__init__()
        hidden = 2 * width // REDUCTION
        self.use_global = use_global
        self.excitation_1 = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU())
        self.excitation_2 = nn.Sequential(nn.Linear(hidden, 2 * width), nn.Sigmoid())
        self.global_attention = nn.Sequential(nn.Linear(hidden, 1), nn.Sigmoid())  # in checkpoints always
        self.spatial = PlaceAttention()

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:  # each (B, C, H, W) -> (B, 2C, H, W)
        both = torch.cat([image, flow], dim=1)
        squeezed = self.excitation_1(both.mean(dim=(2, 3)))  # (B, hidden)
        weighed = both * self.excitation_2(squeezed)[..., None, None]
        weighed = weighed * self.spatial(weighed)
        if self.use_global:
            weighed = weighed * self.global_attention(squeezed)[..., None, None]
        return both + weighed


class ConvexFusion(ConvexGates):
    """Streams side by side, weighed so that their weights sum to one."""

    def __init__(self, width: int, use_spatial_conv: bool):
        super().__init__(width, 2 * width // REDUCTION, joint_maximum=use_spatial_conv)

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:  # each (B, C, H, W) -> (B, 2C, H, W)
        return torch.cat(super().forward(image, flow), dim=1)


class Encoder(nn.Module):
    """Both trunks with cross connections behind layers 2 to 4, and the fused maps of all four."""

    def __init__(self, kind: CrossConnection, norm_fn: str, fusion_type: str, use_global: bool, joint: bool):
        super().__init__()
        for stream in (1, 2):
            conv1, bn1 = stem()
            self.add_module(f"conv1_{stream}", conv1)
            self.add_module(f"bn1_{stream}", bn1)
            for level, layer in zip(LEVELS, resnet_layers("resnet101"), strict=True):
                self.add_module(f"res{level}_{stream}", layer)
        for level, width in zip(LEVELS, WIDTHS, strict=True):
            gated = fusion_type == "gated"
            fusion = GatedFusion(width, use_global) if gated else ConvexFusion(width, joint)
            self.add_module(f"gated_res{level}", fusion)
            if level > 2:
                self.add_module(f"coa_res{level}", CoAttention(width, kind, norm_fn))

    def forward(self, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        """Map images and flows to fused maps, the largest first."""
        part = self.get_submodule
        maps = [part(f"conv1_{i}")(inputs[name]) for i, name in enumerate(INPUTS, start=1)]
        maps = [pooled(part(f"bn1_{i}")(x)) for i, x in enumerate(maps, start=1)]
        fused = []
        for level in LEVELS:
            maps = [part(f"res{level}_{i}")(x) for i, x in enumerate(maps, start=1)]
            if level > 2:
                maps = part(f"coa_res{level}")(*maps)
            fused.append(part(f"gated_res{level}")(*maps))
        return fused


def convolution(inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, dilation: int = 1) -> nn.Conv2d:
    """A convolution with a bias that keeps the size."""
    return nn.Conv2d(inputs, outputs, kernel, padding="same", dilation=dilation)


def refined(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """Add what two convolutions, each behind a ReLU, make of `x`."""
    return x + second(torch.relu(first(torch.relu(x))))


def upsampled(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class Boundary(nn.Module):
    """Logits of the object's boundary."""

    def __init__(self, inputs: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, 64)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv2 = convolution(64, 64)
        self.conv3 = convolution(64, 1, 1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, H, W)
        x = torch.relu(self.conv1(self.bn1(x)))
        return self.conv3(torch.relu(self.conv2(self.bn2(x))))


class LargeKernel(nn.Module):
    """A 7x7 convolution made of two pairs of flat ones."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv_l1 = convolution(inputs, DECODED, (7, 1))
        self.conv_l2 = convolution(DECODED, DECODED, (1, 7))
        self.conv_r1 = convolution(inputs, DECODED, (1, 7))
        self.conv_r2 = convolution(DECODED, DECODED, (7, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_l2(self.conv_l1(x)) + self.conv_r2(self.conv_r1(x))


class Pyramid(nn.Module):
    """A pointwise and a dilated convolution side by side.

    The dilated one fills three places: the original uses it for all of its three rates, and trained weights
    expect that; those of the other rates are in checkpoints only.
    """

    def __init__(self, inputs: int):
        super().__init__()
        width = DECODED // 4
        self.block0 = convolution(inputs, width, 1)
        for i, rate in enumerate((3, 5, 7), start=1):
            block = nn.ModuleDict({"conv": convolution(inputs, width, dilation=rate)})
            self.add_module(f"block{i}", block)
        self.bn = nn.BatchNorm2d(DECODED)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.cat([self.block0(x), *[self.block1["conv"](x)] * 3], dim=1))


class Refine(nn.Module):
    """Fused maps and the decoded ones of the scale below."""

    def __init__(self, inputs: int):
        super().__init__()
        self.pdc = Pyramid(inputs)
        self.convFS1 = convolution(inputs, DECODED)  # in checkpoints only
        for name in ("convFS2", "convFS3", "convMM1", "convMM2"):
            self.add_module(name, convolution(DECODED, DECODED))

    def forward(self, fused: Tensor, below: Tensor) -> Tensor:
        x = refined(self.pdc(fused), self.convFS2, self.convFS3)
        return refined(x + upsampled(below, x.shape[2:]), self.convMM1, self.convMM2)


class Decoder(nn.Module):
    """Fused maps, each with its boundary beside it, from the smallest to the largest."""

    def __init__(self):
        super().__init__()
        for level, width in zip(LEVELS, WIDTHS, strict=True):
            self.add_module(f"bdry{level}", Boundary(2 * width))
            if level < 5:
                self.add_module(f"RF{level}", Refine(2 * width + 1))
        self.GC = LargeKernel(2 * WIDTHS[-1] + 1)
        self.convG1 = convolution(DECODED, DECODED)
        self.convG2 = convolution(DECODED, DECODED)
        self.pred2 = convolution(DECODED, 1)
        # outputs for training, which are left out here
        for level in LEVELS[1:]:
            self.add_module(f"pred{level}", convolution(DECODED, 1))
        self.concat = convolution(len(LEVELS), 1)

    def forward(self, fused: Sequence[Tensor]) -> Tensor:
        """Map fused maps, the largest first, to the object's logits, (B, 1, H/4, W/4)."""
        part = self.get_submodule
        *larger, smallest = (
            torch.cat([x, part(f"bdry{level}")(x)], dim=1) for level, x in zip(LEVELS, fused, strict=True)
        )
        x = refined(self.GC(smallest), self.convG1, self.convG2)
        for level in (4, 3, 2):
            x = part(f"RF{level}")(larger.pop(), x)
        return self.pred2(torch.relu(x))


@register("matnet")
class MATNet(TwoStreamNetwork):
    """MATNet; ``forward`` returns the object's probability, (B, 1, 473, 473) for images of any size.

    Parameters
    ----------
    cc_type
        Cross connections, a key of `CC_TYPES`.
    fusion_type
        ``gated`` or ``convex_gated``.
    use_global
        Gated fusion: one more weight, of the whole map.
    norm_fn
        How affinities become weights: ``tanh`` or ``softmax``.
    use_spatial_conv
        Convex fusion: see only the maximum over the channels of both streams.
    """

    def __init__(
        self,
        num_classes: int,
        cc_type: str,
        fusion_type: str,
        use_global: bool,
        norm_fn: str,
        use_spatial_conv: bool,
    ):
        super().__init__()
        options = {
            "cc_type": (cc_type, CC_TYPES),
            "fusion_type": (fusion_type, FUSIONS),
            "norm_fn": (norm_fn, NORMS),
            "num_classes": (num_classes, (1,)),  # one object, its probability
        }
        for name, (value, known) in options.items():
            if value not in known:
                near = nearest(str(value), map(str, known))
                raise UserError(f"{name}={value}: MATNet has {', '.join(map(str, known))}{near}")
        if cc_type == "coatt_gated_recip" and norm_fn != "tanh":  # the original takes tanh there in silence
            raise UserError(f"norm_fn={norm_fn}: cc_type={cc_type} goes with norm_fn=tanh")
        self.encoder = Encoder(CC_TYPES[cc_type], norm_fn, fusion_type, use_global, use_spatial_conv)
        self.decoder = Decoder()
        places = {}
        for i, stream in enumerate(STREAMS, start=1):
            places[f"conv1,{stream}"] = (WIDTH, Tap(f"encoder.conv1_{i}"))
            for place, level, units in zip(LAYERS, LEVELS, WIDTHS, strict=True):
                crossed = Tap(f"encoder.coa_res{level}", select=i - 1)
                tap = crossed if level > 2 else Tap(f"encoder.res{level}_{i}")
                places[f"{place},{stream}"] = (units, tap)
        for place, level, units in zip(LAYERS, LEVELS, WIDTHS, strict=True):
            places[f"{place},{FUSED}"] = (2 * units, Tap(f"encoder.gated_res{level}"))
        places[f"layerf,{FUSED}"] = (DECODED, Tap("decoder.RF2"))
        self.stages = declare(places)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map {"Image": (B, 3, H, W), "Flow": (B, 3, H, W)} to probabilities (B, 1, 473, 473)."""
        return torch.sigmoid(upsampled(self.decoder(self.encoder(inputs)), OUTPUT_SIZE))

    def shown_stages(self, options: Mapping = NO_OPTIONS) -> list[str]:
        """Return the stages that all two-stream networks have: all but ``layerf``, the decoder's."""
        return [name for name in self.stages if not name.startswith("layerf")]

    def read_folder(self, folder: Path) -> dict:
        """State dict of a checkpoint: MATNet's are folders."""
        return read_matnet_checkpoint(folder)


def read_matnet_checkpoint(folder: Path) -> dict[str, Tensor]:
    """State dict of a folder of ``encoder_<epoch>.pt`` and ``decoder_<epoch>.pt``: the highest epoch's.

    A word in place of the epoch (``encoder_best.pt``) counts only where there is no number.

    Raises
    ------
    UserError
        Where there is no encoder, or no decoder of its epoch.
    """
    epochs = [path.stem.partition("_")[2] for path in sorted(folder.glob("encoder_*.pt"))]
    if not epochs:
        raise UserError(f"checkpoint {folder} holds no encoder_<epoch>.pt: is it a MATNet checkpoint?")
    epoch = max(epochs, key=lambda word: int(word) if word.isdecimal() else -1)
    state = {}
    for part in ("encoder", "decoder"):
        path = folder / f"{part}_{epoch}.pt"  # a missing decoder is named by what reads it
        content = state_dict_of(read_checkpoint(path), path)
        state |= {f"{part}.{key}": value for key, value in content.items()}
    return state
