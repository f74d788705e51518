"""One back-step of Class Feature Pyramids, over all kernels of a level at once, by two sets of rules.

A kernel i of a layer with weights w_i and input activation a of the clip, both averaged over time and space,
has a product p = w_i * a for each channel that it reads; the channels with (p - min p) / (max p - min p) >=
theta are its children. The children of a kernel do not depend on the path that led to it, so each is computed
once.

``corrected``: a kernel reads the channels of its group, a branch those of its own input, as the network is
wired. Where all products are alike, none is weaker than the strongest: all are children, unless all are zero.

``original`` (Stergiou et al., "Class Feature Pyramids for Video Explanation", ICCVW 2019, as published code)
keeps that code's flaws, from the lists of convolutions and activations that its networks return:

* p is divided by its sum first, which turns the order round where the sum is negative;
* with groups, each averaged weight is repeated for neighbouring channels, whatever group the kernel is in;
* of parallel convolutions, children are numbered within their branch, and read as numbers of all branches;
* a branch without a second convolution has ones for weights;
* some activations are not what the convolution reads (MFNet: before norm and ReLU; ResNeXt: another layer's);
* maps are taken one layer deeper than the channels whose numbers they go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from static_dynamic.analysis.explain.feature_path import FeaturePath, trace_path
from static_dynamic.errors import UserError
from static_dynamic.models.stages import VideoNetwork

# kernels, their children and how strong each is, link by link
Links = tuple[NDArray, NDArray, NDArray]
NO_LINKS: Links = (np.empty(0, int), np.empty(0, int), np.empty(0, np.float32))


def pooled(x: Tensor) -> NDArray:
    """Average over time and space: (A, B, t, h, w) -> (A, B); nothing where there is neither."""
    x = x.flatten(2).mean(dim=2) if x.dim() > 2 else x
    return x.detach().float().cpu().numpy()


def class_scores(weight: Tensor) -> NDArray:
    """Weights of the classifier (classes, features) as (features, classes), scaled over all to 0 .. 1."""
    weight = weight.detach().flatten(1).T.float()
    low, high = weight.min(), weight.max()
    return ((weight - low) / (high - low)).cpu().numpy()


def clip_size(inputs) -> tuple[int, int, int]:
    """Frames, height and width of the clip; of several pathways the one that sees most frames counts."""
    clips = [x for x in tree_leaves(inputs) if isinstance(x, Tensor)]
    if any(x.shape[0] != 1 for x in clips):
        raise UserError(f"a class feature pyramid is of one clip; this batch has {clips[0].shape[0]}")
    return max(tuple(x.shape[2:]) for x in clips)


def check_depth(depth: int, limit: int) -> None:
    """Refuse what lies outside the network."""
    if not (isinstance(depth, int) and 1 <= depth <= limit):
        raise UserError(f"depth={depth}: this network's pyramids have 1 to {limit} levels")


def original_lists(net: VideoNetwork) -> tuple[list[tuple], list[tuple]]:
    """What the original's network of that name returns; refuses networks that it has not got."""
    if not hasattr(net, "original_lists"):
        raise UserError(
            f"rules=original are those of the original's own networks (cfp_...), and {type(net).__name__}"
            " is none of them: rules=corrected"
        )
    return net.original_lists()


def count_classes(net: VideoNetwork, rules: str, path: FeaturePath | None) -> int:
    """Number of classes; `path` is needed for the corrected rules alone."""
    name = path.classifier if rules == "corrected" else original_lists(net)[0][-1][0]
    return len(net.get_submodule(name).weight)


def count_levels(net: VideoNetwork, rules: str, path: FeaturePath | None) -> int:
    """How deep pyramids may be; `path` is needed for the corrected rules alone."""
    # the last entry is the classifier's
    return path.depth if rules == "corrected" else len(original_lists(net)[1]) - 1


