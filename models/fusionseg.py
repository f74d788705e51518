"""FusionSeg (Jain et al., CVPR 2017) with the architecture of DeepLabV3+ (Chen et al., ECCV 2018).

Two ResNet-101 process the image and the optical flow; their feature maps are fused before or in the head.

Key names are those of Kowal et al. (CVPR 2022): ``backbone.mot_stream.layer3.0.conv1.weight``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from static_dynamic.errors import UserError
from static_dynamic.models.registry import register
from static_dynamic.models.resnet2d import ARCHITECTURES, WIDTH, conv_norm_relu, pooled, resnet_layers, stem
from static_dynamic.models.stages import Tap
from static_dynamic.models.twostream import FUSED, INPUTS, LAYERS, STREAMS, TwoStreamNetwork, declare, resized

ASPP_WIDTH = 256
# Number of channels to which the segmentation head reduces the maps of layer 1.
LOW_WIDTH = 48
# Output stride -> dilations of the 3x3 convolutions in atrous spatial pyramid pooling (ASPP).
ASPP_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
WIDTHS = ARCHITECTURES["resnet101"][2]


def resnet101(output_stride: int) -> nn.ModuleDict:
    """Build ResNet-101 without the classifier, with torchvision's module names."""
    conv1, bn1 = stem()
    layers = resnet_layers("resnet101", output_stride)
    return nn.ModuleDict({"conv1": conv1, "bn1": bn1, **dict(zip(LAYERS, layers, strict=True))})


def fuse(width: int, norm: bool) -> nn.Module:
    """Build a 1x1 convolution that fuses two concatenated maps into one; each map has `width` channels."""
    layer = nn.Conv2d(2 * width, width, 1)
    return nn.Sequential(layer, nn.BatchNorm2d(width)) if norm else layer


class Backbone(nn.Module):
    """Image ResNet and flow ResNet; if `early` is true, the maps of both are fused at layers 1 and 4."""

    def __init__(self, output_stride: int, early: bool, norm: bool):
        super().__init__()
        self.app_stream = resnet101(output_stride)
        self.mot_stream = resnet101(output_stride)
        # the fusions of layers 2 and 3 never run; they exist because checkpoints hold weights for them
        fusions = {name: fuse(width, norm) for name, width in zip(LAYERS, WIDTHS, strict=True)}
        self.sensor_fusion = nn.ModuleDict(fusions) if early else None

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """Return for layers 1 and 4 a list of maps: [fused] with early fusion, otherwise [image, flow]."""
        streams = [self.app_stream, self.mot_stream]
        maps = [
            pooled(net["bn1"](net["conv1"](inputs[name]))) for net, name in zip(streams, INPUTS, strict=True)
        ]
        kept = {}
        for name in LAYERS:
            maps = [net[name](x) for net, x in zip(streams, maps, strict=True)]
            if name in ("layer1", "layer4"):
                fusion = self.sensor_fusion
                kept[name] = maps if fusion is None else [fusion[name](torch.cat(maps, dim=1))]
        return kept


