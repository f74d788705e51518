"""Choose and declare the stages of another package's network among the modules that can be read."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from math import prod

from torch import nn

from static_dynamic.errors import UserError, nearest
from static_dynamic.models.layouts import Shape
from static_dynamic.models.stage_discovery import Candidate, find_candidates
from static_dynamic.models.stages import Stage, VideoNetwork


def choose(patterns: Sequence[str] | str, found: Mapping[str, Candidate]) -> list[str]:
    """Return the keys of candidates that match the patterns, in depth order; ``*`` does not match a dot.

    A pattern without ``@`` matches all runs of a module. Raises UserError if a pattern matches no module, or
    no module that can be read.
    """
    chosen = set()
    for pattern in patterns if isinstance(patterns, list | tuple) else [patterns]:
        # convert the pattern to text, because YAML reads a module path such as 0 as a number
        pattern = str(pattern)
        parts = pattern.split(".")
        matching = []
        for key, candidate in found.items():
            path = (key if "@" in pattern else key.partition("@")[0]).split(".")
            if len(path) == len(parts) and all(map(fnmatchcase, path, parts)):
                matching.append(candidate)
        if not matching:
            raise UserError(
                f"model.stages: the network runs no module {pattern!r}{nearest(pattern, found)} "
                "(task=stages prints all modules)"
            )
        if not any(candidate.taps for candidate in matching):
            raise UserError(
                f"model.stages: {pattern!r} cannot be read, because the module {matching[0].reason}"
            )
        chosen |= {candidate.depth for candidate in matching if candidate.taps}
    return [key for key, candidate in found.items() if candidate.depth in chosen]


def default_stages(net: nn.Module, found: Mapping[str, Candidate]) -> list[str]:
    """Choose default stages: transformer blocks, or modules with feature maps if no block returns tokens.

    Every run of a chosen module is a stage.
    """
    runs: dict[str, list[str]] = {}
    for key in found:
        runs.setdefault(key.partition("@")[0], []).append(key)
    by_path = {path: found[keys[0]] for path, keys in runs.items()}
    blocks = list(chain.from_iterable(block_lists(net, by_path)))
    if not any(holds(by_path[path], 3) for path in blocks):
        blocks = feature_maps(net, by_path)
        lists = [path for path in blocks if blocks_of(net.get_submodule(path), by_path, path)]
        # if the only chosen module that contains blocks is a list, each of its blocks is a stage instead
        if len(lists) == 1 and is_list(net.get_submodule(lists[0])):
            inner = blocks_of(net.get_submodule(lists[0]), by_path, lists[0])
            blocks = [path for path in blocks if path != lists[0]] + list(inner)
    # a transformer may have a single block
    blocks = blocks or list(chain.from_iterable(block_lists(net, by_path, least=1)))
    return [key for path in blocks for key in runs[path]]


def block_lists(
    module: nn.Module, found: Mapping[str, Candidate], path: str = "", least: int = 2
) -> Iterator[list[str]]:
    """Yield the readable blocks of each outermost list that holds `least` or more blocks of one class.

    Lists of patch embeddings and of plain convolutions are left out. Lists inside a list that itself does not
    run count on their own.
    """
    children = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()}
    blocks = blocks_of(module, found, path)
    alike = max(Counter(map(type, blocks.values())).values(), default=0) >= least
    if is_list(module) and alike and not all(found[name].embeds for name in blocks):
        yield list(blocks)
        children = {name: child for name, child in children.items() if name not in found}
    for name, child in children.items():
        yield from block_lists(child, found, name, least)


def blocks_of(module: nn.Module, found: Mapping[str, Candidate], path: str) -> dict[str, nn.Module]:
    """Return path -> module of the children that are blocks (`is_block`)."""
    children = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()}
    return {name: child for name, child in children.items() if is_block(child, found.get(name))}


def is_block(module: nn.Module, candidate: Candidate | None) -> bool:
    """Return whether a module returns tokens and has children, or returns maps and has grandchildren."""
    grandchildren = any(next(child.children(), None) is not None for child in module.children())
    leaf = next(module.children(), None) is None
    return (holds(candidate, 3) and not leaf) or (holds(candidate, 4) and grandchildren)


def feature_maps(
    module: nn.Module, found: Mapping[str, Candidate], path: str = "", inside_list: bool = False
) -> list[str]:
    """Choose children that return feature maps, but modules inside a child whose maps differ in size."""
    children = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()}
    chosen = []
    for name, child in children.items():
        if not inside_list and has_levels(child, found, name):
            chosen += feature_maps(child, found, name, inside_list=is_list(child))
        elif is_list(child) and name not in found:
            chosen += feature_maps(child, found, name, inside_list=True)
        elif holds(found.get(name), 4) and next(child.parameters(), None) is not None:
            chosen.append(name)
    if chosen:
        return chosen
    return [name for below, child in children.items() for name in feature_maps(child, found, below)]


def has_levels(module: nn.Module, found: Mapping[str, Candidate], path: str) -> bool:
    """Return whether a module is or contains an outermost list whose feature maps differ in size."""
    children = {f"{path}.{name}": child for name, child in module.named_children()}
    if is_list(module):
        return len({positions(found[name]) for name in children if holds(found.get(name), 4)}) > 1
    return any(has_levels(child, found, name) for name, child in children.items())


def is_list(module: nn.Module) -> bool:
    """Return whether a module is a ``Sequential`` or a ``ModuleList``."""
    return isinstance(module, nn.Sequential | nn.ModuleList)


def holds(candidate: Candidate | None, axes: int) -> bool:
    """Return whether a module outputs tokens (if `axes` is 3) or feature maps (if `axes` is 4)."""
    if candidate is None or not candidate.taps:
        return False
    layout = candidate.taps[0].layout
    if axes == 3 or layout == "tokens":
        return axes == 3 and layout == "tokens"
    # outputs with one position are pooled features, not feature maps
    return len(candidate.shapes[0]) >= axes and prod(positions(candidate)[-2:]) > 1


def positions(candidate: Candidate) -> Shape:
    """Return the axes of space, and of time if the output has such an axis, of a candidate's feature map."""
    shape = candidate.shapes[0]
    return shape[1:-1] if candidate.taps[0].layout == "channels_last" else shape[2:]


def declare(keys: Sequence[str], found: Mapping[str, Candidate]) -> dict[str, Stage]:
    """Declare one stage per candidate, and stages ``NAME/cls``, ``NAME/registers`` ... for prefix tokens."""
    stages = {}
    for key in sorted(keys, key=lambda key: found[key].depth):
        candidate = found[key]
        stages[key] = Stage(candidate.units, candidate.taps)
        stages |= {f"{key}/{name}": stage for name, stage in candidate.prefix.items()}
    return stages


def keep_part(net: VideoNetwork, part: str) -> None:
    """Keep the stages of a network that read modules of the part `part` (a module path) only.

    If there are none, declare the default stages of the part. Raises UserError if the network has no such
    module, or if no module of the part can be read.
    """
    modules = dict(net.named_modules())
    if part not in modules:
        raise UserError(f"model.part={part} is no module{nearest(part, modules)}")

    def inside(path: str) -> bool:
        return path == part or path.startswith(f"{part}.")

    own = {name: stage for name, stage in net.stages.items() if all(inside(tap.module) for tap in stage.taps)}
    if not own:
        found = {key: one for key, one in find_candidates(net).items() if inside(one.module)}
        own = declare(default_stages(net, found), found)
    if not own:
        raise UserError(f"model.part={part}: no module of this part can be read as a stage")
    net.stages = own
