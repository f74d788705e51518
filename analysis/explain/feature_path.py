"""Find the convolution that computes each input channel of a layer.

The network runs once on the meta device, which computes shapes only. Every tensor carries the provenance of
its channels as a tuple of segments (convolution, first output channel, end). Normalization, activation
functions and pooling keep the provenance; a concatenation joins the segments of its parts. A sum takes the
provenance of its deeper term, which is the residual branch and not the shortcut. A product takes the
provenance of its larger factor, which is the feature maps and not the gate. Provenance ends at operations
that mix channels in other ways, such as attention.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from static_dynamic.errors import UserError
from static_dynamic.models.stages import VideoNetwork

# Consecutive channels of a tensor: (layer that computes them, or None; first channel; last channel + 1).
Segment = tuple[str | None, int, int]
# These operators mix input channels into each output channel, so channels cannot be traced through them.
MIXERS = {"convolution", "mm", "bmm", "addmm", "baddbmm", "matmul", "einsum"}


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: size, depth in the network, and origin of each input channel."""

    name: str
    # Number of output channels.
    rows: int
    inputs: tuple[Segment, ...]
    # 1 for the first layer of the network, larger for later layers.
    depth: int
    # Size (T, H, W) of the output.
    size: tuple[int, ...]
    # Numbers of zeros that ``F.pad`` added to the sides of the input before this layer.
    padding: tuple[int, ...] = ()

    @property
    def sources(self) -> list[str]:
        """Names of the layers that compute this layer's input, in the order of the input channels."""
        return list(dict.fromkeys(name for name, *_ in self.inputs if name))


@dataclass(frozen=True)
class MapTap:
    """The module output that holds a layer's feature maps as later layers receive them.

    The maps start at channel ``start`` of the output of the ``call``-th call of the module. If this output is
    a list or a dict, the maps are in tensor number ``select`` of the output.
    """

    module: str
    call: int
    select: int | None
    start: int

    def read(self, output, rows: int) -> Tensor:
        """Copy a layer's feature maps of one clip, shape (rows, T, H, W), from a module's output."""
        maps = output if self.select is None else list(_elements(output))[self.select]
        # Later layers may overwrite the output in place, so return a copy.
        return maps[0, self.start : self.start + rows].clone()


@dataclass
class FeaturePath:
    """The layers that feed a classifier, level by level from the classifier to the network's input.

    Level 1 holds the layers that compute the classifier's features, level 2 the layers that level 1 reads,
    and so on. The kernels of a level are numbered consecutively, layer after layer.

    Parallel branches can have different lengths. If a layer of a level has the same input as a layer that
    another layer of the level reads, the shorter branch waits: the next level holds the waiting layer too,
    in which each kernel of the waiting layer is its own child.
    """

    layers: dict[str, Layer]
    classifier: str
    taps: dict[str, MapTap]
    # Module -> for each output tensor, the layers that compute its channels.
    outputs: dict[str, list[tuple[Segment, ...]]]
    # For each level computed so far, the names of its layers.
    levels: list[list[str]] = field(init=False, default_factory=list)

    def level(self, number: int) -> list[str]:
        """Return the layers of a level; level 0 is the classifier, and levels beyond the input are empty."""
        while len(self.levels) <= number:
            self.levels.append(self._below(self.levels[-1]) if self.levels else [self.classifier])
        return self.levels[number]

    def waiting(self, number: int) -> set[str]:
        """Return the layers of a level that the next level repeats, because a parallel branch is longer."""
        return self._waiting(self.level(number))

    def offsets(self, number: int) -> dict[str, int]:
        """Return, for each layer of a level, the number of the layer's first kernel within the level."""
        names = self.level(number)
        starts = accumulate((self.layers[name].rows for name in names), initial=0)
        return dict(zip(names, starts, strict=False))

    @property
    def depth(self) -> int:
        """Number of levels, not counting level 0 (the classifier)."""
        number = 0
        # A module that is called twice could repeat levels without end: stop after as many levels as layers.
        while self.level(number + 1) and number < len(self.layers):
            number += 1
        return number

    def _below(self, names: list[str]) -> list[str]:
        """Return the layers of the next level: those that compute the inputs of the layers `names`."""
        waiting = self._waiting(names)
        below = ([name] if name in waiting else self.layers[name].sources for name in names)
        return list(dict.fromkeys(source for sources in below for source in sources))

    def _waiting(self, names: list[str]) -> set[str]:
        """Return the layers of `names` that the next level repeats, because a parallel branch is longer."""
        parallel = {self.layers[source].inputs: n for n in names for source in self.layers[n].sources}
        return {n for n in names if self.layers[n].inputs and parallel.get(self.layers[n].inputs, n) != n}


