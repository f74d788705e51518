"""Ablation: replace the activation maps of chosen units of a stage while the network runs."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from static_dynamic.errors import UserError
from static_dynamic.models.stages import AllRead, Tap, VideoNetwork, run_on_meta, tapped

# Layout of a module's output -> axis of the channels, where it is not the last one.
CHANNEL_AXES = {"maps": 1, "time_first": 2}
# Tap -> the outputs of the tap's module, one per call of the module in a forward pass.
TapOutputs = Mapping[Tap, Sequence[Any]]


@contextmanager
def ablated(
    net: VideoNetwork, name: str, units: Iterable[int], values: Tensor | TapOutputs
) -> Iterator[None]:
    """Replace units of the stage `name` in every forward pass of the ``with`` block.

    Only the values that the stage's taps read are replaced: with ``Tap.skip``, leading tokens stay. Raises
    UserError for attention heads and MLP neurons, which are no channels of a module's output, and for one of
    several runs of a module.

    Parameters
    ----------
    units
        Numbers of the units (columns of the stage's rows). Raises UserError if the stage has no such unit.
    values
        (units of the stage,) one number per unit, which replaces all values of the unit's map; or the outputs
        of the taps' modules for another input with as many views (`tap_outputs`): activation patching.
    """
    if any(tap.source != "output" or tap.run is not None for tap in net.stages[name].taps):
        raise UserError(
            f"units of {name} cannot be removed: give a run with units=channels, and a stage whose module "
            "runs once in a forward pass"
        )
    numbers, count = sorted(set(units)), net.stages[name].units
    wrong = next((unit for unit in numbers if not 0 <= unit < count), None)
    if wrong is not None:
        raise UserError(f"{name} has the units 0 to {count - 1}: unit {wrong} does not exist")
    chosen = torch.tensor(numbers, dtype=torch.long)
    by_module: dict[str, list[Tap]] = {}
    for tap in net.stages[name].taps:
        by_module.setdefault(tap.module, []).append(tap)
    columns = columns_of_taps(net, name)

    def hook_for(taps: list[Tap]):
        calls = 0

        def hook(module, inputs, output):
            nonlocal calls
            for tap in taps:
                own = chosen[(chosen >= columns[tap].start) & (chosen < columns[tap].stop)]
                if not len(own):
                    continue
                if isinstance(values, Tensor):
                    new: Any = values[own.to(values.device)]
                else:
                    donors = values[tap]
                    new = donors[calls % len(donors)]
                output = replace_units(tap, output, own - columns[tap].start, new)
            calls += 1
            return output

        return hook

    handles = [net.get_submodule(path).register_forward_hook(hook_for(t)) for path, t in by_module.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def columns_of_taps(net: VideoNetwork, name: str) -> dict[Tap, slice]:
    """Map each tap of the stage `name` to the columns of the stage that the tap's pooled output fills."""
    taps = net.stages[name].taps
    if len(taps) == 1:
        return {taps[0]: slice(0, net.stages[name].units)}
    with tapped(net, [name], stop=True) as pooled:
        try:
            run_on_meta(net)
        except AllRead:
            pass
    columns, start = {}, 0
    for tap in taps:
        columns[tap] = slice(start, start + pooled[tap].shape[1])
        start = columns[tap].stop
    return columns


def replace_units(tap: Tap, output: Any, channels: Tensor, new: Any) -> Any:
    """Return a copy of a module's output in which the channels `channels` have new values.

    `new` is a tensor (channels,) of constants, or an output of the module for another input.
    """
    whole = output if tap.select is None else output[tap.select]
    changed = whole.clone()
    target = channels_last(tap, changed)  # (..., C), a view of `changed`
    channels = channels.to(target.device)
    if not (isinstance(new, Tensor) and new.dim() == 1):
        new = channels_last(tap, new if tap.select is None else new[tap.select])[..., channels]
    target[..., channels] = new.to(target)
    return put_back(output, tap.select, changed)


def channels_last(tap: Tap, tensor: Tensor) -> Tensor:
    """Return the part of a module's output that `tap` reads, as a view with the channels as last axis."""
    return tap.read_part(tensor).movedim(CHANNEL_AXES.get(tap.layout, -1), -1)


def put_back(output: Any, select: int | str | None, tensor: Tensor) -> Any:
    """Return a module's output with `tensor` as element `select`, or `tensor` alone if `select` is None."""
    if select is None:
        return tensor
    if isinstance(output, tuple):
        items = list(output)
        items[int(select)] = tensor
        return type(output)(*items) if hasattr(output, "_fields") else tuple(items)
    changed = copy.copy(output)
    changed[select] = tensor
    return changed


@torch.inference_mode()
def tap_outputs(net: VideoNetwork, name: str, inputs: Any) -> dict[Tap, list[Any]]:
    """Run the network on `inputs`; return copies of the outputs of the modules that the stage reads."""
    recorded: dict[Tap, list[Any]] = {tap: [] for tap in net.stages[name].taps}

    def hook_for(tap: Tap):
        def hook(module, given, output):
            recorded[tap].append(clone(output))

        return hook

    handles = [net.get_submodule(tap.module).register_forward_hook(hook_for(tap)) for tap in recorded]
    try:
        net(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return recorded


def clone(output: Any) -> Any:
    """Copy all tensors in a module's output, because later modules may change tensors in place."""
    return torch.utils._pytree.tree_map_only(Tensor, Tensor.clone, output)
