"""Every module of a network whose output could be a stage, found by a run on shapes alone; choice of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from math import prod

import torch
from torch import Tensor, nn

from static_dynamic.errors import UserError, nearest
from static_dynamic.models.stages import Stage, Tap, VideoNetwork

# how code bases call the parameter that is put in front of the tokens of a clip
CLASS_TOKENS = {"cls_token", "class_token", "class_embedding"}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """A module that ran: what it returns for one clip, and how to read it.

    ``taps`` is empty where it cannot be read, for the ``reason`` given; ``depth`` is its place in the order
    of execution.
    """

    module: str
    kind: str
    depth: int
    shapes: tuple[Shape, ...]
    taps: tuple[Tap, ...] = ()
    units: int = 0
    reason: str = ""


def find_candidates(
    net: VideoNetwork, layout: str | None = None, leading_tokens: int | None = None
) -> dict[str, Candidate]:
    """Every module that `net` runs -> what can be read there, in the order of execution.

    Parameters
    ----------
    layout
        Layout of outputs with three axes or more; None tells it by their number and by which axes have the
        proportions of the clip.
    leading_tokens
        Number of tokens in front of those of space and time; None looks for class tokens and registers.
    """
    calls, outputs = outputs_of(net, batch=1)
    _, doubled = outputs_of(net, batch=2)
    frame = net.input_spec.shape
    patches = count_patches(outputs, frame)
    if leading_tokens is None:
        leading_tokens = count_leading_tokens(net)
    kinds = {path: type(module).__name__ for path, module in net.named_modules()}
    found = {}
    for depth, (path, shapes) in enumerate(outputs.items()):
        # the axis of clips is the one that grows with the batch, however many rows a clip is folded into
        readable = pathways(
            {
                key: shape
                for key, shape in shapes.items()
                if len(shape) > 1 and doubled[path].get(key) == (2 * shape[0], *shape[1:])
            }
        )
        taps = tuple(
            Tap(path, key, kind, leading(shape, kind, leading_tokens, patches), shape[0])
            for key, shape in readable.items()
            if (kind := layout_of(shape, frame, layout)) is not None
        )
        if calls[path] > 1:
            reason = f"runs {calls[path]} times"
        elif not readable:
            reason = "has no axis of clips"
        elif not taps:
            reason = "has no layout that its shape tells (model.layout says it)"
        else:
            reason = ""
        units = sum(readable[tap.select][1 if tap.layout == "maps" else -1] for tap in taps)
        about = (path, kinds[path], depth, tuple(shapes.values()))
        found[path] = Candidate(*about, reason=reason) if reason else Candidate(*about, taps, units)
    return found


def outputs_of(net: VideoNetwork, batch: int) -> tuple[Counter, dict[str, dict[int | str | None, Shape]]]:
    """Run on shapes alone: how often each module ran, and the shapes of the tensors that it returned last."""
    calls, outputs = Counter(), {}

    def hook_for(path: str):
        def hook(module, inputs, output):
            calls[path] += 1
            outputs.pop(path, None)  # so that the order is that of the last run
            outputs[path] = {key: tuple(value.shape) for key, value in tensors_of(output).items()}

        return hook

    handles = [module.register_forward_hook(hook_for(path)) for path, module in net.named_modules() if path]
    try:
        named = chain(net.named_parameters(), net.named_buffers())
        weights = {name: torch.empty_like(tensor, device="meta") for name, tensor in named}
        inputs = net.example_input(partial(torch.empty, device="meta"), batch)
        with torch.no_grad():
            torch.func.functional_call(net, weights, (inputs,))
    finally:
        for handle in handles:
            handle.remove()
    return calls, outputs


def tensors_of(output) -> dict[int | str | None, Tensor]:
    """The tensors of a module's output under the keys that select them; None selects the output itself."""
    if isinstance(output, Tensor):
        return {None: output}
    items = output.items() if isinstance(output, Mapping) else ()
    if isinstance(output, list | tuple):
        items = enumerate(output)
    return {key: value for key, value in items if isinstance(value, Tensor)}


def pathways(shapes: Mapping[int | str | None, Shape]) -> dict[int | str | None, Shape]:
    """What to read of several tensors: all where they are the maps of several pathways, else the first."""
    if all(len(shape) >= 4 for shape in shapes.values()):
        return dict(shapes)
    return dict(list(shapes.items())[:1])


def layout_of(shape: Shape, frame: tuple[int, int], wanted: str | None = None) -> str | None:
    """Layout of an output by the number of its axes; with four or more, by where those of space are.

    `frame` is the height and width of the clip, whose proportions maps keep in their last two axes, or in the
    two before the last (channels last); None where neither does. `wanted` is what the user says.
    """
    if wanted is not None and len(shape) > 2:
        return wanted
    if len(shape) < 4:
        return "tokens" if len(shape) == 3 else "maps"
    layouts = {"maps": shape[-2:], "channels_last": shape[-3:-1]}
    return next((layout for layout, cells in layouts.items() if in_proportion(cells, frame)), None)


