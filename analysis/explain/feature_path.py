"""Which convolution computes which channel of what every other convolution reads: the way back through a
network.

The network runs once on shapes alone (the meta device), and every tensor carries its channels' provenance: a
tuple of segments (convolution, first row, end). Norms, rectifiers and pooling hand it on, a concatenation
puts segments side by side, a sum of two branches belongs to the deeper one (the residual branch, not the
shortcut), and of a product the larger factor counts (the maps, not the gate). Where channels mix otherwise
(attention, flattened maps) the way back ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from static_dynamic.errors import UserError
from static_dynamic.models.stages import VideoNetwork

# (convolution, first row, end); the convolution is None where nobody knows
Segment = tuple[str | None, int, int]
# channels from these are no channels of what goes in
MIXERS = {"convolution", "mm", "bmm", "addmm", "baddbmm", "matmul", "einsum"}


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer: its outputs, whence its input channels come, and how deep it stands."""

    name: str
    rows: int
    inputs: tuple[Segment, ...]
    depth: int
    size: tuple[int, ...]  # of its output's maps
    padding: tuple[int, ...] = ()  # of its input, by an operator of its own: as ``F.pad`` takes it

    @property
    def sources(self) -> list[str]:
        """Layers that compute its input, in order."""
        return list(dict.fromkeys(name for name, *_ in self.inputs if name))


@dataclass(frozen=True)
class MapTap:
    """Where to read a layer's maps as later layers see them: the ``call``-th output of a module, or one
    element of it, from channel ``start`` on."""

    module: str
    call: int
    select: int | None
    start: int

    def read(self, output, rows: int) -> Tensor:
        """The maps of one clip, (rows, T, H, W)."""
        maps = output if self.select is None else list(_elements(output))[self.select]
        return maps[0, self.start : self.start + rows].clone()  # what follows may work in place


@dataclass
class FeaturePath:
    """The way back from the classifier, level by level.

    Level 1 holds the layers that compute the classifier's features, level 2 those that these read, and so
    on; kernels of a level are numbered through, layer after layer. A layer whose neighbours' branches hold
    a convolution parallel to it (of the same input) waits for that one: its kernels are their own children.
    """

    layers: dict[str, Layer]
    classifier: str
    taps: dict[str, MapTap]
    outputs: dict[str, list[tuple[Segment, ...]]]  # module -> channels of each tensor that it returns
    levels: list[list[str]] = field(init=False)

    def __post_init__(self):
        self.levels = [[self.classifier]]

    def level(self, number: int) -> list[str]:
        """Layers of a level (0 is the classifier); none beyond the network's first convolutions."""
        while len(self.levels) <= number:
            self.levels.append(self._below(self.levels[-1]))
        return self.levels[number]

    def waiting(self, number: int) -> set[str]:
        """Layers of a level that stay where they are in the next."""
        return self._waiting(self.level(number))

    def offsets(self, number: int) -> dict[str, int]:
        """Number of the first kernel of each layer of a level."""
        names = self.level(number)
        starts = accumulate((self.layers[name].rows for name in names), initial=0)
        return dict(zip(names, starts, strict=False))

    @property
    def depth(self) -> int:
        """How many levels of features there are."""
        number = 0
        while self.level(number + 1) and number < len(self.layers):  # modules called twice make loops
            number += 1
        return number

    def _below(self, names: list[str]) -> list[str]:
        waiting = self._waiting(names)
        below = ([name] if name in waiting else self.layers[name].sources for name in names)
        return list(dict.fromkeys(source for sources in below for source in sources))

    def _waiting(self, names: list[str]) -> set[str]:
        parallel = {
            self.layers[source].inputs: name for name in names for source in self.layers[name].sources
        }
        return {n for n in names if self.layers[n].inputs and parallel.get(self.layers[n].inputs, n) != n}