def trace_path(net: VideoNetwork, inputs) -> FeaturePath:
    """Find the layers that feed the classifier of `net`, by a forward pass that computes only shapes.

    `inputs`: what ``net.prepare`` returns, or meta tensors of the same shapes. Raises UserError if the
    classifier does not read feature maps of 3D convolutions.
    """
    with ExitStack() as stack:
        tracer = _Tracer()
        for name, module in net.named_modules():
            if name:
                stack.callback(module.register_forward_hook(tracer.hook(name)).remove)
        tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
        shapes = {key: torch.empty_like(value, device="meta") for key, value in tensors.items()}
        shadow = tree_map_only(Tensor, lambda x: torch.empty_like(x, device="meta"), inputs)
        with torch.no_grad(), tracer:
            output = torch.func.functional_call(net, shapes, (shadow,))
    ((classifier, *_), *others) = tracer.segments(output) or ((None, 0, 0),)
    features = tracer.layers[classifier].inputs if classifier and not others else ()
    convolutions = {n for n, m in net.named_modules() if isinstance(m, nn.Conv3d)}
    if not classifier or not features or not {name for name, *_ in features} <= convolutions:
        raise UserError(
            f"{type(net).__name__} has no class feature pyramid, because its classifier does not read "
            "feature maps of 3D convolutions: give a convolutional network (c2d, i3d, slow, slowfast, x3d, "
            "i3d_inception, cfp_...)"
        )
    return FeaturePath(tracer.layers, classifier, tracer.taps, tracer.outputs)


class _Tracer(TorchDispatchMode):
    """PyTorch dispatch mode that records each tensor's channel axis and which layers compute its channels."""

    def __init__(self) -> None:
        super().__init__()
        # Tensor id -> (tensor, channel axis, segments). The tensor is kept so that its id is not reused.
        self.known: dict[int, tuple[Tensor, int, tuple[Segment, ...]]] = {}
        self.layers: dict[str, Layer] = {}
        self.taps: dict[str, MapTap] = {}
        self.outputs: dict[str, list[tuple[Segment, ...]]] = {}
        # Id of a zero-padded tensor -> numbers of zeros added to its sides.
        self.padding: dict[int, tuple[int, ...]] = {}
        # Module -> number of calls so far.
        self.calls: dict[str, int] = {}

    def segments(self, x: Tensor, axis: int | None = None) -> tuple[Segment, ...]:
        """Return the segments of a tensor; empty if `axis` is given and is not the tensor's channel axis."""
        _, own_axis, segments = self.known.get(id(x), (None, None, ()))
        return segments if axis is None or own_axis == axis else ()

    def depth(self, segments: Iterable[Segment]) -> int:
        """Return the largest depth of the layers that compute the channels of `segments`."""
        return max((self.layers[name].depth for name, *_ in segments if name), default=0)

    def hook(self, name: str) -> Callable:
        """Return a forward hook that records which layers compute the output of the module `name`."""

        def after(module: nn.Module, args: tuple, output):
            self.calls[name] = self.calls.get(name, 0) + 1
            if isinstance(module, nn.Conv3d | nn.Linear):
                axis = 1 if isinstance(module, nn.Conv3d) else output.dim() - 1
                inputs, rows = self.segments(args[0], axis), output.shape[axis]
                size, padding = tuple(output.shape[2:]), self.padding.get(id(args[0]), ())
                self.layers[name] = Layer(name, rows, inputs, self.depth(inputs) + 1, size, padding)
                self.known[id(output)] = (output, axis, ((name, 0, rows),))
            self.outputs[name] = [self.segments(x, 1) for x in _elements(output)]
            # Feature maps are never read from the output of a pooling module, because pooling blurs the maps.
            for i, x in enumerate(() if "Pool" in type(module).__name__ else _elements(output)):
                start = 0
                for source, first, end in self.segments(x, 1):
                    layer = self.layers.get(source or "")
                    same_size = layer is not None and layer.size == tuple(x.shape[2:])
                    if layer and same_size and (first, end) == (0, layer.rows):
                        select = None if isinstance(output, Tensor) else i
                        self.taps[layer.name] = MapTap(name, self.calls[name], select, start)
                    start += end - first

        return after

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        sources = [x for x in tree_leaves(args) if isinstance(x, Tensor) and id(x) in self.known]
        if sources and name not in MIXERS:
            # Trace channels to the largest input tensor; of equally large ones, to that of the deepest layer.
            sources.sort(key=lambda x: (x.numel(), self.depth(self.segments(x))), reverse=True)
            for i, x in enumerate(_elements(output)):
                followed = (self._follow(name, args, source, x, i) for source in sources)
                found = next(filter(None, followed), None)
                if found:
                    self.known[id(x)] = (x, *found)
                    if name == "constant_pad_nd":
                        self.padding[id(x)] = tuple(args[1])
        return output

    def _follow(self, name: str, args: tuple, source: Tensor, x: Tensor, i: int):
        """Derive channel axis and provenance of output `x` from input `source`; return None if unknown."""
        _, axis, segments = self.known[id(source)]
        if name in PICKS and PICKS[name](args, source, axis):
            return None
        if name in MOVES:
            moved = MOVES[name](args, source, x, axis)
            return None if moved is None else (moved, segments)
        if name == "cat" and axis == (args[1] if len(args) > 1 else 0) % x.dim():
            parts = (self.segments(t, axis) or ((None, 0, t.shape[axis]),) for t in args[0])
            return axis, tuple(_joined(segment for part in parts for segment in part))
        if name in SLICES:
            sliced, first = SLICES[name](args, x, i)
            if sliced % source.dim() == axis:
                return axis, tuple(_cut(segments, first, first + x.shape[axis]))
        same = x.dim() == source.dim() and x.shape[axis] == source.shape[axis]
        return (axis, segments) if same else None


