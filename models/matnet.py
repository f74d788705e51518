"""MATNet (Zhou et al., "Motion-Attentive Transition for Zero-Shot Video Object Segmentation", AAAI 2020).

Two ResNet-101 process the image and the optical flow. Co-attention connects them, and their maps are fused at
every scale. Key names, arithmetic and variants are those of Kowal et al.'s code (CVPR 2022).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.errors import UserError, nearest

from .checkpoint_keys import state_dict_of
from .checkpoints import read_checkpoint
from .registry import register
from .resnet2d import ARCHITECTURES, WIDTH, conv, pooled, resnet_layers, stem
from .stages import NO_OPTIONS, Tap
from .twostream import FUSED, INPUTS, LAYERS, STREAMS, ConvexGates, Gate, TwoStreamNetwork, declare, resized

WIDTHS = ARCHITECTURES["resnet101"][2]
# Numbers that state dict keys give to ResNet layers 1 to 4 (``res2`` is layer 1).
LEVELS = (2, 3, 4, 5)
# Ratio of input channels to hidden channels in attention modules.
REDUCTION = 16
# Number of co-attention steps.
CASCADES = 5
# Number of channels of every feature map in the decoder.
DECODED = 256
# Height and width of the predicted mask, whatever the size of the image.
OUTPUT_SIZE = (473, 473)


class CrossConnection(NamedTuple):
    """Options of the co-attention between the image stream and the flow stream."""

    # if true, affinities weight the flow maps as well as the image maps
    mutual: bool = False
    # if true, the gated image maps are added to their update; with `mutual`, so are the gated flow maps
    gated: bool = False
    # if true, the flow maps are added to the last update of the image maps
    flow_added: bool = False


CC_TYPES = {
    "coatt": CrossConnection(),
    "coatt_add": CrossConnection(flow_added=True),
    "coatt_gated": CrossConnection(gated=True),
    "coatt_recip": CrossConnection(mutual=True),
    "coatt_gated_recip": CrossConnection(mutual=True, gated=True),
}
# Name -> function that normalises affinities, a tensor (B, flow positions, image positions).
# Each function in NORMS returns affinities twice: normalised over image positions, and over flow positions.
NORMS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "tanh": lambda affinity: (torch.tanh(affinity),) * 2,
    "softmax": lambda affinity: (affinity.softmax(dim=2), affinity.softmax(dim=1)),
}
FUSIONS = ("gated", "convex_gated")


class CoAttention(nn.Module):
    """Co-attention in five steps; each step weights positions by saliency and by affinity between streams."""

    def __init__(self, width: int, kind: CrossConnection, norm_fn: str):
        super().__init__()
        self.kind, self.weigh = kind, NORMS[norm_fn]
        self.proja = nn.Conv2d(width, width // REDUCTION, 1)
        self.projb = nn.Conv2d(width, width // REDUCTION, 1)
        self.proj1 = nn.Conv2d(width, 1, 1)
        self.proj2 = nn.Conv2d(width, 1, 1)
        self.rgating = Gate(width, maps=2) if kind.gated else None
        # The next four layers never run. The checkpoints hold weights for them, under these misspelled names.
        self.bottolneck1 = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.bottolneck2 = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.bna = nn.BatchNorm2d(width)
        self.bnb = nn.BatchNorm2d(width)

    def forward(self, image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return the updated maps of the image and the flow stream, each (B, C, H, W)."""
        a, b = image, flow
        for _ in range(CASCADES - 1):
            to_image, to_flow = self.cascade(a, b)
            a, b = torch.relu(a + to_image), torch.relu(b + to_flow)
        to_image, to_flow = self.cascade(a, b)
        if self.kind.flow_added:
            to_image = to_image + flow
        return torch.relu(image + to_image), torch.relu(flow + to_flow)

    def cascade(self, image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Run one co-attention step; return the updates of image maps and of flow maps, both (B, C, H, W)."""
        image, flow = salient(image, self.proj1(image)), salient(flow, self.proj2(flow))
        affinity = self.projb(flow).flatten(2).transpose(1, 2) @ self.proja(image).flatten(2)
        # over_image and over_flow have the shape (B, flow positions, image positions)
        over_image, over_flow = self.weigh(affinity)
        # as in Kowal et al.'s code, each stream's update is a weighted sum of the stream's own maps
        to_image = gathered(image, over_flow.transpose(1, 2))
        to_flow = gathered(flow, over_image) if self.kind.mutual else flow
        if self.rgating is not None:
            gated_image, gated_flow = self.rgating(image, flow)
            to_image = to_image + gated_image
            to_flow = to_flow + gated_flow if self.kind.mutual else to_flow
        return to_image, to_flow


def gathered(x: Tensor, weights: Tensor) -> Tensor:
    """Return sums of `x` over positions, weighted by `weights` and scaled to unit length over channels.

    `x` and the result have shape (B, C, H, W), `weights` has shape (B, positions, new positions).
    """
    return F.normalize(x.flatten(2) @ weights, dim=1).view_as(x)


def salient(x: Tensor, scores: Tensor) -> Tensor:
    """Multiply feature maps `x` (B, C, H, W) by the softmax over positions of `scores` (B, 1, H, W)."""
    return x * scores.flatten(2).softmax(dim=2).view_as(scores)


class SpatialAttention(nn.Module):
    """Compute one weight per position: maximum over channels, convolution, batch norm."""

    def __init__(self):
        super().__init__()
        self.conv = conv(1, 1, 7)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to weights (B, 1, H, W)."""
        return self.bn(self.conv(x.amax(dim=1, keepdim=True)))


class GatedFusion(nn.Module):
    """Concatenate image and flow maps to x; return x + w * x with a weight w per channel and position.

    With `use_global`, the weighted maps are scaled by one more weight per clip.
    """

    def __init__(self, width: int, use_global: bool):
        super().__init__()
        hidden = 2 * width // REDUCTION
        self.use_global = use_global
        self.excitation_1 = nn.Sequential(nn.Linear(2 * width, hidden), nn.ReLU())
        self.excitation_2 = nn.Sequential(nn.Linear(hidden, 2 * width), nn.Sigmoid())
        # checkpoints always hold this layer, which runs only with use_global=True
        self.global_attention = nn.Sequential(nn.Linear(hidden, 1), nn.Sigmoid())
        self.spatial = SpatialAttention()

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Map image and flow maps, each (B, C, H, W), to (B, 2C, H, W)."""
        both = torch.cat([image, flow], dim=1)
        squeezed = self.excitation_1(both.mean(dim=(2, 3)))  # (B, hidden)
        weighed = both * self.excitation_2(squeezed)[..., None, None]
        weighed = weighed * self.spatial(weighed)
        if self.use_global:
            weighed = weighed * self.global_attention(squeezed)[..., None, None]
        return both + weighed


class ConvexFusion(ConvexGates):
    """Concatenate image maps times w and flow maps times 1 - w, with weights w computed from all maps."""

    def __init__(self, width: int, use_spatial_conv: bool):
        super().__init__(width, 2 * width // REDUCTION, joint_maximum=use_spatial_conv)

    def forward(self, image: Tensor, flow: Tensor) -> Tensor:
        """Map image and flow maps, each (B, C, H, W), to (B, 2C, H, W)."""
        return torch.cat(self.weighted(image, flow), dim=1)


class Encoder(nn.Module):
    """Image ResNet and flow ResNet, with co-attention after layers 2 to 4 and fusion after every layer."""

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
        """Map {"Image": (B, 3, H, W), "Flow": (B, 3, H, W)} to one fused map per layer, the largest first."""
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
    """Build a convolution with a bias, padded so that height and width stay the same."""
    return nn.Conv2d(inputs, outputs, kernel, padding="same", dilation=dilation)


def refined(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    """Return `x` (B, C, H, W) plus the output of two convolutions of `x`, each preceded by a ReLU."""
    return x + second(torch.relu(first(torch.relu(x))))


class Boundary(nn.Module):
    """Predict logits of the object's boundary at every position."""

    def __init__(self, inputs: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = convolution(inputs, 64)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv2 = convolution(64, 64)
        self.conv3 = convolution(64, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to logits (B, 1, H, W)."""
        x = torch.relu(self.conv1(self.bn1(x)))
        return self.conv3(torch.relu(self.conv2(self.bn2(x))))


class LargeKernel(nn.Module):
    """Sum of two branches, each a factorised 7x7 convolution: 7x1 then 1x7, and 1x7 then 7x1."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv_l1 = convolution(inputs, DECODED, (7, 1))
        self.conv_l2 = convolution(DECODED, DECODED, (1, 7))
        self.conv_r1 = convolution(inputs, DECODED, (1, 7))
        self.conv_r2 = convolution(DECODED, DECODED, (7, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, 256, H, W)."""
        return self.conv_l2(self.conv_l1(x)) + self.conv_r2(self.conv_r1(x))


class Pyramid(nn.Module):
    """Concatenate a 1x1 convolution's output and three copies of a dilated 3x3 convolution's output.

    Kowal et al.'s code means dilations 3, 5 and 7 but uses 3 three times, and trained weights depend on
    dilation 3. The convolutions with dilations 5 and 7 are unused.
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
        """Map (B, C_in, H, W) to (B, 256, H, W)."""
        dilated = self.get_submodule("block1.conv")(x)
        return self.bn(torch.cat([self.block0(x), dilated, dilated, dilated], dim=1))


class Refine(nn.Module):
    """Combine the fused map of one scale with the decoder's map of the next smaller scale."""

    def __init__(self, inputs: int):
        super().__init__()
        self.pdc = Pyramid(inputs)
        # convFS1 never runs, but checkpoints hold its weights
        self.convFS1 = convolution(inputs, DECODED)
        self.convFS2 = convolution(DECODED, DECODED)
        self.convFS3 = convolution(DECODED, DECODED)
        self.convMM1 = convolution(DECODED, DECODED)
        self.convMM2 = convolution(DECODED, DECODED)

    def forward(self, fused: Tensor, below: Tensor) -> Tensor:
        """Map `fused` (B, C_in, H, W) and the smaller map `below` (B, 256, h, w) to (B, 256, H, W)."""
        x = refined(self.pdc(fused), self.convFS2, self.convFS3)
        return refined(x + resized(below, x.shape[2:]), self.convMM1, self.convMM2)


class Decoder(nn.Module):
    """Decode fused maps from the smallest to the largest; each has boundary logits as an extra channel."""

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
        # add layers that only training losses use, because checkpoints hold the weights of these layers
        for level in LEVELS[1:]:
            self.add_module(f"pred{level}", convolution(DECODED, 1))
        self.concat = convolution(len(LEVELS), 1)

    def forward(self, fused: Sequence[Tensor]) -> Tensor:
        """Map four fused maps, the largest first, to object logits (B, 1, H/4, W/4) for H x W images."""
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
    """MATNet; ``forward`` returns object probabilities (B, 1, 473, 473), whatever the size of the images.

    Parameters
    ----------
    cc_type
        Variant of the co-attention between the streams, a key of `CC_TYPES`.
    fusion_type
        ``gated`` or ``convex_gated``.
    use_global
        For gated fusion: add a weight per clip.
    norm_fn
        Normalisation of the affinities: ``tanh`` or ``softmax``.
    use_spatial_conv
        For convex fusion: compute weights of positions from the maximum over the channels of both streams.
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
            # there is one class, because the output is the object's probability
            "num_classes": (num_classes, (1,)),
        }
        for name, (value, known) in options.items():
            if value not in known:
                near = nearest(str(value), map(str, known))
                raise UserError(f"{name}={value}: MATNet takes {', '.join(map(str, known))}{near}")
        # Kowal et al.'s code always uses tanh for coatt_gated_recip
        if cc_type == "coatt_gated_recip" and norm_fn != "tanh":
            raise UserError(f"norm_fn={norm_fn}: cc_type={cc_type} needs norm_fn=tanh")
        self.encoder = Encoder(CC_TYPES[cc_type], norm_fn, fusion_type, use_global, use_spatial_conv)
        self.decoder = Decoder()
        taps = {}
        for i, stream in enumerate(STREAMS, start=1):
            taps[f"conv1,{stream}"] = (WIDTH, Tap(f"encoder.conv1_{i}"))
            for layer, level, units in zip(LAYERS, LEVELS, WIDTHS, strict=True):
                crossed = Tap(f"encoder.coa_res{level}", select=i - 1)
                tap = crossed if level > 2 else Tap(f"encoder.res{level}_{i}")
                taps[f"{layer},{stream}"] = (units, tap)
        for layer, level, units in zip(LAYERS, LEVELS, WIDTHS, strict=True):
            taps[f"{layer},{FUSED}"] = (2 * units, Tap(f"encoder.gated_res{level}"))
        taps[f"layerf,{FUSED}"] = (DECODED, Tap("decoder.RF2"))
        self.stages = declare(taps)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map {"Image": (B, 3, H, W), "Flow": (B, 3, H, W)} to probabilities (B, 1, 473, 473)."""
        return torch.sigmoid(resized(self.decoder(self.encoder(inputs)), OUTPUT_SIZE))

    def shown_stages(self, options: Mapping = NO_OPTIONS) -> list[str]:
        """Return all stage names except ``layerf`` (in the decoder), which other two-stream networks lack."""
        return [name for name in self.stages if not name.startswith("layerf")]

    def read_folder(self, folder: Path) -> dict:
        """Read the state dict of a MATNet checkpoint: a folder with an encoder file and a decoder file."""
        return read_matnet_checkpoint(folder)


def read_matnet_checkpoint(folder: Path) -> dict[str, Tensor]:
    """Read ``encoder_<epoch>.pt`` and ``decoder_<epoch>.pt`` of the highest epoch in a folder.

    A word as the epoch (``encoder_best.pt``) is used only if no file has a number. Raises UserError if there
    is no encoder, or no decoder of the encoder's epoch.
    """
    epochs = [path.stem.partition("_")[2] for path in sorted(folder.glob("encoder_*.pt"))]
    if not epochs:
        raise UserError(f"checkpoint {folder} holds no encoder_<epoch>.pt: give a MATNet checkpoint folder")
    epoch = max(epochs, key=lambda word: int(word) if word.isdecimal() else -1)
    state: dict[str, Tensor] = {}
    for part in ("encoder", "decoder"):
        # read_checkpoint raises UserError if the folder lacks the decoder's file
        path = folder / f"{part}_{epoch}.pt"
        content = state_dict_of(read_checkpoint(path), path)
        state |= {f"{part}.{key}": value for key, value in content.items()}
    return state
