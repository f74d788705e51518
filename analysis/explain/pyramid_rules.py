"""Link the kernels of one pyramid level to kernels of the next level, by one of two sets of rules.

Let w be the weights of a kernel and a the input activations of its layer, both averaged over time and space.
For each input channel c of the kernel, p_c = w_c * a_c. The channels with
(p_c - min p) / (max p - min p) >= theta are the kernel's children. Children do not depend on the path from
the class to the kernel, so each kernel is computed once.

``corrected``: a kernel of a grouped convolution reads the channels of its group, and a branch reads its own
input, as in the network. If all p_c of a kernel are equal, all channels are children; if all p_c are 0,
the kernel has no children.

``original``: the published code of Stergiou et al. ("Class Feature Pyramids for Video Explanation", ICCVW
2019). That code works on lists of convolutions and activations from its networks, and has these flaws:

* p is first divided by its sum, which reverses the order of the channels if the sum is negative;
* with groups, each averaged weight is repeated for neighbouring channels, whatever the group of the kernel;
* with parallel convolutions, children are numbered within their branch but used as numbers over all branches;
* a branch without a second convolution gets weights of 1;
* some activations are not the convolution's input (MFNet: taken before normalization and ReLU; ResNeXt: of
  another layer);
* feature maps are taken from the layer before the one whose channel numbers select them.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from static_dynamic.analysis.explain.feature_path import FeaturePath, trace_path
from static_dynamic.errors import UserError
from static_dynamic.models.stages import VideoNetwork

# Links from one level to the next: an array of parent kernels, one of child kernels, one of strengths.
Links = tuple[NDArray, NDArray, NDArray]
NO_LINKS: Links = (np.empty(0, int), np.empty(0, int), np.empty(0, np.float32))


def pooled(x: Tensor) -> NDArray:
    """Average a tensor over all axes after the second, which are time and space; return a 2D array."""
    x = x.flatten(2).mean(dim=2) if x.dim() > 2 else x
    return x.detach().float().cpu().numpy()


def class_scores(weight: Tensor) -> NDArray:
    """Return the classifier's weights, scaled to [0, 1], as an array of shape (features, classes)."""
    weight = weight.detach().flatten(1).T.float()
    low, high = weight.min(), weight.max()
    return ((weight - low) / (high - low)).cpu().numpy()


