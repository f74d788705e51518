"""Attention heads and MLP neurons as the units of stages, and the choice of tokens that are averaged.

Units are found by the path of the layer that reads them, in transformers of any code base:

* ``heads``: concatenated outputs of the attention heads, the input of the attention's output projection;
* ``neurons``: activations of the hidden layer of an MLP, the input of the MLP's second linear layer.

The axes of such an input are those of the layer's output, which `find_candidates` describes.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

from torch import nn

from static_dynamic.errors import UserError
from static_dynamic.models.stage_discovery import Candidate, find_candidates
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

log = logging.getLogger(__name__)

CHANNELS, HEADS, NEURONS = "channels", "heads", "neurons"
PATCHES, CLASS, FRAMES = "patches", "class", "frames"
# Kind of units -> pattern of the path, inside a block, of the linear layer that reads the units. The group
# `part` is the attention module or the MLP.
LAYERS = {
    HEADS: re.compile(
        r"(?P<part>(.*\.)?\w*att\w*)\.(proj|out_proj|o_proj|c_proj|wo|out_lin|dense|output\.dense|"
        r"project(\.0)?|to_out(\.0)?)"
    ),
    NEURONS: re.compile(
        r"(?P<part>|(.*\.)?(?!\w*att)\w+)(^|\.)(fc2|linear_fc2|linear2|lin2|linear_2|down_proj|weights_out|w3|"
        r"output\.dense|(?<=mlp\.)(c_proj|[1-9])|(?<=ffn\.)[1-9])"
    ),
}
# Names that code bases give to the number of attention heads.
HEAD_COUNTS = ("num_heads", "heads", "num_attention_heads", "n_heads", "n_head", "nhead")
WHAT = {HEADS: "attention heads", NEURONS: "MLP neurons", CHANNELS: "channels"}


@dataclass(frozen=True)
class Layer:
    """A linear layer whose inputs are a stage's units, or an attention module whose heads are the units.

    ``reason`` says why the units cannot be read; it is empty if the units can be read. ``part`` is the path
    of the attention module or of the MLP, inside the module of the stage ``owner``. ``heads`` is the number
    of attention heads, and None for neurons.
    """

    path: str
    owner: str
    part: str
    candidate: Candidate | None = None
    width: int = 0
    heads: int | None = None
    reason: str = ""


def choose_units(
    net: VideoNetwork,
    units: str = CHANNELS,
    tokens: str | None = None,
    layout: str | None = None,
    leading_tokens: int | None = None,
) -> None:
    """Replace the stages of a network by stages of other units or tokens, inside the same modules.

    If several attention modules (or MLPs) are inside the module of one stage, the stages are called
    ``STAGE/PART``, such as ``stage3/temporal_attn``. Raises UserError if no stage has such units or tokens.

    Parameters
    ----------
    units
        ``channels`` (the outputs of the stages' modules), ``heads`` or ``neurons``. A head of D dimensions
        has D consecutive columns.
    tokens
        Tokens that are averaged: ``patches`` (all but class and register tokens), ``class``, or ``frames``
        (modules with one token per frame). None leaves channels as declared, and means patches otherwise.
    layout, leading_tokens
        Arguments of `find_candidates`.
    """
    if units == CHANNELS and tokens is None:
        return
    found = find_candidates(net, layout, leading_tokens)
    times = {net.input_spec.frames} | set(temporal_sizes(found))
    chosen: dict[str, Stage] = {}
    refused: dict[str, str] = {}
    if units == CHANNELS:
        by_module: dict[tuple[str, int | None], Candidate] = {}
        for candidate in found.values():
            for tap in candidate.taps[:1]:
                by_module[candidate.module, tap.run] = candidate
        for name, stage in net.stages.items():
            own = [by_module.get((tap.module, tap.run)) for tap in stage.taps[:1]]
            taps = token_taps(own[0], tokens or PATCHES, times) if own[0] else ()
            if taps and taps not in [one.taps for one in chosen.values()]:
                chosen[name] = replace(stage, taps=taps)
    else:
        layers = list(find_layers(net, found, units))
        names = names_of(layers)
        refused = {layer.path.removeprefix(net.prefix): layer.reason for layer in layers if layer.reason}
        for name, layer in zip(names, layers, strict=True):
            if layer.candidate is None:
                continue
            source = "heads" if isinstance(net.get_submodule(layer.path), nn.MultiheadAttention) else "input"
            taps = tuple(
                replace(tap, source=source, select=None)
                for tap in token_taps(layer.candidate, tokens or PATCHES, times)[:1]
            )
            if taps:
                chosen[name] = Stage(layer.width, taps, heads=layer.heads)
    if not chosen:
        raise UserError(nothing_found(units, tokens, refused))
    if refused:
        path, reason = next(iter(refused.items()))
        log.warning("units=%s: %d modules cannot be read, such as %s (%s)", units, len(refused), path, reason)
    net.stages = chosen


def nothing_found(units: str, tokens: str | None, refused: Mapping[str, str]) -> str:
    """Return the error message for a network without the chosen units or tokens."""
    if refused:
        path, reason = next(iter(refused.items()))
        return f"units={units}: {WHAT[units]} cannot be read: {path} {reason}"
    if tokens in (CLASS, FRAMES):
        kind = "class token" if tokens == CLASS else "module with one token per frame"
        return f"tokens={tokens}: the stages have no {kind} with {WHAT[units]}: give tokens=patches"
    return f"units={units}: the stages of this network have no {WHAT[units]}: give units=channels"


def find_layers(net: VideoNetwork, found: Mapping[str, Candidate], units: str) -> Iterator[Layer]:
    """Yield the layers inside the modules of the network's stages that read attention heads or neurons.

    The layers are in the order of execution. Layers that cannot be read are last.
    """
    owners: dict[str, str] = {}
    for name, stage in net.stages.items():
        for tap in stage.taps:
            owners.setdefault(tap.module, name.partition("@")[0])
    ran = set()
    for candidate in found.values():
        ran.add(candidate.module)
        layer = layer_of(net, candidate.module, owners, units)
        if layer:
            yield describe(net, layer, candidate, units)
    for path, _ in net.named_modules():
        parent = path.rpartition(".")[0]
        if path in ran or isinstance(net.get_submodule(parent), nn.MultiheadAttention):
            continue
        layer = layer_of(net, path, owners, units)
        if layer:
            yield replace(layer, reason="is never called: its weights are used in a function")


def layer_of(net: VideoNetwork, path: str, owners: Mapping[str, str], units: str) -> Layer | None:
    """Return the layer at `path` if it is inside a stage and, judged by path or class, reads the units."""
    inside = [owner for owner in owners if path == owner or path.startswith(f"{owner}.")]
    if not inside:
        return None
    owner = max(inside, key=len)
    if units == HEADS and isinstance(net.get_submodule(path), nn.MultiheadAttention):
        return Layer(path, owners[owner], path[len(owner) + 1 :])
    match = LAYERS[units].fullmatch(path) if is_linear(net.get_submodule(path)) else None
    if not match or (units == NEURONS and LAYERS[HEADS].fullmatch(path)):
        return None
    return Layer(path, owners[owner], match["part"][len(owner) + 1 :])


def describe(net: VideoNetwork, layer: Layer, candidate: Candidate, units: str) -> Layer:
    """Set a layer's width and number of heads, or the reason why its units cannot be read."""
    module = net.get_submodule(layer.path)
    attention = module if isinstance(module, nn.MultiheadAttention) else None
    if not candidate.taps:
        return replace(layer, reason=candidate.reason)
    width = int(attention.embed_dim) if attention else widths(module)[0]
    layer = replace(layer, candidate=candidate, width=width)
    part = layer.path if attention else LAYERS[units].fullmatch(layer.path)["part"]  # type: ignore[index]
    if units == HEADS:
        heads = count_heads(net, part, width)
        if heads is None:
            reason = f"has an input of {width} columns, but the number of attention heads is unknown"
            return replace(layer, candidate=None, reason=reason)
        return replace(layer, heads=heads)
    # the first layer of the MLP has as many outputs as the second has inputs, or twice as many with a gate
    siblings = [one for one in net.get_submodule(part).modules() if one is not module and is_linear(one)]
    if not any(widths(one)[1] in (width, 2 * width) for one in siblings):
        return replace(layer, candidate=None, reason=f"follows no layer with {width} outputs")
    return layer


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear layer (``nn.Linear``, or Hugging Face's ``Conv1D``)."""
    return isinstance(module, nn.Linear) or (hasattr(module, "nx") and hasattr(module, "nf"))


def widths(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of inputs and outputs of a linear layer."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return int(module.nx), int(module.nf)  # type: ignore[arg-type]


def count_heads(net: nn.Module, path: str, width: int) -> int | None:
    """Return the number of attention heads that the module at `path`, or a module inside it, declares.

    The number must divide `width`. Otherwise the dimension of a head (``head_dim``) is used, and then the
    configs that the modules hold. Returns None if no module or config declares
    the number of heads.
    """
    modules = list(net.get_submodule(path).modules())
    configs = [module.config for module in modules if hasattr(module, "config")]
    for holder in (*modules, *configs):
        counts = [getattr(holder, name, None) for name in HEAD_COUNTS]
        size = getattr(holder, "head_dim", None)
        counts += [width // size] if isinstance(size, int) and size and width % size == 0 else []
        for count in counts:
            if isinstance(count, int) and count > 0 and width % count == 0:
                return count
    return None


def names_of(layers: list[Layer]) -> list[str]:
    """Return one stage name per layer: ``OWNER``, or ``OWNER/PART`` if an owner has several parts.

    Runs of a layer that runs several times end in ``@1``, ``@2`` ...
    """
    parts = {(layer.owner, layer.part) for layer in layers if layer.candidate}
    several = len(parts) > len({owner for owner, _ in parts})
    names = []
    for layer in layers:
        name = f"{layer.owner}/{layer.part}" if several and layer.part else layer.owner
        run = layer.candidate.taps[0].run if layer.candidate else None
        names.append(name if run is None else f"{name}@{run}")
    return names


def token_taps(candidate: Candidate, tokens: str, times: set[int]) -> tuple[Tap, ...]:
    """Return the taps that average the chosen tokens of a module's output; empty if there are no such tokens.

    `times` holds the numbers of frames, and of temporal positions, that the network's feature maps have.
    """
    if tokens == CLASS:
        stage = candidate.prefix.get("cls")
        return stage.taps if stage else ()
    if tokens == PATCHES:
        return candidate.taps
    return tuple(tap for tap in candidate.taps[:1] if tokens_per_clip(candidate, tap) in times)


def tokens_per_clip(candidate: Candidate, tap: Tap) -> int | None:
    """Return the number of tokens of a clip after the prefix tokens; None if the output holds no tokens."""
    shape = candidate.shapes[0]
    if tap.layout != "tokens" or len(shape) != 3:
        return None
    return prod(shape[:2]) - tap.skip * tap.fold


def temporal_sizes(found: Mapping[str, Candidate]) -> Iterator[int]:
    """Yield the sizes of the time axis of all feature maps with time and space."""
    axes = {"maps": 2, "channels_last": 1, "time_first": 1}
    for candidate in found.values():
        for tap in candidate.taps[:1]:
            if len(candidate.shapes[0]) == 5 and tap.layout in axes and not tap.batch_axis:
                yield candidate.shapes[0][axes[tap.layout]]
