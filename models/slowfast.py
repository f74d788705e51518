"""ResNet-50 over video with one pathway (C2D, I3D, non-local I3D, Slow, Fast) or two (SlowFast).

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017; Wang et al., "Non-local Neural Networks",
CVPR 2018; Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019. Key names are those of
PySlowFast (``s4.pathway0_res3.branch2.b_bn.weight``).
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from static_dynamic.models.caffe2_names import from_caffe2
from static_dynamic.models.mmaction2_names import from_mmaction2
from static_dynamic.models.registry import register
from static_dynamic.models.stages import NO_OPTIONS, Stage, Tap, VideoNetwork
from static_dynamic.spacing import subsample_positions

# Numbers of residual blocks of stages 2 to 5.
DEPTHS = (3, 4, 6, 3)
# Spatial strides of the first blocks of stages 2 to 5.
STRIDES = (1, 2, 2, 2)
# Ratio of a lateral connection's output channels to its input channels (those of the fast pathway).
LATERAL_RATIO = 2
# Layer -> names of the layer's convolution and batch norm in state dict keys.
LAYER_NAMES = {
    "stem": ("conv", "bn"),
    "shortcut": ("branch1", "branch1_bn"),
    "a": ("a", "a_bn"),
    "b": ("b", "b_bn"),
    "c": ("c", "c_bn"),
    "lateral": ("conv_f2s", "bn"),
}
Triple = tuple[int, int, int]  # time, height, width
Names = Mapping[str, tuple[str, str]]
Layers = list[tuple[str, nn.Module]]
Blocks = dict[str, nn.Module]
# (stage, 0 before or 1 after its lateral connection) -> path of the module that returns [slow, fast] there.
ModulePaths = dict[tuple[int, int], str]


def stage_widths(width: int) -> list[int]:
    """Return the numbers of output channels of stages 1 to 5, for a stem of `width` channels."""
    return [width, *(4 * width * 2**i for i in range(len(DEPTHS)))]


def lateral_widths(fast_width: int) -> list[int]:
    """Return the numbers of channels that lateral connections add to the slow maps after stages 1 to 5."""
    return [*(LATERAL_RATIO * width for width in stage_widths(fast_width)[:-1]), 0]


def apply_in_order(modules: Iterable[nn.Module], x):
    """Apply modules one after the other to `x` and return the last output."""
    for module in modules:
        x = module(x)
    return x


def named(*layers: tuple[str, nn.Module]) -> nn.Sequential:
    """Build a ``Sequential`` from layers, each given as (name, layer)."""
    return nn.Sequential(OrderedDict(layers))


def conv_norm(
    names: tuple[str, str], inputs: int, outputs: int, kernel: Triple, stride: Triple = (1, 1, 1)
) -> Layers:
    """Return [(name, convolution), (name, batch norm)]; padding keeps the size of axes with stride 1."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
    return list(zip(names, (conv, nn.BatchNorm3d(outputs)), strict=True))


def stem(width: int, frames: int, names: Names) -> nn.Sequential:
    """Build the stem, (B, 3, T, H, W) -> (B, width, T, H/4, W/4); its kernel spans `frames` frames."""
    return named(
        *conv_norm(names["stem"], 3, width, (frames, 7, 7), (1, 2, 2)),
        ("relu", nn.ReLU(inplace=True)),
        ("pool", nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))),
    )


