"""Find the modules of a network whose outputs can be read.

The network runs on the meta device, where tensors have shapes but no values.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import cast

from torch import Tensor, nn

from static_dynamic.models.stages import Tap, VideoNetwork, run_on_meta

# Names that code bases give to the parameter that holds the class token.
CLASS_TOKENS = {"cls_token", "class_token", "class_embedding"}

Shape = tuple[int, ...]
# Index or key of a tensor in a module's output -> shape of the tensor.
Shapes = dict[int | str | None, Shape]


@dataclass(frozen=True)
class Candidate:
    """A module of a network: shapes of its output tensors for one clip, and how its output is pooled.

    ``taps`` is empty if the module cannot be read; ``reason`` says why. ``depth`` is the module's position
    in the order of execution.
    """

    module: str
    kind: str
    depth: int
    shapes: tuple[Shape, ...]
    taps: tuple[Tap, ...] = ()
    units: int = 0
    reason: str = ""


def find_candidates(
    net: VideoNetwork, layout: str | None = None, leading_tokens: int | None = None
) -> dict[str, Candidate]:
    """Return module path -> `Candidate` for every module that `net` runs, in the order of execution.

    Parameters
    ----------
    layout
        Layout of outputs with three axes or more. None infers the layout from the number of axes and from
        the axes that have the clip's aspect ratio.
    leading_tokens
        Number of tokens before the patch tokens. None counts class tokens and registers.
    """
    calls, outputs = outputs_of(net, batch=1)
    _, doubled = outputs_of(net, batch=2)
    frame = net.input_spec.shape
    patches = count_patches(outputs, frame)
    if leading_tokens is None:
        leading_tokens = count_leading_tokens(net)
    kinds = {path: type(module).__name__ for path, module in net.named_modules()}
    found = {}
    for depth, (path, shapes) in enumerate(outputs.items()):
        # an output can be split into clips only if the first axis doubles with the batch size
        batched = {
            key: shape
            for key, shape in shapes.items()
            if len(shape) > 1 and doubled[path].get(key) == (2 * shape[0], *shape[1:])
        }
        readable = pathways(batched)
        taps = tuple(
            Tap(path, key, kind, count_skipped(shape, kind, leading_tokens, patches), shape[0])
            for key, shape in readable.items()
            if (kind := layout_of(shape, frame, layout)) is not None
        )
        if calls[path] > 1:
            reason = f"runs {calls[path]} times"
        elif not readable:
            reason = "has an output without a batch axis"
        elif not taps:
            reason = "has an output whose layout is unknown (give model.layout)"
        else:
            reason = ""
        units = sum(readable[tap.select][1 if tap.layout == "maps" else -1] for tap in taps)
        about = (path, kinds[path], depth, tuple(shapes.values()))
        found[path] = Candidate(*about, reason=reason) if reason else Candidate(*about, taps, units)
    return found


def outputs_of(net: VideoNetwork, batch: int) -> tuple[Counter[str], dict[str, Shapes]]:
    """Run a network on the meta device; return each module's number of runs and shapes of its last output."""
    calls: Counter[str] = Counter()
    outputs: dict[str, Shapes] = {}

    def hook_for(path: str):
        def hook(module, inputs, output):
            calls[path] += 1
            # remove the entry first, so that a module that runs twice moves to the end of the dict
            outputs.pop(path, None)
            outputs[path] = {key: tuple(value.shape) for key, value in tensors_of(output).items()}

        return hook

    handles = [module.register_forward_hook(hook_for(path)) for path, module in net.named_modules() if path]
    try:
        run_on_meta(net, batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls, outputs


def tensors_of(output) -> dict[int | str | None, Tensor]:
    """Return a dict, index or key -> tensor, of a module's output; a single tensor has the key None."""
    if isinstance(output, Tensor):
        return {None: output}
    if isinstance(output, list | tuple):
        output = dict(enumerate(output))
    items = output.items() if isinstance(output, Mapping) else ()
    return {key: value for key, value in items if isinstance(value, Tensor)}


def pathways(shapes: Shapes) -> Shapes:
    """Choose which tensors to read: all if each is a feature map (one per pathway), else only the first."""
    if all(len(shape) >= 4 for shape in shapes.values()):
        return dict(shapes)
    return dict(list(shapes.items())[:1])


def layout_of(shape: Shape, frame: tuple[int, int], wanted: str | None = None) -> str | None:
    """Return an output's layout: `wanted` if given, for three axes or more; else infer it from `shape`.

    With four axes or more, the two axes with the aspect ratio of `frame` (height, width) are spatial: the
    last two (maps) or the two before the last (channels last). If neither pair has this ratio, return None.
    """
    if wanted is not None and len(shape) > 2:
        return wanted
    if len(shape) < 4:
        return "tokens" if len(shape) == 3 else "maps"
    layouts = {"maps": (shape[-2], shape[-1]), "channels_last": (shape[-3], shape[-2])}
    return next((layout for layout, cells in layouts.items() if in_proportion(cells, frame)), None)


def in_proportion(cells: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Return whether a grid (rows, columns) and a frame (height, width) have about the same aspect ratio."""
    (rows, columns), (height, width) = cells, frame
    return rows == columns if height == width else abs(rows * width - columns * height) <= height + width


def count_skipped(shape: Shape, layout: str | None, tokens: int, patches: int | None) -> int:
    """Return how many class and register tokens an output (rows, N, C) starts with: `tokens` or none (0).

    The count is `tokens` if rows * (N - `tokens`) divides `patches`, the number of patches of a clip.
    """
    if layout != "tokens" or not 0 < tokens < shape[1] or (patches and patches % (shape[0] * shape[1]) == 0):
        return 0
    tiles = patches is None or patches % (shape[0] * (shape[1] - tokens)) == 0
    return tokens if tiles else 0


def count_patches(outputs: Mapping[str, Shapes], frame: tuple[int, int]) -> int | None:
    """Count a clip's patches: the positions of the first feature map. Return None without a feature map."""
    for shape in chain.from_iterable(shapes.values() for shapes in outputs.values()):
        if len(shape) > 3 and layout_of(shape, frame) == "maps":
            return shape[0] * prod(shape[2:])
    return None


def count_leading_tokens(net: nn.Module) -> int:
    """Count tokens before the patch tokens: timm's ``num_prefix_tokens``, or 1 if there is a class token."""
    # return the count of the outermost module that has one; ``modules`` yields outer modules first
    for module in net.modules():
        if hasattr(module, "num_prefix_tokens"):
            return cast(int, module.num_prefix_tokens)
    return int(any(name.rpartition(".")[2] in CLASS_TOKENS for name, _ in net.named_parameters()))
