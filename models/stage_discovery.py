"""Find the modules of a network whose outputs can be read.

The network runs on the meta device, where tensors have shapes but no values, with one clip and with two
clips: the axis that doubles is the batch axis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from static_dynamic.models.layouts import (
    PASSING,
    Shape,
    batch_axis_of,
    batch_first,
    count_patches,
    count_skipped,
    given_prefix,
    is_attention,
    layout_of,
    prefix_tokens,
    split_prefix,
)
from static_dynamic.models.stages import Stage, Tap, VideoNetwork, run_on_meta

# Index or key of a tensor in a module's output -> shape of the tensor.
Shapes = dict[int | str | None, Shape]
# Index or key of a tensor in a module's output -> (shape, batch axis).
Outputs = dict[int | str | None, tuple[Shape, int]]


@dataclass(frozen=True)
class Candidate:
    """One run of a module: shapes of its output tensors for one clip, and how its output is pooled.

    ``taps`` is empty if the output cannot be read; ``reason`` says why. ``prefix`` holds name -> stage of the
    tokens before the patch tokens. ``depth`` is the run's position in the order of execution.
    ``embeds`` is True if the output has other numbers of axes than all inputs, as of a patch embedding.
    """

    module: str
    kind: str
    depth: int
    shapes: tuple[Shape, ...]
    taps: tuple[Tap, ...] = ()
    units: int = 0
    reason: str = ""
    prefix: Mapping[str, Stage] = field(default_factory=dict)
    embeds: bool = False


@dataclass(frozen=True)
class Run:
    """Shapes of the input and output tensors of one run of the module `path`; runs count from 1."""

    path: str
    number: int
    inputs: frozenset[Shape]
    outputs: Shapes


def find_candidates(
    net: VideoNetwork, layout: str | None = None, leading_tokens: int | None = None
) -> dict[str, Candidate]:
    """Return a dict of `Candidate` for every run of every module of `net`, in the order of execution.

    The keys are module paths. The k-th run of a module that runs several times has the key ``PATH@k``.

    Parameters
    ----------
    layout
        Layout of outputs with three axes or more. None infers the layout from the shape.
    leading_tokens
        Number of tokens before the patch tokens. None takes ``net.leading_tokens`` or, if that is None too,
        counts class tokens, distillation tokens and registers.
    """
    leading_tokens = net.leading_tokens if leading_tokens is None else leading_tokens
    runs, doubled = runs_of(net, batch=1), runs_of(net, batch=2)
    repeated = {path for path, number in runs if number > 1}
    kinds = {path: type(module).__name__ for path, module in net.named_modules()}
    rules = Rules(net, layout, leading_tokens, kinds, runs, doubled)
    return {
        f"{run.path}@{run.number}" if run.path in repeated else run.path: rules.candidate(
            run, kinds[run.path], depth, run.path in repeated
        )
        for depth, run in enumerate(runs.values())
    }


class Rules:
    """Rules for reading a network's outputs, found from the shapes of all runs for one clip and two clips.

    `kinds` holds module path -> name of the Python class. The other arguments are those of `find_candidates`.
    """

    def __init__(
        self, net: VideoNetwork, layout: str | None, leading_tokens: int | None, kinds, runs, doubled
    ):
        prefix = prefix_tokens(net) if leading_tokens is None else given_prefix(leading_tokens)
        self.layout, self.prefix, self.doubled = layout, split_prefix(prefix), doubled
        self.given = leading_tokens is not None
        self.frame, self.frames = net.input_spec.shape, net.input_spec.frames
        self.leading = sum(prefix.values())
        read = {key: self.batched(run) for key, run in runs.items()}
        first = [batch_first(*output) for outputs in read.values() for output in outputs.values()]
        self.token_counts = {shape[1] for shape in first if len(shape) == 3 and shape[1] != shape[2]}
        states = [self.without_attention(run, kinds[run.path], read[key]) for key, run in runs.items()]
        first = [batch_first(*output) for outputs in states for output in outputs.values()]
        self.patches = count_patches(first, self.frame)

    def batched(self, run: Run) -> Outputs:
        """Return the outputs of a run that have a batch axis: key -> (shape, batch axis)."""
        other = self.doubled.get((run.path, run.number))
        axes = {
            key: (shape, batch_axis_of(shape, other.outputs.get(key) if other else None))
            for key, shape in run.outputs.items()
        }
        return {key: (shape, axis) for key, (shape, axis) in axes.items() if axis is not None}

    def candidate(self, run: Run, kind: str, depth: int, repeated: bool) -> Candidate:
        """Describe how the output of one run is pooled, or why it cannot be read."""
        about = (run.path, kind, depth, tuple(run.outputs.values()))
        if not run.outputs:
            return Candidate(*about, reason="returns no tensor")
        batched = self.batched(run)
        if not batched:
            return Candidate(*about, reason="has an output without a batch axis")
        states = self.without_attention(run, kind, batched)
        if not states:
            return Candidate(*about, reason="returns attention weights, whose mean is constant")
        states = choose_tensors(states, run.inputs)
        taps = []
        for key, (shape, axis) in states.items():
            first = batch_first(shape, axis)
            layout = layout_of(first, self.frame, self.layout, self.frames, kind)
            # if the batch axis is not the first axis, only the layout (N, B, C) is unambiguous
            if layout is None or (axis and len(shape) != 3):
                return Candidate(*about, reason="has an output whose layout is unknown (give model.layout)")
            tokens = self.leading if layout == "tokens" and len(first) == 3 else 0
            skip = count_skipped(first, tokens, self.patches)
            if skip is None and self.given:
                skip = tokens
            if skip is None:
                reason = f"has {first[1]} tokens, with or without {self.leading} class and register tokens"
                return Candidate(*about, reason=f"{reason} (give model.leading_tokens)")
            number = run.number if repeated else None
            tap = Tap(run.path, key, layout, skip, first[0], batch_axis=axis, run=number)
            taps.append((tap, first[{"maps": 1, "time_first": 2}.get(layout, -1)]))
        return Candidate(
            *about,
            tuple(tap for tap, _ in taps),
            sum(units for _, units in taps),
            prefix=self.prefix_stages(taps),
            embeds=not {len(shape) for shape, _ in states.values()} & set(map(len, run.inputs)),
        )

    def without_attention(self, run: Run, kind: str, batched: Outputs) -> Outputs:
        """Return the outputs of a run without attention matrices, whose means over positions are constant."""
        counts = {shape[1] for shape in run.inputs | set(run.outputs.values()) if len(shape) == 3}
        if kind in PASSING and self.layout is None:
            counts |= self.token_counts
        # An output (B, N, N) is kept if it has the shape of an input or is the only output, because it can be
        # a hidden state of N tokens with N channels.
        return {
            key: (shape, axis)
            for key, (shape, axis) in batched.items()
            if not is_attention(shape, counts)
            or (len(shape) == 3 and (shape in run.inputs or len(batched) == 1))
        }

    def prefix_stages(self, taps: list[tuple[Tap, int]]) -> dict[str, Stage]:
        """Return name -> stage of each kind of prefix token, from the taps and units of an output."""
        stages = {}
        for name, (start, number) in self.prefix.items():
            own = tuple(replace(tap, skip=start, keep=number) for tap, _ in taps if tap.skip)
            if own:
                stages[name] = Stage(sum(units for tap, units in taps if tap.skip), own)
        return stages


def choose_tensors(outputs: Outputs, inputs: frozenset[Shape]) -> Outputs:
    """Choose which tensors of an output to read.

    All tensors are read if each is a feature map (one per pathway). If the first has the shape of an input,
    all with the shape of an input and as many axes are read (one per branch). Otherwise the first is read.
    """
    (first, _), *_ = outputs.values()
    if all(len(shape) >= 4 for shape, _ in outputs.values()):
        return outputs
    branches = {
        key: (shape, axis)
        for key, (shape, axis) in outputs.items()
        if shape in inputs and len(shape) == len(first)
    }
    return branches if first in inputs else dict(list(outputs.items())[:1])


def runs_of(net: VideoNetwork, batch: int) -> dict[tuple[str, int], Run]:
    """Run a network and record shapes of tensors; return (module path, number of the run) -> `Run`."""
    counts: dict[str, int] = {}
    runs: dict[tuple[str, int], Run] = {}

    def hook_for(path: str):
        def hook(module, args, kwargs, output):
            counts[path] = counts.get(path, 0) + 1
            inputs = frozenset(tuple(tensor.shape) for tensor in nested_tensors((args, kwargs)))
            shapes = {key: tuple(value.shape) for key, value in tensors_of(output).items()}
            runs[path, counts[path]] = Run(path, counts[path], inputs, shapes)

        return hook

    handles = [
        module.register_forward_hook(hook_for(path), with_kwargs=True)
        for path, module in net.named_modules()
        if path
    ]
    try:
        run_on_meta(net, batch)
    finally:
        for handle in handles:
            handle.remove()
    return runs


def tensors_of(output: Any) -> dict[int | str | None, Tensor]:
    """Return the distinct tensors of a module's output by index or key; a single tensor has the key None."""
    if isinstance(output, Tensor):
        return {None: output}
    if isinstance(output, list | tuple):
        output = dict(enumerate(output))
    items = output.items() if isinstance(output, Mapping) else ()
    found: dict[int | str | None, Tensor] = {}
    for key, value in items:
        if isinstance(value, Tensor) and not any(value is other for other in found.values()):
            found[key] = value
    return found


def nested_tensors(value: Any) -> list[Tensor]:
    """Return all tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    items = value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in nested_tensors(item)]
