"""Turn a network that a loader has built into a network with stages and an input spec."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from functools import partial

from static_dynamic.errors import UserError, reason
from static_dynamic.models.adapters.network import AdaptedNetwork, Loaded, Wanted
from static_dynamic.models.adapters.parts import Part, possible_parts, suggestion
from static_dynamic.models.layouts import prefix_tokens
from static_dynamic.models.registry import register
from static_dynamic.models.stage_choice import choose, declare, default_stages
from static_dynamic.models.stage_discovery import Candidate, find_candidates
from static_dynamic.models.stages import InputSpec
from static_dynamic.weights import check_no_nan

log = logging.getLogger(__name__)

Loader = Callable[[Wanted], Loaded]


def adapter(family: str, example: str) -> Callable[[Loader], Loader]:
    """Return a decorator that registers a function as the loader for the option ``model=FAMILY``.

    `example` is shown in the message for a missing name.
    """

    def add(load: Loader) -> Loader:
        register(family)(partial(adapt, family, example, load))
        return load

    return add


def adapt(
    family: str,
    example: str,
    load: Loader,
    num_classes: int | None,
    *,
    network: str | None,
    feed: str | None,
    input: Mapping,
    known_inputs: Mapping[str, Mapping],
    stages: Sequence[str] | None = None,
    layout: str | None = None,
    leading_tokens: int | None = None,
    options: Mapping | None = None,
    pretrained: bool = False,
    part: str | None = None,
) -> AdaptedNetwork:
    """Load a network of another package; declare stages of the network, or only of its part `part`.

    The keyword arguments are the options of the config group ``model``.
    """
    if not network:
        raise UserError(f"model={family} needs the name of a network, such as {example}")
    if pretrained and num_classes:
        raise UserError(
            f"num_classes={num_classes}: the pretrained weights of model={family} fix the number of classes; "
            "leave out num_classes, or give model.init=random or checkpoint=FILE"
        )
    label = f"model={family} ({network})"
    loaded = load(Wanted(network, num_classes, pretrained, options or {}, input))
    if pretrained:
        check_no_nan(loaded.net.state_dict(), label)
    names = (network, type(loaded.net).__name__)
    ways = list(possible_parts(loaded.net, part, label))
    for way in ways:
        kinds = (*names, type(way.net).__name__)
        spec = input_spec(label, input, loaded.input, known_inputs, kinds)
        net = AdaptedNetwork(take_part(loaded, way), feed or loaded.feed, spec).eval()
        if way.inside and not prefix_tokens(net.net.get_submodule(way.inside)):
            net.leading_tokens = 0
        try:
            found = find_outputs(net, label, layout, leading_tokens, suggestion(loaded.net, part))
            break
        except UserError:
            if way is ways[-1]:
                raise
    own = {path.removeprefix(net.prefix): candidate for path, candidate in found.items()}
    whole = own.pop("net", None)
    net.output = whole.taps if whole else ()
    # num_classes is 0 for timm networks without a classifier, which return features instead of class scores
    scores = whole is not None and bool(whole.shapes) and len(whole.shapes[0]) == 2 and not way.run
    net.has_head = scores and getattr(net.net, "num_classes", None) != 0
    own = {path: candidate for path, candidate in own.items() if way.holds(path.partition("@")[0])}
    net.stages = declare(choose(stages, own) if stages else default_stages(net.net, own), own)
    if not net.stages:
        raise UserError(f"{label}: no stage was found. Give model.stages (task=stages lists the modules)")
    return net


def take_part(loaded: Loaded, way: Part) -> Loaded:
    """Return the part of a loaded network that runs; its checkpoints may hold the whole network's weights."""
    if not way.path and not way.run:
        return loaded

    def convert(state: Mapping) -> Mapping:
        # an empty path means that the whole network runs
        start = f"{way.path}." if way.path else ""
        own = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
        return own or state

    return replace(loaded, net=way.net, run=way.run, call={}, convert=convert if way.path else loaded.convert)


def find_outputs(
    net: AdaptedNetwork, label: str, layout: str | None, leading_tokens: int | None, way_out: str
) -> dict[str, Candidate]:
    """Call `find_candidates` on the meta device; if the network fails there, run it on random pixels.

    Raises UserError, which ends in `way_out`, if the network does not run on a clip of its input spec.
    """
    size = " x ".join(map(str, (net.input_spec.frames, *net.input_spec.shape)))
    # catch every exception, because code of another package runs here
    try:
        return find_candidates(net, layout, leading_tokens)
    except Exception as error:
        first = reason(error)
    net.runs_on_meta = False
    try:
        found = find_candidates(net, layout, leading_tokens)
    except Exception as error:
        raise UserError(f"{label} does not run on a clip of {size} ({reason(error)}): {way_out}") from error
    log.info("%s: shapes of outputs come from passes of random pixels on the CPU (%s)", label, first)
    return found


def input_spec(
    label: str, wanted: Mapping, declared: Mapping, known: Mapping[str, Mapping], names: Sequence[str]
) -> InputSpec:
    """Build the input spec from the user's options, else the package's values, else ``configs/model``.

    Parameters
    ----------
    wanted, declared
        Fields of `InputSpec` that the user and the package give; None means not given. A field that is
        missing everywhere raises UserError.
    known
        Pattern of a network's name -> fields, from the config file in ``configs/model``.
    names
        Names of the network that the patterns are matched with.
    """
    merged: dict = {}
    for pattern, values in known.items():
        if any(fnmatchcase(name, pattern) for name in names):
            merged |= values
    for values in (declared, wanted):
        merged |= {key: value for key, value in values.items() if value is not None}
    needed = [field.name for field in fields(InputSpec) if field.name not in ("pathways", "fps")]
    missing = [key for key in needed if key not in merged]
    if missing:
        options = ", ".join(f"model.input.{key}" for key in missing)
        raise UserError(f"{label} does not declare its preprocessing: give {options}")
    spec = InputSpec(**merged)
    if isinstance(spec.size, int) and spec.size < min(spec.shape):
        raise UserError(f"{label}: model.input.size={spec.size} must be at least crop={spec.crop}")
    return spec