def in_proportion(cells: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Whether (rows, columns) can be a frame (height, width) that was scaled down and rounded."""
    (rows, columns), (height, width) = cells, frame
    return rows == columns if height == width else abs(rows * width - columns * height) <= height + width


def leading(shape: Shape, layout: str | None, tokens: int, patches: int | None) -> int:
    """Number of leading tokens in an output (rows, N, C): those without which the rest tiles the patches."""
    if layout != "tokens" or not 0 < tokens < shape[1] or (patches and patches % (shape[0] * shape[1]) == 0):
        return 0
    tiles = patches is None or patches % (shape[0] * (shape[1] - tokens)) == 0
    return tokens if tiles else 0


def count_patches(
    outputs: Mapping[str, Mapping[int | str | None, Shape]], frame: tuple[int, int]
) -> int | None:
    """Number of patches that a clip is cut into: the positions of the first maps; None without maps."""
    for shape in chain.from_iterable(shapes.values() for shapes in outputs.values()):
        if len(shape) > 3 and layout_of(shape, frame) == "maps":
            return shape[0] * prod(shape[2:])
    return None


def count_leading_tokens(net: nn.Module) -> int:
    """Number of tokens in front of those of space and time: what the network says, or one class token."""
    said = (module.num_prefix_tokens for module in net.modules() if hasattr(module, "num_prefix_tokens"))
    has_class = any(name.rpartition(".")[2] in CLASS_TOKENS for name, _ in net.named_parameters())
    return next(said, int(has_class))  # the outermost module speaks for the whole


def choose(patterns: Sequence[str] | str, found: Mapping[str, Candidate]) -> list[str]:
    """Modules whose paths match the patterns, in depth order; ``*`` stays within one part of a path."""
    chosen = set()
    for pattern in patterns if isinstance(patterns, list | tuple) else [patterns]:
        pattern = str(pattern)  # 0 is the first module of a list
        parts = pattern.split(".")
        matching = [
            candidate
            for path, candidate in found.items()
            if path.count(".") + 1 == len(parts) and all(map(fnmatchcase, path.split("."), parts))
        ]
        if not matching:
            raise UserError(
                f"model.stages: no module {pattern!r} runs{nearest(pattern, found)} "
                "(task=stages prints them all)"
            )
        if not any(candidate.taps for candidate in matching):
            raise UserError(f"model.stages: {pattern!r} cannot be read: it {matching[0].reason}")
        chosen |= {candidate.depth for candidate in matching if candidate.taps}
    return [path for path, candidate in found.items() if candidate.depth in chosen]


def default_stages(net: nn.Module, found: Mapping[str, Candidate]) -> list[str]:
    """Every block of a network of tokens; of others the top-level children with feature maps."""
    for path, module in net.named_modules():
        entries = [f"{path}.{name}".lstrip(".") for name, _ in module.named_children()]
        alike = len({type(child) for child in module.children()}) == 1
        if is_list(module) and len(entries) > 1 and alike and all(holds(found.get(e), 3) for e in entries):
            return entries
    return feature_maps(net, found)


def feature_maps(
    module: nn.Module, found: Mapping[str, Candidate], path: str = "", inside_list: bool = False
) -> list[str]:
    """Children that return feature maps; of a list of modules of several sizes, its entries."""
    children = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()}
    chosen = []
    for name, child in children.items():
        sizes = {c.shapes for entry in child._modules if holds(c := found.get(f"{name}.{entry}"), 4)}
        if is_list(child) and (name not in found or (len(sizes) > 1 and not inside_list)):
            chosen += feature_maps(child, found, name, inside_list=True)
        elif holds(found.get(name), 4) and next(child.parameters(), None) is not None:
            chosen.append(name)
    if chosen:
        return chosen
    return [name for below, child in children.items() for name in feature_maps(child, found, below)]


def is_list(module: nn.Module) -> bool:
    """Whether a module is no more than a list of others."""
    return isinstance(module, nn.Sequential | nn.ModuleList)


def holds(candidate: Candidate | None, axes: int) -> bool:
    """Whether a module can be read as tokens (3 axes) or as feature maps (4 axes or more)."""
    if candidate is None or not candidate.taps:
        return False
    shape, layout = candidate.shapes[0], candidate.taps[0].layout
    if axes == 3 or layout == "tokens":
        return axes == 3 and layout == "tokens"
    space = shape[-2:] if layout == "maps" else shape[-3:-1]
    return len(shape) >= axes and prod(space) > 1  # what is pooled over space is a map no longer


def declare(paths: Sequence[str], found: Mapping[str, Candidate]) -> dict[str, Stage]:
    """Stages at these modules; where a class token leads the others, a further one reads it: ``PATH/cls``."""
    stages = {}
    for path in sorted(paths, key=lambda path: found[path].depth):
        taps, units = found[path].taps, found[path].units
        stages[path] = Stage(units, taps)
        if any(tap.skip for tap in taps):
            stages[f"{path}/cls"] = Stage(units, tuple(replace(tap, layout="cls", skip=0) for tap in taps))
    return stages
