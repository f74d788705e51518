"""Keep the time axis of stages: average the outputs of modules over space only.

Time steps are found by the shape of an output: feature maps have a time axis, or one row per frame. The
order of tokens does not follow from their shape, so the network declares it (``token_order``). An output
whose time steps are unknown is refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from math import gcd
from typing import Any, NamedTuple

from torch import Tensor

from static_dynamic.errors import UserError
from static_dynamic.models.layouts import Shape, prefix_tokens
from static_dynamic.models.stage_discovery import find_candidates
from static_dynamic.models.stages import NO_OPTIONS, Tap, Time, VideoNetwork, run_on_meta, tapped
from static_dynamic.models.units import temporal_sizes

# Layout of a feature map with five axes, batch axis first -> place of its time steps.
OF_MAPS = {"maps": "axis 2", "channels_last": "axis 1", "time_first": "axis 1"}
WAY_OUT = "give task.time=false, or other stages with task.stages=[STAGE,...]"


class _Part(Tap):
    """A tap that returns the part of a module's output that is averaged, instead of the average."""

    def pool(self, output: Any, masks: Mapping[str, Tensor] = NO_OPTIONS) -> Tensor:
        return self.read_part(output if self.select is None else output[self.select])


def keep_time(net: VideoNetwork, names: Iterable[str]) -> None:
    """Replace the named stages of a network by stages that keep the time axis, with steps x units columns.

    If the outputs of a stage differ in their number of time steps, the steps of each are averaged to the
    greatest common divisor of these numbers. Raises UserError if the time steps of a stage are unknown.
    """
    names = list(names)
    shapes = shapes_of(net, names)
    tubelets = next(temporal_sizes(find_candidates(net)), net.input_spec.frames)
    kept = {}
    for name in names:
        stage = net.stages[name]
        taps = [with_time(net, name, tap, shapes[tap], tubelets) for tap in stage.taps]
        steps = gcd(*(tap.time.own if tap.time else 1 for tap in taps))
        if steps > 1:
            timed = tuple(replace(tap, time=replace(tap.time, steps=steps)) for tap in taps if tap.time)
            kept[name] = replace(stage, units=steps * stage.units, taps=timed, heads=None)
    net.stages = net.stages | kept


def shapes_of(net: VideoNetwork, names: Iterable[str]) -> dict[Tap, Shape]:
    """Return the shape of what each tap of the named stages averages, for one clip, batch axis first."""
    stages, parts = net.stages, {}
    of = {
        tap: _Part(**{field.name: getattr(tap, field.name) for field in fields(tap)})
        for name in names
        for tap in stages[name].taps
    }
    try:
        net.stages = {
            name: replace(stages[name], taps=tuple(of[t] for t in stages[name].taps)) for name in names
        }
        with tapped(net, net.stages, stop=False) as parts:
            run_on_meta(net)
    finally:
        net.stages = stages
    return {tap: tuple(parts[part].shape) for tap, part in of.items()}


class TimeSteps(NamedTuple):
    """Key of `TIME_PLACES`, number of time steps of an output, and number of leading tokens to skip."""

    place: str
    own: int
    skip: int


def with_time(net: VideoNetwork, name: str, tap: Tap, shape: Shape, tubelets: int) -> Tap:
    """Return a tap of the stage `name` that keeps the time axis; the tap itself if it has one time step.

    The parameters are those of `find_time`; raises UserError if the time steps are unknown.
    """
    found = find_time(net, tap, shape, tubelets)
    if found is None:
        raise UserError(
            f"task.time: the time steps of stage {name} are unknown, because it returns {shape}: {WAY_OUT}"
        )
    place, own, skip = found
    return replace(tap, skip=skip, time=Time(place, own, own)) if own > 1 else tap


def find_time(net: VideoNetwork, tap: Tap, shape: Shape, tubelets: int) -> TimeSteps | None:
    """Find the time steps of what a tap averages; return None if they are unknown.

    Tokens before the patch tokens belong to no time step and are left out.

    Parameters
    ----------
    shape
        Shape of what the tap averages, for one clip, with the batch axis first.
    tubelets
        Number of time steps of the network's patch embedding.
    """
    rows, frames, place, own, skip = tap.fold, net.input_spec.frames, "rows", 1, tap.skip
    maps = len(shape) > 3 and tap.layout != "tokens"
    if rows > 1:
        # The rows of a clip are its frames if the network sees single frames, or if maps hold all of space.
        known = rows == frames if net.folds_frames else maps and len(shape) == 4 and frames % rows == 0
        own = rows
    elif maps:
        known = len(shape) < 6
        if len(shape) == 5:
            place, own = OF_MAPS[tap.layout], shape[2 if tap.layout == "maps" else 1]
    elif len(shape) == 2 or tap.keep is not None:
        # a vector, or class and register tokens, belong to the whole clip
        known = True
    else:
        leading = sum(prefix_tokens(net).values())
        # the number of tokens tells whether the output begins with the leading tokens
        skips = {more for more in (0, leading) if (shape[1] - more) % tubelets == 0}
        known = tap.layout == "tokens" and net.token_order is not None and len(skips) == 1
        if known:
            place, own, skip = str(net.token_order), tubelets, tap.skip + skips.pop()
    return TimeSteps(place, own, skip) if known else None
