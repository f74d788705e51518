"""Choose and declare the stages of another package's network among the modules that can be read."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from math import prod

from torch import nn

from static_dynamic.errors import UserError, nearest
from static_dynamic.models.stage_discovery import Candidate
from static_dynamic.models.stages import Stage


def choose(patterns: Sequence[str] | str, found: Mapping[str, Candidate]) -> list[str]:
    """Return the paths of modules that match the patterns, in depth order; ``*`` does not match a dot.

    Raises UserError if a pattern matches no module, or no module that can be read.
    """
    chosen = set()
    for pattern in patterns if isinstance(patterns, list | tuple) else [patterns]:
        # convert the pattern to text, because YAML reads a module path such as 0 as a number
        pattern = str(pattern)
        parts = pattern.split(".")
        matching = [
            candidate
            for path, candidate in found.items()
            if path.count(".") + 1 == len(parts) and all(map(fnmatchcase, path.split("."), parts))
        ]
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
    return [path for path, candidate in found.items() if candidate.depth in chosen]


def default_stages(net: nn.Module, found: Mapping[str, Candidate]) -> list[str]:
    """Choose default stages: a transformer's blocks; otherwise top-level modules that return feature maps."""
    for path, module in net.named_modules():
        entries = [f"{path}.{name}".lstrip(".") for name, _ in module.named_children()]
        alike = len({type(child) for child in module.children()}) == 1
        if is_list(module) and len(entries) > 1 and alike and all(holds(found.get(e), 3) for e in entries):
            return entries
    return feature_maps(net, found)


def feature_maps(
    module: nn.Module, found: Mapping[str, Candidate], path: str = "", inside_list: bool = False
) -> list[str]:
    """Choose child modules that return feature maps; split a list whose entries differ in map size."""
    children = {f"{path}.{name}".lstrip("."): child for name, child in module.named_children()}
    chosen = []
    for name, child in children.items():
        entries = [found.get(f"{name}.{entry}") for entry in child._modules]
        sizes = {entry.shapes for entry in entries if entry is not None and holds(entry, 4)}
        if is_list(child) and (name not in found or (len(sizes) > 1 and not inside_list)):
            chosen += feature_maps(child, found, name, inside_list=True)
        elif holds(found.get(name), 4) and next(child.parameters(), None) is not None:
            chosen.append(name)
    if chosen:
        return chosen
    return [name for below, child in children.items() for name in feature_maps(child, found, below)]


def is_list(module: nn.Module) -> bool:
    """Return whether a module is a ``Sequential`` or a ``ModuleList``."""
    return isinstance(module, nn.Sequential | nn.ModuleList)


def holds(candidate: Candidate | None, axes: int) -> bool:
    """Return whether a module outputs tokens (if `axes` is 3) or feature maps (if `axes` is 4)."""
    if candidate is None or not candidate.taps:
        return False
    shape, layout = candidate.shapes[0], candidate.taps[0].layout
    if axes == 3 or layout == "tokens":
        return axes == 3 and layout == "tokens"
    space = shape[-2:] if layout == "maps" else shape[-3:-1]
    # outputs with one position are pooled features, not feature maps
    return len(shape) >= axes and prod(space) > 1


def declare(paths: Sequence[str], found: Mapping[str, Candidate]) -> dict[str, Stage]:
    """Declare one stage per module path; a module with a class token gets a second stage, ``PATH/cls``."""
    stages = {}
    for path in sorted(paths, key=lambda path: found[path].depth):
        taps, units = found[path].taps, found[path].units
        stages[path] = Stage(units, taps)
        if any(tap.skip for tap in taps):
            stages[f"{path}/cls"] = Stage(units, tuple(replace(tap, layout="cls", skip=0) for tap in taps))
    return stages