def trace_path(net: VideoNetwork, inputs) -> FeaturePath:
    """Find the way back through `net` for `inputs` (what ``net.prepare`` returns); nothing is computed.

    Raises
    ------
    UserError
        Where the classifier reads no feature maps of 3D convolutions.
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
    (top, *more) = tracer.segments(output) or ((None, 0, 0),)
    features = tracer.layers[top[0]].inputs if top[0] and not more else ()
    convolutions = {n for n, m in net.named_modules() if isinstance(m, nn.Conv3d)}
    if not features or not {name for name, *_ in features} <= convolutions:
        raise UserError(
            f"{type(net).__name__}: class feature pyramids go back through 3D convolutions, and this "
            "network's classifier reads no feature maps of such: take a convolutional network (c2d, i3d, "
            "slow, slowfast, x3d, i3d_inception, cfp_...)"
        )
    return FeaturePath(tracer.layers, top[0], tracer.taps, tracer.outputs)


class _Tracer(TorchDispatchMode):
    """Keeps the provenance of every tensor's channels: which axis they are on, and their segments."""

    def __init__(self):
        super().__init__()
        self.known: dict[int, tuple[Tensor, int, tuple[Segment, ...]]] = {}  # by id; the tensor stays alive
        self.layers: dict[str, Layer] = {}
        self.taps: dict[str, MapTap] = {}
        self.outputs: dict[str, list[tuple[Segment, ...]]] = {}
        self.padding: dict[int, tuple[int, ...]] = {}  # by id, as `known`
        self.calls: dict[str, int] = {}

    def segments(self, x: Tensor, axis: int | None = None) -> tuple[Segment, ...]:
        _, where, segments = self.known.get(id(x), (None, None, ()))
        return segments if axis is None or where == axis else ()

    def depth(self, segments: Iterable[Segment]) -> int:
        return max((self.layers[name].depth for name, *_ in segments if name), default=0)

    def hook(self, name: str):
        def after(module: nn.Module, args: tuple, output):
            self.calls[name] = self.calls.get(name, 0) + 1
            if isinstance(module, nn.Conv3d | nn.Linear):
                axis = 1 if isinstance(module, nn.Conv3d) else output.dim() - 1
                inputs, rows = self.segments(args[0], axis), output.shape[axis]
                size, padding = tuple(output.shape[2:]), self.padding.get(id(args[0]), ())
                self.layers[name] = Layer(name, rows, inputs, self.depth(inputs) + 1, size, padding)
                self.known[id(output)] = (output, axis, ((name, 0, rows),))
            self.outputs[name] = [self.segments(x, 1) for x in _elements(output)]
            # pooling blurs maps; its input is there too
            for i, x in enumerate(() if "Pool" in type(module).__name__ else _elements(output)):
                start = 0
                for source, first, end in self.segments(x, 1):
                    layer = self.layers.get(source)
                    if layer and (first, end) == (0, layer.rows) and layer.size == tuple(x.shape[2:]):
                        select = None if isinstance(output, Tensor) else i
                        self.taps[source] = MapTap(name, self.calls[name], select, start)
                    start += end - first

        return after

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        sources = [x for x in tree_leaves(args) if isinstance(x, Tensor) and id(x) in self.known]
        if sources and name not in MIXERS:
            # of two factors or terms the larger, then the deeper
            sources.sort(key=lambda x: (x.numel(), self.depth(self.segments(x))), reverse=True)
            for i, x in enumerate(_elements(output)):
                found = next(
                    filter(None, (self._follow(name, args, source, x, i) for source in sources)), None
                )
                if found:
                    self.known[id(x)] = (x, *found)
                    if name == "constant_pad_nd":
                        self.padding[id(x)] = tuple(args[1])
        return output

    def _follow(self, name: str, args: tuple, source: Tensor, x: Tensor, i: int):
        """Axis and segments of `x`, the `i`-th output, where they are told by `source`."""
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
            where, first = SLICES[name](args, x, i)
            if where % source.dim() == axis:
                return axis, tuple(_cut(segments, first, first + x.shape[axis]))
        same = x.dim() == source.dim() and x.shape[axis] == source.shape[axis]
        return (axis, segments) if same else None


def _elements(output) -> Iterator[Tensor]:
    return (x for x in tree_leaves(output) if isinstance(x, Tensor))


def _joined(segments: Iterable[Segment]) -> list[Segment]:
    """Neighbours of one convolution as one."""
    joined: list[Segment] = []
    for name, first, end in segments:
        if joined and joined[-1][0] == name and joined[-1][2] == first:
            joined[-1] = (name, joined[-1][1], end)
        else:
            joined.append((name, first, end))
    return joined


def _cut(segments: Iterable[Segment], first: int, end: int) -> Iterator[Segment]:
    """Channels `first` to `end` of them."""
    for name, a, b in segments:
        low, high = max(first, 0), min(end, b - a)
        if low < high:
            yield name, a + low, a + high
        first, end = first - (b - a), end - (b - a)


def _permuted(args, source, x, axis):
    return [d % x.dim() for d in args[1]].index(axis)


def _swapped(args, source, x, axis):
    a, b = (d % x.dim() for d in (args[1:] or (0, 1)))
    return {a: b, b: a}.get(axis, axis)


def _viewed(args, source, x, axis):
    """The axis with as many places in front of it, if the channels are still whole there."""
    before = source.shape[:axis].numel()
    axes = (d for d in range(x.dim()) if x.shape[:d].numel() == before)
    return next((d for d in axes if x.shape[d] == source.shape[axis]), None)


def _reduced(args, source, x, axis):
    if len(args) < 2 or args[1] is None:
        return None
    gone = {d % source.dim() for d in ([args[1]] if isinstance(args[1], int) else args[1])}
    if axis in gone:
        return None
    return axis if x.dim() == source.dim() else axis - sum(d < axis for d in gone)


def _slice_start(args: tuple) -> int:
    """Where a slice begins; one counted from the end is given as it was typed."""
    first = (args[2] if len(args) > 2 else None) or 0
    return max(first + args[0].shape[args[1]], 0) if first < 0 else first


# operators that move the axis of the channels -> where to
MOVES = {
    "permute": _permuted,
    "transpose": _swapped,
    "t": _swapped,
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze"), _viewed),
    **dict.fromkeys(("mean", "sum", "amax", "select"), _reduced),
}

# operators that change the order of places, or leave out some between -> whether they do so with channels
PICKS = {
    "flip": lambda args, source, axis: axis in {d % source.dim() for d in args[1]},
    "roll": lambda args, source, axis: len(args) < 3 or axis in {d % source.dim() for d in args[2]},
    "slice": lambda args, source, axis: len(args) > 4 and args[4] != 1 and args[1] % source.dim() == axis,
    "index_select": lambda args, source, axis: args[1] % source.dim() == axis,
    "index": lambda args, source, axis: axis < len(args[1]) and args[1][axis] is not None,
}
# operators that take a stretch of an axis -> which axis, and the first place
SLICES = {
    "slice": lambda args, x, i: (args[1] if len(args) > 1 else 0, _slice_start(args)),
    "split": lambda args, x, i: (args[2] if len(args) > 2 else 0, i * args[1]),
    "split_with_sizes": lambda args, x, i: (args[2] if len(args) > 2 else 0, sum(args[1][:i])),
}
