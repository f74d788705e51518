"""Slow and SlowFast under PyTorchVideo's key names (``model.blocks.3.multipathway_blocks.1...``).

The blocks, and with them the arithmetic, are those of ``models/slowfast.py``: only nesting and names differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from static_dynamic.models.registry import register
from static_dynamic.models.slowfast import (
    HeadPool,
    Lateral,
    PositionWise,
    TwoPathways,
    classifier,
    named,
    pathway_stages,
    stage_widths,
    two_pathway_stages,
    two_pathways,
)
from static_dynamic.models.stages import Stage, Tap

LAYER_NAMES = {
    "stem": ("conv", "norm"),
    "shortcut": ("branch1_conv", "branch1_norm"),
    "a": ("conv_a", "norm_a"),
    "b": ("conv_b", "norm_b"),
    "c": ("conv_c", "norm_c"),
    "lateral": ("conv_fast_to_slow", "norm"),
}


def nested(blocks: Mapping[str, nn.Module]) -> nn.Module:
    """One stage of one pathway: the stem itself, or its residual blocks by number."""
    return blocks["stem"] if "stem" in blocks else named(("res_blocks", nn.Sequential(*blocks.values())))


def chained(blocks: Sequence[nn.Module]) -> nn.Sequential:
    """Blocks in turn, by number."""
    return named(("blocks", nn.Sequential(*blocks)))


def with_prefix(state: Mapping) -> Mapping:
    """Turn the keys of PyTorchVideo's own files (``blocks.0...``) into PySlowFast's, which wraps it."""
    return {key if key.startswith("model.") else f"model.{key}": value for key, value in state.items()}


class MultiPathway(nn.Module):
    """One stage of both pathways and the lateral connection behind it; [slow, fast] -> a new [slow, fast]."""

    def __init__(self, pathways: Sequence[nn.Module], fusion: Lateral | None):
        super().__init__()
        self.multipathway_blocks = nn.ModuleList(pathways)
        self.multipathway_fusion = nn.Identity() if fusion is None else fusion

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return self.multipathway_fusion(
            [block(x) for block, x in zip(self.multipathway_blocks, maps, strict=True)]
        )


@register("resnet_pytorchvideo")
class PytorchVideoResNet(PositionWise):
    """One pathway; input (B, 3, T, H, W). Arguments as those of `models.slowfast.ResNet`."""

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
        """Accept PyTorchVideo's own files."""
        return with_prefix(state)


@register("slowfast_pytorchvideo")
class PytorchVideoSlowFast(TwoPathways):
    """Two pathways, input [slow, fast]. Arguments as those of `models.slowfast.SlowFast`.

    A block ends with its lateral connection, so stages are read after it only.
    """

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
        slow_widths, fast_widths = stage_widths(width), stage_widths(width // beta)
        pathways = two_pathways(temporal_kernels, width, beta, LAYER_NAMES)
        laterals = [Lateral(fast, lateral_kernel, alpha, LAYER_NAMES) for fast in fast_widths[:-1]]
        self.model = chained(
            [
                *(
                    MultiPathway([nested(blocks) for blocks in stage], lateral)
                    for stage, lateral in zip(pathways, [*laterals, None], strict=True)
                ),
                HeadPool(pool),
                named(*classifier(slow_widths[-1] + fast_widths[-1], num_classes, "proj")),
            ]
        )
        self.stages = two_pathway_stages(
            width, beta, {(number, 1): f"model.blocks.{number - 1}" for number in range(1, 6)}
        )

    def stage_name(self, stg: int | str | None, path: str = "fast", fuse: bool = True) -> str:
        """Name of the stage that the original ``--stg`` and ``--path`` mean; ``--fuse`` is ignored."""
        return super().stage_name(stg, path, fuse=True)

    def convert(self, state: Mapping) -> Mapping:
        """Accept PyTorchVideo's own files."""
        return with_prefix(state)