def _elements(output) -> Iterator[Tensor]:
    """Yield all tensors of a module's output, which is one tensor or nested lists and dicts of tensors."""
    return (x for x in tree_leaves(output) if isinstance(x, Tensor))


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    """Merge neighbouring segments (layer, first channel, end) that hold consecutive channels of one layer."""
    joined: list[Segment] = []
    for name, first, end in segments:
        if joined and joined[-1][0] == name and joined[-1][2] == first:
            joined[-1] = (name, joined[-1][1], end)
        else:
            joined.append((name, first, end))
    return joined


def _cut(segments: Iterable[Segment], first: int, end: int) -> Iterator[Segment]:
    """Yield the segments of the channels `first` to `end` - 1, given the `segments` of a whole tensor."""
    for name, a, b in segments:
        low, high = max(first, 0), min(end, b - a)
        if low < high:
            yield name, a + low, a + high
        first, end = first - (b - a), end - (b - a)


def _permuted(args, source, x, axis):
    """Return the number of the channel axis after the operator ``permute``."""
    return [d % x.dim() for d in args[1]].index(axis)


def _swapped(args, source, x, axis):
    """Return the number of the channel axis after the operator ``transpose``."""
    a, b = (d % x.dim() for d in (args[1:] or (0, 1)))
    return {a: b, b: a}.get(axis, axis)


def _viewed(args, source, x, axis):
    """Return the number of the channel axis after a reshape, or None if channels are split or merged."""
    before = source.shape[:axis].numel()
    axes = (d for d in range(x.dim()) if x.shape[:d].numel() == before)
    return next((d for d in axes if x.shape[d] == source.shape[axis]), None)


def _reduced(args, source, x, axis):
    """Return the number of the channel axis after a reduction (``mean``); None if this axis was reduced."""
    if len(args) < 2 or args[1] is None:
        return None
    gone = {d % source.dim() for d in ([args[1]] if isinstance(args[1], int) else args[1])}
    if axis in gone:
        return None
    return axis if x.dim() == source.dim() else axis - sum(d < axis for d in gone)


def _slice_start(args: tuple) -> int:
    """Return the first position of a slice; a negative start counts from the end of the axis."""
    first = (args[2] if len(args) > 2 else None) or 0
    return max(first + args[0].shape[args[1]], 0) if first < 0 else first


# Operator that may move the channel axis -> function that returns the new axis (None: channels mix).
MOVES = {
    "permute": _permuted,
    "transpose": _swapped,
    "t": _swapped,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze"), _viewed),
    **dict.fromkeys(("mean", "sum", "amax", "select"), _reduced),
}

# Operator that reorders or skips positions on an axis -> test whether that axis is the channel axis.
PICKS = {
    "flip": lambda args, source, axis: axis in {d % source.dim() for d in args[1]},
    "roll": lambda args, source, axis: len(args) < 3 or axis in {d % source.dim() for d in args[2]},
    "slice": lambda args, source, axis: len(args) > 4 and args[4] != 1 and args[1] % source.dim() == axis,
    "index_select": lambda args, source, axis: args[1] % source.dim() == axis,
    "index": lambda args, source, axis: axis < len(args[1]) and args[1][axis] is not None,
}
# Operator that cuts consecutive positions out of an axis -> function that returns (axis, first position).
SLICES = {
    "slice": lambda args, x, i: (args[1] if len(args) > 1 else 0, _slice_start(args)),
    "split": lambda args, x, i: (args[2] if len(args) > 2 else 0, i * args[1]),
    "split_with_sizes": lambda args, x, i: (args[2] if len(args) > 2 else 0, sum(args[1][:i])),
}