class Corrected:
    """A clip's activations along the way back through the network, and the wiring."""

    def __init__(self, net: VideoNetwork, inputs, depth: int, path: FeaturePath | None = None):
        self.net = net
        self.path = path or trace_path(net, inputs)
        self.size = clip_size(inputs)
        check_depth(depth, self.path.depth)
        self.class_scores = class_scores(net.get_submodule(self.path.classifier).weight)
        self.inputs: dict[str, Tensor] = {}  # layer -> what it reads, (C, T, H, W)
        self.maps: dict[str, Tensor] = {}  # layer -> its maps as others see them, (rows, T, H, W)
        stays = {n for level in range(1, depth) for n in self.path.waiting(level)}
        readers = {n for level in range(1, depth) for n in self.path.level(level)}
        with ExitStack() as stack:
            for name in readers:
                hook = net.get_submodule(name).register_forward_pre_hook(self._keep_input(name))
                stack.callback(hook.remove)
            for name in {*self.path.level(1), *stays}:
                tap = self.path.taps[name]
                hook = net.get_submodule(tap.module).register_forward_hook(self._keep_map(name))
                stack.callback(hook.remove)
            with torch.inference_mode():
                self.logits = net(inputs).flatten(1)[0].float()
        self.means = {name: pooled(x[None])[0] for name, x in self.inputs.items()}
        self.kernels = {name: pooled(net.get_submodule(name).weight) for name in self.inputs}
        self.wires = [self._wires(level) for level in range(depth)]

    def _keep_input(self, name: str):
        padding = self.path.layers[name].padding

        def hook(module, args):
            x = args[0].movedim(-1, 1)[0] if isinstance(module, nn.Linear) else args[0][0]
            if padding:  # zeros around maps are no part of them
                x = nn.functional.pad(x, [-side for side in padding])
            self.inputs[name] = x.clone()  # what follows may work in place

        return hook

    def _keep_map(self, name: str):
        tap, calls = self.path.taps[name], count(1)

        def hook(module, args, output):
            if next(calls) == tap.call:
                self.maps[name] = tap.read(output, self.path.layers[name].rows)

        return hook

    def _wires(self, level: int) -> dict[str, NDArray]:
        """For each layer of a level, the numbers in the next of the channels that it reads; -1: unknown."""
        offsets = self.path.offsets(level + 1)
        wires = {}
        for name in self.path.level(level):
            layer = self.path.layers[name]
            segments = [(name, 0, layer.rows)] if name in self.path.waiting(level) else layer.inputs
            parts = [
                offsets[source] + np.arange(first, end) if source else np.full(end - first, -1)
                for source, first, end in segments
            ]
            wires[name] = np.concatenate(parts) if parts else np.empty(0, int)
        return wires

    def features(self) -> NDArray:
        """Number in level 1 of each of the classifier's features."""
        return self.wires[0][self.path.classifier]

    def step(self, level: int, units: NDArray, theta: float) -> Links:
        """Children in level + 1 of some kernels of a level."""
        found = [self._step(level, name, rows, theta) for name, rows in self._by_layer(level, units)]
        return tuple(np.concatenate(part) for part in zip(NO_LINKS, *found, strict=True))

    def _by_layer(self, level: int, units: NDArray):
        for name, start in self.path.offsets(level).items():
            rows = units[(units >= start) & (units < start + self.path.layers[name].rows)] - start
            if len(rows):
                yield name, rows

    def _step(self, level: int, name: str, rows: NDArray, theta: float) -> Links:
        start, wires = self.path.offsets(level)[name], self.wires[level][name]
        if name in self.path.waiting(level):
            return rows + start, wires[rows], np.ones(len(rows), np.float32)
        if not len(wires):
            return NO_LINKS
        kernels = self.kernels[name][rows]  # (R, inputs of one group)
        width = kernels.shape[1]
        groups = len(wires) // width
        group = rows // (self.path.layers[name].rows // groups)
        scores = normalised(kernels * self.means[name].reshape(groups, width)[group])
        row, channel = np.nonzero(scores >= theta)
        child = wires[group[row] * width + channel]
        known = child >= 0
        return rows[row[known]] + start, child[known], scores[row, channel][known]

    def name(self, level: int, units: NDArray) -> tuple[list[str], NDArray]:
        """Layer of each of some kernels of a level, and number within that layer."""
        offsets = self.path.offsets(level)
        names, starts = list(offsets), np.array(list(offsets.values()))
        which = np.searchsorted(starts, units, side="right") - 1
        return [names[w] for w in which], units - starts[which]

    def map(self, level: int, unit: int, children: NDArray) -> Tensor:
        """Sum of the activation maps of a kernel's children, as that kernel reads them: (T, H, W)."""
        if level == 0:  # what the classifier reads is pooled
            maps = [self.maps[n][c] for n, c in zip(*self.name(1, children), strict=True)]
            return largest_first(maps, self.size)
        (name,), row = self.name(level, np.array([unit]))
        if name in self.path.waiting(level):
            return self.maps[name][int(row[0])]
        channels = np.flatnonzero(np.isin(self.wires[level][name], children))
        return self.inputs[name][channels].sum(dim=0)


def normalised(products: NDArray) -> NDArray:
    """Each row from its smallest to its largest value, 0 to 1; a row of one value is 1, one of zeros -1."""
    low, high = products.min(axis=1, keepdims=True), products.max(axis=1, keepdims=True)
    alike = np.where(products != 0, np.float32(1), np.float32(-1))
    return np.divide(products - low, high - low, out=alike, where=high > low)