def clip_size(inputs) -> tuple[int, int, int]:
    """Return (frames, height, width) of the longest input tensor; raise UserError for a batch of clips."""
    clips = [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    if any(x.shape[0] != 1 for x in clips):
        raise UserError(f"a class feature pyramid needs one clip, but this batch has {clips[0].shape[0]}")
    frames, height, width = max(tuple(x.shape[2:]) for x in clips)
    return frames, height, width


def check_depth(depth: int, limit: int) -> None:
    """Raise UserError unless `depth` is a whole number from 1 to `limit`, the number of possible levels."""
    if not (isinstance(depth, int) and 1 <= depth <= limit):
        raise UserError(f"depth={depth}: this network's pyramids have 1 to {limit} levels")


def original_lists(net: VideoNetwork) -> tuple[list[tuple], list[tuple]]:
    """Return the lists of convolutions and of activations that Stergiou et al.'s code uses for a network."""
    lists = getattr(net, "original_lists", None)
    if lists is None:
        raise UserError(
            "rules=original works only for the networks of Stergiou et al.'s code (cfp_...), not for "
            f"{type(net).__name__}: give rules=corrected"
        )
    return lists()


def weight_of(net: VideoNetwork, name: str) -> Tensor:
    """Return the weight tensor of the layer `name`."""
    weight = net.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def count_classes_and_levels(net: VideoNetwork, path: FeaturePath | None) -> tuple[int, int]:
    """Return (number of classes, number of pyramid levels) of a network; `path`: None for rules=original."""
    if path:
        return len(weight_of(net, path.classifier)), path.depth
    kernels, taps = original_lists(net)
    # the last tap is the classifier, which is not counted as a level
    return len(weight_of(net, kernels[-1][0])), len(taps) - 1


class Corrected:
    """Activations of one clip; kernels are selected along the network's connections (rules=corrected)."""

    def __init__(self, net: VideoNetwork, inputs, depth: int, path: FeaturePath | None = None):
        self.net = net
        self.path = path or trace_path(net, inputs)
        self.size = clip_size(inputs)
        check_depth(depth, self.path.depth)
        self.class_scores = class_scores(weight_of(net, self.path.classifier))
        # Layer -> its input feature maps (channels, T, H, W).
        self.inputs: dict[str, Tensor] = {}
        # Layer -> its output feature maps (channels, T, H, W), as later layers receive them.
        self.maps: dict[str, Tensor] = {}
        waiting = {n for level in range(1, depth) for n in self.path.waiting(level)}
        readers = {n for level in range(1, depth) for n in self.path.level(level)}
        with ExitStack() as stack:
            for name in readers:
                hook = net.get_submodule(name).register_forward_pre_hook(self._keep_input(name))
                stack.callback(hook.remove)
            for name in {*self.path.level(1), *waiting}:
                tap = self.path.taps[name]
                hook = net.get_submodule(tap.module).register_forward_hook(self._keep_map(name))
                stack.callback(hook.remove)
            with torch.inference_mode():
                self.logits = net(inputs).flatten(1)[0].float()
        self.means = {name: pooled(x[None])[0] for name, x in self.inputs.items()}
        self.kernels = {name: pooled(weight_of(net, name)) for name in self.inputs}
        self.sources = [self._sources(level) for level in range(depth)]

    def _keep_input(self, name: str):
        padding = self.path.layers[name].padding

        def hook(module, args):
            x = args[0].movedim(-1, 1)[0] if isinstance(module, nn.Linear) else args[0][0]
            # remove the zeros that a padding operator added
            if padding:
                x = nn.functional.pad(x, [-side for side in padding])
            # a copy, because later layers may overwrite x
            self.inputs[name] = x.clone()

        return hook

    def _keep_map(self, name: str):
        tap, calls = self.path.taps[name], count(1)

        def hook(module, args, output):
            if next(calls) == tap.call:
                self.maps[name] = tap.read(output, self.path.layers[name].rows)

        return hook

    def _sources(self, level: int) -> dict[str, NDArray]:
        """Return, for each layer, the numbers of the kernels that compute its input channels; -1: unknown."""
        offsets = self.path.offsets(level + 1)
        sources = {}
        for name in self.path.level(level):
            layer = self.path.layers[name]
            segments = [(name, 0, layer.rows)] if name in self.path.waiting(level) else layer.inputs
            parts = [
                offsets[source] + np.arange(first, end) if source else np.full(end - first, -1)
                for source, first, end in segments
            ]
            sources[name] = np.concatenate(parts) if parts else np.empty(0, int)
        return sources

    def features(self) -> NDArray:
        """Return, for each feature of the classifier, the number of the level-1 kernel that computes it."""
        return self.sources[0][self.path.classifier]

    def step(self, level: int, units: NDArray, theta: float) -> Links:
        """Link each kernel of `units` to next-level kernels whose scaled contribution is at least theta."""
        links = []
        for name, start in self.path.offsets(level).items():
            rows = units[(units >= start) & (units < start + self.path.layers[name].rows)] - start
            if len(rows):
                parent, child, strength = self._step(level, name, rows, theta)
                links.append((parent + start, child, strength))
        return concatenated(links)

    def _step(self, level: int, name: str, rows: NDArray, theta: float) -> Links:
        """Link output channels `rows` of one layer to the kernels that compute the layer's input channels."""
        sources = self.sources[level][name]
        if name in self.path.waiting(level):
            return rows, sources[rows], np.ones(len(rows), np.float32)
        if not len(sources):
            return NO_LINKS
        # shape: (kernels, input channels per group)
        kernels = self.kernels[name][rows]
        width = kernels.shape[1]
        groups = len(sources) // width
        group = rows // (self.path.layers[name].rows // groups)
        scores = normalised(kernels * self.means[name].reshape(groups, width)[group])
        row, channel = np.nonzero(scores >= theta)
        child = sources[group[row] * width + channel]
        known = child >= 0
        return rows[row[known]], child[known], scores[row, channel][known]

    def name(self, level: int, units: NDArray) -> tuple[list[str], NDArray]:
        """Return two sequences: the layer and the output channel of each kernel number in `units`."""
        offsets = self.path.offsets(level)
        names, starts = list(offsets), np.array(list(offsets.values()))
        which = np.searchsorted(starts, units, side="right") - 1
        return [names[w] for w in which], units - starts[which]

    def sum_maps(self, level: int, unit: int, children: NDArray) -> Tensor:
        """Sum the input channels of kernel `unit` that the kernels `children` compute; return (T, H, W)."""
        # The classifier reads pooled maps, which have no positions: use the maps before the pooling.
        if level == 0:
            maps = [self.maps[n][c] for n, c in zip(*self.name(1, children), strict=True)]
            return sum_resized(maps, self.size)
        (name,), row = self.name(level, np.array([unit]))
        if name in self.path.waiting(level):
            return self.maps[name][int(row[0])]
        channels = np.flatnonzero(np.isin(self.sources[level][name], children))
        return self.inputs[name][channels].sum(dim=0)


def concatenated(links: Iterable[Links]) -> Links:
    """Concatenate the links of several layers; return empty arrays if there are no links."""
    parent, child, strength = (np.concatenate(part) for part in zip(NO_LINKS, *links, strict=True))
    return parent, child, strength


def normalised(products: NDArray) -> NDArray:
    """Scale each row to [0, 1]; a constant row becomes -1 if the constant is 0, and 1 otherwise."""
    low, high = products.min(axis=1, keepdims=True), products.max(axis=1, keepdims=True)
    equal = np.where(products != 0, np.float32(1), np.float32(-1))
    return np.divide(products - low, high - low, out=equal, where=high > low)


def sum_resized(maps: Sequence[Tensor], size: tuple[int, int, int]) -> Tensor:
    """Resize feature maps (T, H, W) to the largest of their sizes; return the sum (no maps: zeros)."""
    if not maps:
        return torch.zeros(size)
    shape = [max(sides) for sides in zip(*(m.shape for m in maps), strict=True)]
    resized = [nn.functional.interpolate(m[None, None], shape)[0, 0] for m in maps]
    return torch.stack(resized).sum(dim=0)


class Original:
    """Activations of one clip; kernels are selected as in Stergiou et al.'s code (rules=original).

    The entries of the lists go from the input to the classifier, whose own entry is left out. Each entry has
    the weights `kernels` of its parallel convolutions, their `names`, and the `activations` (C, T, H, W). The
    weights of the `classifier` are (classes, features, ...).
    """

    def __init__(
        self,
        kernels: Sequence[Sequence[Tensor]],
        activations: Sequence[Tensor],
        names: Sequence[Sequence[str]],
        size: tuple[int, int, int],
        classifier: Tensor,
        logits: Tensor,
    ):
        self.activations, self.names, self.size, self.logits = activations, names, size, logits
        self.kernels = [[pooled(weight) for weight in entry] for entry in kernels]
        self.means = [pooled(a[None])[0] for a in activations]
        self.class_scores = class_scores(classifier)

    @classmethod
    def read(cls, net: VideoNetwork, inputs, depth: int, path: FeaturePath | None = None) -> Self:
        """Run a network of Stergiou et al.'s code on one clip and keep the activations; `path` is unused."""
        kernels, taps = original_lists(net)
        taps = taps[:-1]
        check_depth(depth, len(taps))
        outputs: dict[str, Tensor] = {}

        def keep(name: str):
            return lambda module, args, output: outputs.update({name: output[0].clone()})

        # Kernels are selected by activations of the last `depth` layers; summing maps needs one more layer.
        wanted = taps[-depth - 1 :]
        with ExitStack() as stack:
            for name in {name for entry in wanted for name in entry}:
                stack.callback(net.get_submodule(name).register_forward_hook(keep(name)).remove)
            for name in getattr(net, "original_skips", ()):
                skip = net.get_submodule(name).register_forward_hook(lambda module, args, output: args[0])
                stack.callback(skip.remove)
            with torch.inference_mode():
                logits = net(inputs).flatten(1)[0].float()
        activations = [torch.cat([outputs[name] for name in entry]) for entry in wanted]

        def weight(kernel: str | int) -> Tensor:
            if isinstance(kernel, str):
                return weight_of(net, kernel)
            return torch.ones(kernel, kernel, 1, 1, 1, device=logits.device)

        *entries, (classifier,) = kernels
        entries = entries[-depth:]
        return cls(
            [[weight(kernel) for kernel in entry] for entry in entries],
            activations,
            [[k if isinstance(k, str) else "ones" for k in entry] for entry in entries],
            clip_size(inputs),
            weight(classifier),
            logits,
        )

    def features(self) -> NDArray:
        """Return, for each feature of the classifier, the number of the level-1 kernel that computes it."""
        return np.arange(len(self.class_scores))

    def step(self, level: int, units: NDArray, theta: float) -> Links:
        """Link each kernel of `units` to next-level kernels whose scaled contribution is at least theta."""
        if level > len(self.kernels) or level + 1 > len(self.means):
            raise UserError(f"level {level} is the last level with rules=original: give a smaller depth")
        entry, means = self.kernels[-level], self.means[-level - 1]
        inputs = [kernel.shape[1] for kernel in entry]
        repeats = len(means) // sum(inputs)
        links, start, first = [], 0, 0
        for every, width in zip(entry, inputs, strict=True):
            rows = units[(units >= start) & (units < start + len(every))] - start
            kernels = np.repeat(every[rows], max(repeats, 1), axis=1)
            read = means if len(entry) == 1 else means[first : first + width]
            if len(rows) and kernels.shape[1] != len(read):
                raise UserError(
                    f"rules=original fails at level {level}, as Stergiou et al.'s code does: kernels have "
                    f"{kernels.shape[1]} input channels but {len(read)} activations. Give a smaller depth "
                    "or rules=corrected"
                )
            if len(rows):
                with np.errstate(invalid="ignore", divide="ignore"):  # a NaN is not >= theta
                    # shape: (kernels, input channels)
                    products = kernels * read
                    products = products / products.sum(axis=1, keepdims=True)
                    low = products.min(axis=1, keepdims=True)
                    scores = (products - low) / (products.max(axis=1, keepdims=True) - low)
                    row, child = np.nonzero(scores >= theta)
                links.append((rows[row] + start, child, scores[row, child]))
            start, first = start + len(every), first + width
        if len(units) and units.max() >= start:
            raise UserError(f"level {level} has only {start} kernels, so there is no kernel {units.max()}")
        return concatenated(links)

    def name(self, level: int, units: NDArray) -> tuple[list[str], NDArray]:
        """Return two sequences: the convolution and the output channel of each kernel number in `units`."""
        starts = np.cumsum([0, *(len(every) for every in self.kernels[-level])])[:-1]
        which = np.searchsorted(starts, units, side="right") - 1
        return [self.names[-level][w] for w in which], units - starts[which]

    def sum_maps(self, level: int, unit: int, children: NDArray) -> Tensor:
        """Sum the maps `children` of the wrong layer, one layer too early, as Stergiou et al.'s code does."""
        if level + 2 > len(self.activations):
            return torch.full(self.activations[0].shape[1:], torch.nan)
        activation = self.activations[-level - 2]
        return activation[children[children < len(activation)]].sum(dim=0)


RULES: dict[str, Callable[..., Corrected | Original]] = {"corrected": Corrected, "original": Original.read}
