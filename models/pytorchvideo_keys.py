"""Slow and SlowFast with PyTorchVideo's key names (``model.blocks.3.multipathway_blocks.1...``).

They compute the same as the networks of ``models/slowfast.py``; only module nesting and names differ.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from static_dynamic.models.registry import register
from static_dynamic.models.slowfast import (
    HeadPool,
    Lateral,
    Layers,
    ModulePaths,
    PositionWise,
    TwoPathways,
    TwoPathwayStage,
    classifier,
    named,
    pathway_stages,
    stage_widths,
)
from static_dynamic.models.stages import NO_OPTIONS, Stage, Tap

# Layer -> names of the layer's convolution and batch norm in state dict keys.
LAYER_NAMES = {
    "stem": ("conv", "norm"),
    "shortcut": ("branch1_conv", "branch1_norm"),
    "a": ("conv_a", "norm_a"),
    "b": ("conv_b", "norm_b"),
    "c": ("conv_c", "norm_c"),
    "lateral": ("conv_fast_to_slow", "norm"),
}


def nested(blocks: Mapping[str, nn.Module]) -> nn.Module:
    """Return one stage of one pathway as a module: the stem, or a sequence of residual blocks."""
    return blocks["stem"] if "stem" in blocks else named(("res_blocks", nn.Sequential(*blocks.values())))


def chained(blocks: Sequence[nn.Module]) -> nn.Sequential:
    """Return a module whose child ``blocks`` applies the given blocks in order."""
    return named(("blocks", nn.Sequential(*blocks)))


def with_prefix(state: Mapping) -> Mapping:
    """Add the prefix ``model.`` to PyTorchVideo's keys (``blocks.0...``), as PySlowFast does."""
    return {key if key.startswith("model.") else f"model.{key}": value for key, value in state.items()}


class MultiPathway(nn.Module):
    """One stage of the slow and the fast pathway, followed by the lateral connection."""

    def __init__(self, pathways: Sequence[nn.Module], fusion: Lateral | None):
        super().__init__()
        self.multipathway_blocks = nn.ModuleList(pathways)
        self.multipathway_fusion = nn.Identity() if fusion is None else fusion

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map [slow, fast] to [slow with the lateral channels, fast]; every map is (B, C, T, H, W)."""
        return self.multipathway_fusion(
            [block(x) for block, x in zip(self.multipathway_blocks, maps, strict=True)]
        )


@register("resnet_pytorchvideo")
class PytorchVideoResNet(PositionWise):
    """ResNet-50 with one pathway for clips (B, 3, T, H, W); `slowfast.ResNet` explains the arguments."""

    def __init__(
        self,
        num_classes: int,
        *,
        temporal_kernels: Sequence[Sequence[int]],
        width: int = 64,
        pool: int | None = 7,
    ):
        super().__init__()
        widths = stage_widths(width)
        stages = pathway_stages(temporal_kernels, width, names=LAYER_NAMES)
        head = named(("pool", HeadPool(pool)), *classifier(widths[-1], num_classes, "proj"))
        self.model = chained([*map(nested, stages), head])
        self.stages = {f"stage{s + 1}": Stage(w, (Tap(f"model.blocks.{s}"),)) for s, w in enumerate(widths)}

    def convert(self, state: Mapping) -> Mapping:
        """Translate the keys of PyTorchVideo's checkpoint files to this network's keys."""
        return with_prefix(state)


@register("slowfast_pytorchvideo")
class PytorchVideoSlowFast(TwoPathways):
    """SlowFast for the input [slow, fast]; `TwoPathways` explains the arguments.

    Stages are read only after the lateral connection, which is part of a stage's module.
    """

    names = LAYER_NAMES
    classifier_name = "proj"

    def assemble(self, stages: Sequence[TwoPathwayStage], pool: HeadPool, head: Layers) -> ModulePaths:
        """Build the modules ``model.blocks.0`` to ``model.blocks.6``: five stages, pooling and classifier."""
        pathways = (MultiPathway([nested(slow), nested(fast)], lateral) for slow, fast, lateral in stages)
        self.model = chained([*pathways, pool, named(*head)])
        return {(number, 1): f"model.blocks.{number - 1}" for number in range(1, 6)}

    def stage_name(self, stg: int | str | None, options: Mapping = NO_OPTIONS) -> str:
        """Return the name of the stage that the options ``stg`` and ``path`` select; ``fuse`` is ignored."""
        return super().stage_name(stg, {"path": options.get("path", "fast")})

    def convert(self, state: Mapping) -> Mapping:
        """Translate the keys of PyTorchVideo's checkpoint files to this network's keys."""
        return with_prefix(state)