class PoolBranch(nn.Sequential):
    """Global average pooling and a 1x1 convolution, whose output is copied to every position."""

    def __init__(self, inputs: int):
        super().__init__(nn.AdaptiveAvgPool2d(1), *conv_norm_relu(inputs, ASPP_WIDTH, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, 256, H, W)."""
        return super().forward(x).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: concatenates 1x1, dilated 3x3 and pooling branches, then projects."""

    def __init__(self, inputs: int, rates: tuple[int, ...]):
        super().__init__()
        self.convs = nn.ModuleList(
            [
                nn.Sequential(*conv_norm_relu(inputs, ASPP_WIDTH, 1)),
                *(nn.Sequential(*conv_norm_relu(inputs, ASPP_WIDTH, 3, rate)) for rate in rates),
                PoolBranch(inputs),
            ]
        )
        joined = len(self.convs) * ASPP_WIDTH
        self.project = nn.Sequential(*conv_norm_relu(joined, ASPP_WIDTH, 1), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, 256, H, W)."""
        return self.project(torch.cat([branch(x) for branch in self.convs], dim=1))


class Head(nn.Module):
    """DeepLabV3+ head: classifies each position from the maps of layer 1 and the ASPP output for layer 4.

    With `late`, the maps of both streams are fused here.
    """

    def __init__(self, num_classes: int, rates: tuple[int, ...], late: bool):
        super().__init__()
        self.project = nn.Sequential(*conv_norm_relu(WIDTHS[0], LOW_WIDTH, 1))
        self.aspp = ASPP(WIDTHS[3], rates)
        self.classifier = nn.Sequential(
            *conv_norm_relu(LOW_WIDTH + ASPP_WIDTH, 256, 3), nn.Conv2d(256, num_classes, 1)
        )
        self.sensor_fusion = None
        if late:
            fusions = {"low_level": fuse(WIDTHS[0], norm=False), "out": fuse(ASPP_WIDTH, norm=False)}
            self.sensor_fusion = nn.ModuleDict(fusions)

    def forward(self, low: list[Tensor], deep: list[Tensor]) -> Tensor:
        """Compute logits (B, classes, h, w) from the maps of layers 1 and 4; layer 1 has the size h x w."""
        edges, regions = torch.cat(low, dim=1), torch.cat([self.aspp(x) for x in deep], dim=1)
        if self.sensor_fusion is not None:
            edges, regions = self.sensor_fusion["low_level"](edges), self.sensor_fusion["out"](regions)
        edges = self.project(edges)
        return self.classifier(torch.cat([edges, resized(regions, edges.shape[2:])], dim=1))


@register("fusionseg")
class FusionSeg(TwoStreamNetwork):
    """FusionSeg; ``forward`` returns logits (B, classes, H, W). Class 0 is background, class 1 the object.

    Parameters
    ----------
    output_stride
        8 or 16: the size of the image divided by the size of layer 4.
    fuse_early
        Fuse layers 1 and 4 before the head. Otherwise they are fused in the head, and the stages of
        ``sensor_fusion`` are the fused maps of layer 1 and of the pyramid of layer 4.
    fuse_bnorm
        Add batch norm after the early fusion.
    """

    def __init__(self, num_classes: int, output_stride: int, fuse_early: bool, fuse_bnorm: bool):
        super().__init__()
        if output_stride not in ASPP_RATES:
            raise UserError(
                f"output_stride={output_stride}: FusionSeg takes {' or '.join(map(str, ASPP_RATES))}"
            )
        if fuse_bnorm and not fuse_early:
            raise UserError("fuse_bnorm=True needs fuse_early=True, because late fusion has no batch norm")
        self.backbone = Backbone(output_stride, fuse_early, fuse_bnorm)
        self.classifier = Head(num_classes, ASPP_RATES[output_stride], late=not fuse_early)
        places = {
            f"{place},{stream}": (units, Tap(f"backbone.{stream}.{place}"))
            for stream in STREAMS
            for place, units in zip(("conv1", *LAYERS), (WIDTH, *WIDTHS), strict=True)
        }
        fused = {"layer1": (WIDTHS[0], "low_level"), "layer4": (ASPP_WIDTH, "out")}
        for place, (units, module) in fused.items():
            tap = Tap(f"classifier.{FUSED}.{module}")
            if fuse_early:
                units, tap = WIDTHS[LAYERS.index(place)], Tap(f"backbone.{FUSED}.{place}")
            places[f"{place},{FUSED}"] = (units, tap)
        self.stages = declare(places)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map {"Image": (B, 3, H, W), "Flow": (B, 3, H, W)} to logits (B, classes, H, W)."""
        maps = self.backbone(inputs)
        return resized(self.classifier(maps["layer1"], maps["layer4"]), inputs["Image"].shape[2:])

    def object_map(self, output: Tensor) -> Tensor:
        """Return the probability (B, 1, H, W) that a pixel does not belong to the background (class 0)."""
        return 1 - output.softmax(dim=1)[:, :1]
