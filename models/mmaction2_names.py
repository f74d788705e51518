"""Translate the keys of mmaction2's checkpoints to the keys of this program's networks with equal layers.

Three networks of mmaction2 compute what networks of this program compute: SlowOnly-50 (``slow_r50_8x8``), X3D
(``x3d_m``) and TimeSformer with divided attention (``timesformer``). Other networks of mmaction2 are refused.
I3D has strides of 2 in time in its stem, and C2D does not pad its first pooling layer. The lateral
connections of SlowFast have neither batch norm nor ReLU. MViT is version 2. TSN has the same keys as C2D.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from static_dynamic.models.stages import VideoNetwork

log = logging.getLogger(__name__)

# Largest difference of a mean or standard deviation that counts as rounding.
TOLERANCE = 0.005
# Pattern of keys that networks of mmaction2 have and networks of other code bases do not have.
OWN = re.compile(r"cls_head\.fc|backbone\.(slow_path\.|transformer_layers\.|conv1(_s)?\.conv\.)")
HINT = (
    "its keys are those of mmaction2, of which SlowOnly-50 (model=slow_r50_8x8 or slow_r50_4x16), X3D "
    "(model=x3d_s or x3d_m) and TimeSformer with divided attention (model=timesformer) load; other networks "
    "of mmaction2 have other layers than the networks here"
)
# Pattern of a layer in mmaction2's residual blocks (ResNet, X3D) -> path of the layer in this program.
BLOCKS = (
    (r"conv1\.conv", "branch2.a"),
    (r"conv1\.bn", "branch2.a_bn"),
    (r"conv2\.conv", "branch2.b"),
    (r"conv2\.bn", "branch2.b_bn"),
    (r"conv3\.conv", "branch2.c"),
    (r"conv3\.bn", "branch2.c_bn"),
    (r"downsample\.conv", "branch1"),
    (r"downsample\.bn", "branch1_bn"),
    (r"se_module\.(fc[12])", r"branch2.se.\2"),
)
RESIDUAL = tuple(
    (rf"backbone\.layer{stage - 1}\.(\d+)\.{theirs}", rf"s{stage}.pathway0_res\1.{ours}")
    for stage in range(2, 6)
    for theirs, ours in BLOCKS
)
# Path of a transformer block, whose first attention is over time and whose second is over space.
ATTENTION = r"backbone\.transformer_layers\.layers\.(\d+)\."


@dataclass(frozen=True)
class Layout:
    """Translation of the keys of one network of mmaction2, and the preprocessing of this network.

    ``marker`` is a key that no other network has, ``rules`` are pairs of a pattern of a module's path and its
    path here, and ``mean`` and ``std`` are the preprocessing in training, for colours in [0, 1].
    """

    marker: str
    rules: tuple[tuple[str, str], ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


LAYOUTS = {
    "slowonly": Layout(
        "backbone.conv1.conv.weight",
        (
            (r"backbone\.conv1\.(conv|bn)", r"s1.pathway0_stem.\1"),
            *RESIDUAL,
            (r"cls_head\.fc_cls", "head.projection"),
        ),
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    ),
    "x3d": Layout(
        "backbone.conv1_s.conv.weight",
        (
            (r"backbone\.conv1_s\.conv", "s1.pathway0_stem.conv_xy"),
            (r"backbone\.conv1_t\.(conv|bn)", r"s1.pathway0_stem.\1"),
            *RESIDUAL,
            (r"backbone\.conv5\.conv", "head.conv_5"),
            (r"backbone\.conv5\.bn", "head.conv_5_bn"),
            (r"cls_head\.fc1", "head.lin_5"),
            (r"cls_head\.fc2", "head.projection"),
        ),
        (0.45, 0.45, 0.45),
        (0.225, 0.225, 0.225),
    ),
    "timesformer": Layout(
        "backbone.transformer_layers.layers.0.attentions.0.temporal_fc.weight",
        (
            # tokens and embeddings are parameters of the backbone itself
            (r"backbone", "model"),
            (r"backbone\.patch_embed\.projection", "model.patch_embed.proj"),
            (rf"{ATTENTION}attentions\.0\.norm", r"model.blocks.\1.temporal_norm1"),
            (rf"{ATTENTION}attentions\.0\.attn\.in_proj", r"model.blocks.\1.temporal_attn.qkv"),
            (rf"{ATTENTION}attentions\.0\.attn\.out_proj", r"model.blocks.\1.temporal_attn.proj"),
            (rf"{ATTENTION}attentions\.0\.temporal_fc", r"model.blocks.\1.temporal_fc"),
            (rf"{ATTENTION}attentions\.1\.norm", r"model.blocks.\1.norm1"),
            (rf"{ATTENTION}attentions\.1\.attn\.in_proj", r"model.blocks.\1.attn.qkv"),
            (rf"{ATTENTION}attentions\.1\.attn\.out_proj", r"model.blocks.\1.attn.proj"),
            (rf"{ATTENTION}ffns\.0\.norm", r"model.blocks.\1.norm2"),
            (rf"{ATTENTION}ffns\.0\.layers\.0\.0", r"model.blocks.\1.mlp.fc1"),
            (rf"{ATTENTION}ffns\.0\.layers\.1", r"model.blocks.\1.mlp.fc2"),
            (r"backbone\.norm", "model.norm"),
            (r"cls_head\.fc_cls", "model.head"),
        ),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    ),
}


def is_mmaction2(state: Mapping) -> bool:
    """Return whether a state dict has keys that networks of mmaction2 have."""
    return any(OWN.match(key) for key in state)


def from_mmaction2(state: Mapping, name: str) -> Mapping:
    """Translate a state dict of the mmaction2 network `name`; return any other state dict unchanged."""
    layout = LAYOUTS[name]
    return {_our_key(key, layout): v for key, v in state.items()} if layout.marker in state else state


def _our_key(key: str, layout: Layout) -> str:
    """Translate one key; keep a key of an unknown module, so that strict loading fails."""
    # nn.MultiheadAttention holds in_proj_weight and in_proj_bias itself, not in a module
    module, _, leaf = key.replace(".in_proj_", ".in_proj.").rpartition(".")
    for pattern, ours in layout.rules:
        match = re.fullmatch(pattern, module)
        if match:
            return f"{match.expand(ours)}.{leaf}"
    return key


def check_settings(net: VideoNetwork, state: Mapping, source: Path) -> None:
    """Warn if `net` has other settings than the network of mmaction2 whose weights were loaded.

    `state` has mmaction2's keys. The settings are the mean and standard deviation of the input, and whether
    the classifier averages the whole map.
    """
    spec = getattr(net, "input_spec", None)
    for layout in LAYOUTS.values():
        if layout.marker not in state or spec is None:
            continue
        options = [
            f"model.input.{name}='{list(theirs)}'"
            for name, theirs, ours in (("mean", layout.mean, spec.mean), ("std", layout.std, spec.std))
            if any(abs(a - b) > TOLERANCE for a, b in zip(theirs, ours, strict=True))
        ]
        if layout is LAYOUTS["slowonly"] and net.get_submodule("head.pool").side is not None:
            options.append("model.args.pool=null")
        if options:
            log.warning(
                "checkpoint %s: mmaction2 trains this network with other settings: give %s, unless these "
                "weights were trained in another way",
                source,
                " ".join(options),
            )