def largest_first(maps: Sequence[Tensor], size: tuple[int, int, int]) -> Tensor:
    """Sum of maps of several sizes (pathways) at the largest of them; zeros where there are none."""
    if not maps:
        return torch.zeros(size)
    shape = [max(sides) for sides in zip(*(m.shape for m in maps), strict=True)]
    grown = (
        m if list(m.shape) == shape else torch.nn.functional.interpolate(m[None, None], shape)[0, 0]
        for m in maps
    )
    return torch.stack(list(grown)).sum(dim=0)


class Original:
    """The lists that the original's networks return for a clip, without their last entries.

    Parameters
    ----------
    kernels
        Entry by entry, the weights of its parallel convolutions.
    activations
        Entry by entry, (C, T, H, W).
    names
        Entry by entry, the names of its convolutions.
    classifier
        Its weights, (classes, features, ...).
    """

    def __init__(
        self,
        kernels: Sequence[Sequence[Tensor]],
        activations: Sequence[Tensor],
        names: Sequence[Sequence[str]],
        size: tuple[int, int, int],
        classifier: Tensor | None = None,
        logits: Tensor | None = None,
    ):
        self.activations, self.names, self.size, self.logits = activations, names, size, logits
        self.kernels = [[pooled(weight) for weight in entry] for entry in kernels]
        self.means = [pooled(a[None])[0] for a in activations]
        self.class_scores = None if classifier is None else class_scores(classifier)

    @classmethod
    def read(cls, net: VideoNetwork, inputs, depth: int, path: FeaturePath | None = None) -> Original:
        """Run a network of the original as that does."""
        kernels, taps = original_lists(net)
        taps = taps[:-1]
        check_depth(depth, len(taps))
        outputs: dict[str, Tensor] = {}

        def keep(name: str):
            return lambda module, args, output: outputs.update({name: output[0].clone()})

        # the back-step reads the entries up to -depth, the maps one more
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
                return net.get_submodule(kernel).weight
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
        """Number in level 1 of each of the classifier's features."""
        return np.arange(len(self.class_scores))

    def step(self, level: int, units: NDArray, theta: float) -> Links:
        """Children in level + 1 of some kernels of a level."""
        if level > len(self.kernels) or level + 1 > len(self.means):
            raise UserError(f"level {level} has no level before it in the original's lists")
        entry, means = self.kernels[-level], self.means[-level - 1]
        inputs = [kernel.shape[1] for kernel in entry]
        repeats = len(means) // sum(inputs)
        found, start, first = [NO_LINKS], 0, 0
        for every, width in zip(entry, inputs, strict=True):
            rows = units[(units >= start) & (units < start + len(every))] - start
            kernels = np.repeat(every[rows], max(repeats, 1), axis=1)
            read = means if len(entry) == 1 else means[first : first + width]
            if len(rows) and kernels.shape[1] != len(read):
                raise UserError(
                    f"rules=original fail at level {level}, as the original does: kernels of "
                    f"{kernels.shape[1]} inputs meet {len(read)} channels: take less depth or rules=corrected"
                )
            if len(rows):
                with np.errstate(invalid="ignore", divide="ignore"):  # what is not a number is no child
                    products = kernels * read  # (R, C)
                    products = products / products.sum(axis=1, keepdims=True)
                    low = products.min(axis=1, keepdims=True)
                    scores = (products - low) / (products.max(axis=1, keepdims=True) - low)
                    row, child = np.nonzero(scores >= theta)
                found.append((rows[row] + start, child, scores[row, child]))
            start, first = start + len(every), first + width
        if len(units) and units.max() >= start:
            raise UserError(f"level {level} has {start} kernels; there is no kernel {units.max()}")
        return tuple(np.concatenate(part) for part in zip(*found, strict=True))

    def name(self, level: int, units: NDArray) -> tuple[list[str], NDArray]:
        """Convolution that the original takes each kernel of a level for, and number within it."""
        starts = np.cumsum([0, *(len(every) for every in self.kernels[-level])])[:-1]
        which = np.searchsorted(starts, units, side="right") - 1
        return [self.names[-level][w] for w in which], units - starts[which]

    def map(self, level: int, unit: int, children: NDArray) -> Tensor:
        """Sum of the maps of an entry one deeper than the children's; numbers that it lacks are left out."""
        if level + 2 > len(self.activations):
            return torch.full(self.activations[0].shape[1:], torch.nan)
        activation = self.activations[-level - 2]
        return activation[children[children < len(activation)]].sum(dim=0)


RULES = {"corrected": Corrected, "original": Original.read}