class Bottleneck(nn.Module):
    """Residual block of convolutions with kernels (`frames`, 1, 1), (1, 3, 3) and (1, 1, 1)."""

    def __init__(self, inputs: int, outputs: int, frames: int, stride: int, names: Names):
        super().__init__()
        inner, strides = outputs // 4, (1, stride, stride)
        if stride > 1 or inputs != outputs:
            for name, module in conv_norm(names["shortcut"], inputs, outputs, (1, 1, 1), strides):
                self.add_module(name, module)
        self.branch2 = named(
            *conv_norm(names["a"], inputs, inner, (frames, 1, 1)),
            ("a_relu", nn.ReLU(inplace=True)),
            *conv_norm(names["b"], inner, inner, (1, 3, 3), strides),
            ("b_relu", nn.ReLU(inplace=True)),
            *conv_norm(names["c"], inner, outputs, (1, 1, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, T, H, W) to (B, C_out, T, H/s, W/s); s is the stride."""
        *projection, branch2 = self.children()
        return F.relu(apply_in_order(projection, x) + branch2(x), inplace=True)


class NonLocal(nn.Module):
    """Non-local block (embedded Gaussian): each position attends to the max-pooled map of the whole clip."""

    def __init__(self, width: int):
        super().__init__()
        inner = width // 2
        self.conv_theta = nn.Conv3d(width, inner, 1)
        self.conv_phi = nn.Conv3d(width, inner, 1)
        self.conv_g = nn.Conv3d(width, inner, 1)
        self.conv_out = nn.Conv3d(inner, width, 1)
        self.bn = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d((1, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps of the same shape as `x`, (B, C, T, H, W)."""
        pooled = self.pool(x)
        query, key, value = (
            # reshape (b, c, t, h, w) to (b, t*h*w, c)
            embedded.flatten(2).transpose(1, 2)
            for embedded in (self.conv_theta(x), self.conv_phi(pooled), self.conv_g(pooled))
        )
        attended = F.scaled_dot_product_attention(query, key, value)  # scaled by c ** -0.5
        # reshape (b, t*h*w, c) to (b, c, t, h, w)
        attended = attended.transpose(1, 2).unflatten(2, x.shape[2:])
        return x + self.bn(self.conv_out(attended))


class Lateral(nn.Sequential):
    """Lateral connection: convolves the fast maps and concatenates the result to the slow maps."""

    def __init__(self, fast_width: int, kernel: int, alpha: int, names: Names):
        outputs = LATERAL_RATIO * fast_width
        layers = conv_norm(names["lateral"], fast_width, outputs, (kernel, 1, 1), (alpha, 1, 1))
        super().__init__(OrderedDict([*layers, ("relu", nn.ReLU(inplace=True))]))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map [slow, fast] to [slow with the lateral channels, fast], each (B, C, T, H, W)."""
        slow, fast = maps
        return [torch.cat([slow, super().forward(fast)], dim=1), fast]


# Blocks of the slow pathway, blocks of the fast pathway, and the lateral connection after the stage.
TwoPathwayStage = tuple[Blocks, Blocks, Lateral | None]


class ParallelPathways(nn.Module):
    """One stage of several pathways; all blocks are children of this module, as PySlowFast's keys demand."""

    def __init__(self, pathways: Sequence[Mapping[str, nn.Module]]):
        super().__init__()
        # one list of block names per pathway
        self.blocks = [list(blocks) for blocks in pathways]
        for name, block in chain.from_iterable(blocks.items() for blocks in pathways):
            self.add_module(name, block)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """For each pathway, map (B, C_in, T, H, W) to (B, C_out, T, H/s, W/s); s is the stride."""
        return [
            apply_in_order(map(self.get_submodule, names), x)
            for names, x in zip(self.blocks, maps, strict=True)
        ]


class HeadPool(nn.Module):
    """Average over all frames and a sliding window of `side` x `side` positions (None: the whole map)."""

    def __init__(self, side: int | None):
        super().__init__()
        self.side = side

    def forward(self, maps: Tensor | list[Tensor]) -> Tensor:
        """Map (B, C, T, H, W), or one such tensor per pathway, to (B, 1, h, w, channels of all pathways)."""
        pooled = []
        for x in [maps] if isinstance(maps, Tensor) else maps:
            time, *space = x.shape[2:]
            # limit the pooling window to the size of the map
            kernel = (time, *(min(self.side or size, size) for size in space))
            pooled.append(F.avg_pool3d(x, kernel, stride=1))
        return torch.cat(pooled, dim=1).permute(0, 2, 3, 4, 1)  # b c 1 h w -> b 1 h w c


def classifier(width: int, num_classes: int, name: str = "projection") -> Layers:
    """Build dropout and a linear layer, which classify every position of a map (B, t, h, w, width)."""
    return [("dropout", nn.Dropout(0.5)), (name, nn.Linear(width, num_classes))]


def pathway_stages(
    temporal_kernels: Sequence[Sequence[int]],
    width: int,
    *,
    laterals: Sequence[int] = (0, 0, 0, 0, 0),
    nonlocal_after: Sequence[Sequence[int]] = ((), (), (), ()),
    names: Names = LAYER_NAMES,
) -> list[Blocks]:
    """Return the blocks of one pathway as a dict per stage: ``[{"stem": ...}, {"res0": ..., ...}, ...]``.

    Parameters
    ----------
    temporal_kernels
        Temporal kernel sizes of each stage; the blocks of a stage cycle through them.
    laterals
        Number of channels that another pathway adds to the output of each stage.
    nonlocal_after
        For stages 2 to 5, the numbers of the blocks that a non-local block follows.
    """
    (stem_frames,), *block_frames = temporal_kernels
    widths = stage_widths(width)
    stages: list[Blocks] = [{"stem": stem(width, stem_frames, names)}]
    for s, (depth, stride, frames, attended) in enumerate(
        zip(DEPTHS, STRIDES, block_frames, nonlocal_after, strict=True)
    ):
        blocks: Blocks = {}
        inputs, outputs = widths[s] + laterals[s], widths[s + 1]
        for i in range(depth):
            blocks[f"res{i}"] = Bottleneck(
                outputs if i else inputs, outputs, frames[i % len(frames)], 1 if i else stride, names
            )
            if i in attended:
                blocks[f"nonlocal{i}"] = NonLocal(outputs)
        stages.append(blocks)
    return stages


def prefixed(pathway: int, blocks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Add PySlowFast's prefix (``pathway0_``, ``pathway1_``) to the names of a pathway's blocks."""
    return {f"pathway{pathway}_{name}": block for name, block in blocks.items()}


class PositionWise(VideoNetwork):
    """Base class of networks that run child modules in order and classify every position of the last map."""

    def forward(self, inputs) -> Tensor:
        """Map the output of ``prepare`` to logits (B, classes), averaged over the head's sliding window."""
        return self.logit_map(inputs).mean(dim=(1, 2, 3))

    def logit_map(self, inputs) -> Tensor:
        """Return logits (B, t, h, w, classes) at every position of the head's sliding window."""
        return apply_in_order(self.children(), inputs)

    def convert(self, state: Mapping) -> Mapping:
        """Translate the names of caffe2 arrays ("blobs") to this network's keys."""
        return from_caffe2(state)


@register("resnet")
class ResNet(PositionWise):
    """ResNet-50 with one pathway and PySlowFast's key names, for clips (B, 3, T, H, W).

    Parameters
    ----------
    temporal_kernels, nonlocal_after
        See `pathway_stages`.
    width
        Number of channels after the stem.
    temporal_pool
        Number of frames that are max-pooled into one between stages 2 and 3.
    pathway
        Number of the pathway in key names: 1 for a fast pathway on its own.
    pool
        Side of the head's pooling window, in positions of the last feature map; None is the whole map.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        temporal_kernels: Sequence[Sequence[int]],
        width: int = 64,
        pathway: int = 0,
        temporal_pool: int = 1,
        nonlocal_after: Sequence[Sequence[int]] = ((), (), (), ()),
        pool: int | None = 7,
    ):
        super().__init__()
        stages = pathway_stages(temporal_kernels, width, nonlocal_after=nonlocal_after)
        for number, blocks in enumerate(stages, start=1):
            self.add_module(f"s{number}", named(*prefixed(pathway, blocks).items()))
            if number == 2:
                window = (temporal_pool, 1, 1)
                self.temporal_pool = nn.MaxPool3d(window) if temporal_pool > 1 else nn.Identity()
        widths = stage_widths(width)
        self.head = named(("pool", HeadPool(pool)), *classifier(widths[-1], num_classes))
        self.stages = {f"stage{s}": Stage(w, (Tap(f"s{s}"),)) for s, w in enumerate(widths, start=1)}
        # Only SlowOnly loads weights of mmaction2. Weights of mmaction2's I3D and C2D have the same shapes as
        # in this program, but need other strides and paddings.
        stem_frames = temporal_kernels[0][0]
        self.is_slowonly = temporal_pool == 1 and stem_frames == 1 and not any(nonlocal_after)

    def convert(self, state: Mapping) -> Mapping:
        """Translate the names of caffe2 arrays, and the keys of mmaction2's SlowOnly network."""
        return super().convert(from_mmaction2(state, "slowonly") if self.is_slowonly else state)


class TwoPathways(PositionWise):
    """SlowFast: the slow pathway takes every `alpha`-th frame, the fast pathway takes all frames.

    The input is [slow, fast]. A stage is read before (``stage3/fuse0/cat``) or after (``stage3/fuse1/cat``)
    its lateral connection, in both pathways (``cat``) or in one (``slow``, ``fast``). Sub-classes add the
    modules under the key names of a code base.

    Parameters
    ----------
    temporal_kernels
        For ``slow`` and ``fast``, see `pathway_stages`.
    alpha
        Number of frames of the fast pathway per frame of the slow pathway.
    lateral_kernel
        Temporal kernel size of the lateral connections.
    width, beta
        Number of channels after the slow pathway's stem; the fast pathway has `beta` times fewer.
    pool
        Side of the head's pooling window, in positions of the last feature map; None is the whole map.
    """

    names: Names = LAYER_NAMES
    classifier_name = "projection"

    def __init__(
        self,
        num_classes: int,
        *,
        temporal_kernels: Mapping[str, Sequence[Sequence[int]]],
        alpha: int,
        lateral_kernel: int,
        width: int = 64,
        beta: int = 8,
        pool: int | None = 7,
    ):
        super().__init__()
        self.alpha = alpha
        fast_width = width // beta
        slow = pathway_stages(
            temporal_kernels["slow"], width, laterals=lateral_widths(fast_width), names=self.names
        )
        fast = pathway_stages(temporal_kernels["fast"], fast_width, names=self.names)
        laterals = [Lateral(w, lateral_kernel, alpha, self.names) for w in stage_widths(fast_width)[:-1]]
        channels = stage_widths(width)[-1] + stage_widths(fast_width)[-1]
        head = classifier(channels, num_classes, self.classifier_name)
        # None: no lateral connection follows the last stage
        paths = self.assemble(list(zip(slow, fast, [*laterals, None], strict=True)), HeadPool(pool), head)
        self.stages = two_pathway_stages(width, beta, paths)

    def assemble(self, stages: Sequence[TwoPathwayStage], pool: HeadPool, head: Layers) -> ModulePaths:
        """Add stages and head under their names in checkpoints; return the module path of each stage."""
        raise NotImplementedError

    def prepare(self, video: Tensor) -> list[Tensor]:
        """Turn a clip (B, 3, T, H, W) into [slow, fast]: (B, 3, T/alpha, H, W) and (B, 3, T, H, W)."""
        frames = video.shape[2]
        positions = subsample_positions(frames, frames // self.alpha)
        return [video[:, :, positions], video]

    def stage_name(self, stg: int | str | None, options: Mapping = NO_OPTIONS) -> str:
        """Return the name of the stage that the flags ``--stg``, ``--path`` and ``--fuse`` select.

        `options` may hold ``path`` (slow, fast or cat) and ``fuse``; stage None is stage 5.
        """
        if str(stg) in self.stages:
            return str(stg)
        path, fuse = options.get("path", "fast"), options.get("fuse", True)
        return super().stage_name(f"{5 if stg is None else stg}/fuse{int(fuse)}/{path}")

    def shown_stages(self, options: Mapping = NO_OPTIONS) -> list[str]:
        """Return the names of stages 1 to 5 that the options ``path`` and ``fuse`` select."""
        return [self.stage_name(number, options) for number in range(1, 6)]


def two_pathway_stages(width: int, beta: int, paths: ModulePaths) -> dict[str, Stage]:
    """Return all stages of a two-pathway network by name, such as ``stage3/fuse1/cat``, in depth order."""
    slow_widths, fast_widths = stage_widths(width), stage_widths(width // beta)
    laterals = lateral_widths(width // beta)
    stages = {}
    for (number, fuse), module in paths.items():
        slow = slow_widths[number - 1] + fuse * laterals[number - 1]
        fast = fast_widths[number - 1]
        name, taps = f"stage{number}/fuse{fuse}", (Tap(module, select=0), Tap(module, select=1))
        stages[f"{name}/cat"] = Stage(slow + fast, taps)
        stages[f"{name}/slow"] = Stage(slow, taps[:1])
        stages[f"{name}/fast"] = Stage(fast, taps[1:])
    return stages


@register("slowfast")
class SlowFast(TwoPathways):
    """SlowFast with PySlowFast's key names."""

    def assemble(self, stages: Sequence[TwoPathwayStage], pool: HeadPool, head: Layers) -> ModulePaths:
        """Add ``s1``, ``s1_fuse``, ``s2``, ..., ``s5`` and ``head``; return the module path of each stage."""
        paths: ModulePaths = {}
        for number, (slow, fast, lateral) in enumerate(stages, start=1):
            self.add_module(f"s{number}", ParallelPathways([prefixed(0, slow), prefixed(1, fast)]))
            paths[number, 0] = paths[number, 1] = f"s{number}"
            if lateral is not None:
                paths[number, 1] = f"s{number}_fuse"
                self.add_module(paths[number, 1], lateral)
        self.head = named(("pool", pool), *head)
        return paths
